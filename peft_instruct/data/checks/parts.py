"""A raw row as parts: every text in it that is asked or answered, and what keeps it from being read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from peft_instruct.data.checks.catalogue import Finding
from peft_instruct.data.conversations import (
    ROLES,
    BrokenConversationError,
    UnusableConversationError,
    is_more_than_text,
    read_conversation,
    text_of,
)
from peft_instruct.data.formats import ACCEPTED, GROUP, Format
from peft_instruct.data.reader import accepted_of, group_of
from peft_instruct.data.types import Row

Side = Literal["ask", "answer", "text"]

ANSWERS = ("output", "completion")
OPTIONAL = ("input", "system")
GIANT = 1_000_000
"""Characters of a part."""


@dataclass(frozen=True)
class Part:
    """One text of a row.

    Attributes:
        name: what it is: `instruction`, `input`, `output`, `prompt`, `completion`, `text`, or who speaks a message.
        path: where it stands in the row's values: a column, or a column, a message and a key.
    """

    name: str
    side: Side
    text: str
    path: tuple[str | int, ...]

    @property
    def place(self) -> str:
        return ".".join(map(str, self.path))


@dataclass(frozen=True)
class RowParts:
    """The texts of one row and what was wrong with reading them."""

    origin: str
    parts: tuple[Part, ...]
    findings: tuple[Finding, ...]

    def of(self, name: str) -> str:
        return next((part.text for part in self.parts if part.name == name), "")

    @property
    def is_giant(self) -> bool:
        """Whether it is told as too large, and not looked at further."""
        return any(len(part.text) > GIANT for part in self.parts)

    @property
    def asked(self) -> str:
        return "\n".join(part.text for part in self.parts if part.side == "ask").strip()

    @property
    def answer(self) -> str:
        return "\n".join(part.text for part in self.parts if part.side == "answer")

    @property
    def all_text(self) -> str:
        return "\n".join(part.text for part in self.parts)


def parts_of(row: Row, form: Format) -> RowParts:
    """The texts of a row in its format; a value that is none is a finding."""
    parts: list[Part] = []
    findings: list[Finding] = []
    for found in _walk(row, form):
        if isinstance(found, Finding):
            findings.append(found)
            continue
        parts.append(found)
        problem = _problem(found)
        if problem:
            findings.append(Finding(problem, row.origin, found.place, found.text[:80]))
    return RowParts(row.origin, tuple(parts), tuple(findings))


def _walk(row: Row, form: Format) -> Iterator[Part | Finding]:
    for name, is_read in ((ACCEPTED, accepted_of), (GROUP, group_of)):
        if form.name != "text" and is_read(row.values) is None:
            yield Finding(
                "not-text", row.origin, name, f"{type(row.values[name]).__name__} {str(row.values[name])[:60]}"
            )
    for name, column in form.columns.items():
        value = row.values.get(column)
        if name == "messages":
            yield from _messages(row, column, value)
        elif isinstance(value, str):
            side: Side = "text" if name == "text" else "answer" if name in ANSWERS else "ask"
            yield Part(name, side, value, (column,))
        elif value is None and name in OPTIONAL:
            continue
        elif column not in row.values:
            yield Finding("missing-column", row.origin, column, f"found {', '.join(row.values) or 'nothing'}")
        else:
            kind = "null" if value is None else f"{type(value).__name__} {str(value)[:60]}"
            yield Finding("not-text", row.origin, column, kind)


def _messages(row: Row, column: str, value: Any) -> Iterator[Part | Finding]:
    if not isinstance(value, list) or not value:
        yield Finding("bad-conversation", row.origin, column, f"{type(value).__name__} {str(value)[:60]}")
        return
    is_told = False
    for number, message in enumerate(value):
        keys = message if isinstance(message, dict) else {}
        role = keys.get("role", keys.get("from"))
        key = "content" if "content" in keys else "value"
        text = text_of(keys.get(key))
        if isinstance(role, str) and not isinstance(text, str) and is_more_than_text(keys, text):
            continue  # training leaves the conversation out, which is told below
        if not isinstance(role, str) or not isinstance(text, str):
            yield Finding("bad-conversation", row.origin, f"{column}.{number}", str(message)[:60])
            is_told = True
        else:
            speaker = ROLES.get(role.strip().lower(), role)
            side: Side = "answer" if speaker == "assistant" else "ask"
            yield Part(speaker, side, text, (column, number, key))
            is_told |= not text.strip() and speaker not in OPTIONAL
    if not is_told:
        yield from _unlearned(row, column, value)


def _unlearned(row: Row, column: str, value: Any) -> Iterator[Finding]:
    """Why training would leave a conversation out, whose messages are texts."""
    try:
        read_conversation(value)
    except BrokenConversationError as error:
        yield Finding("bad-conversation", row.origin, column, str(error))
    except UnusableConversationError as error:
        yield Finding("unusable-conversation", row.origin, column, str(error))


def _problem(part: Part) -> str:
    if part.text.strip():
        try:
            part.text.encode("utf-8")
        except UnicodeEncodeError:
            return "lone-surrogate"
        return ""
    if part.name in OPTIONAL:
        return ""
    return "empty-prompt" if part.side == "ask" else "empty-answer"
