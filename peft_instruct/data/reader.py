"""Rows of a known format -> prompts and completions, checked row by row, all problems at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from peft_instruct.data.conversations import BrokenConversationError, UnusableConversationError, read_conversation
from peft_instruct.data.formats import ACCEPTED, GROUP, Format
from peft_instruct.data.template import Template
from peft_instruct.data.types import Example, PromptCompletion, Row

HALF_PAIR = "holds half of a surrogate pair, which is no character"


class RowReader:
    """Reads the parts of rows in one format and remembers every problem and every row that is left out.

    Attributes:
        empty: origins of rows that lack an instruction or an output, with what is empty.
        unusable: origins of conversations of which nothing can be learned, with the reason.
        lost: what a template has no place for -> origins of the rows that have it.
        notes: what of conversations was not taken as it stands -> number of rows.
    """

    def __init__(self, form: Format) -> None:
        self.form = form
        self.problems: list[str] = []
        self.empty: list[str] = []
        self.unusable: list[str] = []
        self.lost: dict[str, list[str]] = {}
        self.notes: Counter[str] = Counter()

    def read(self, rows: list[Row], template: Template) -> list[PromptCompletion]:
        """The rows as prompts and completions; those that cannot be used are left out and remembered."""
        pairs = []
        for row in rows:
            num_wrong = len(self.problems) + len(self.empty) + len(self.unusable)
            pair = self._pair(row, template)
            if pair is not None and len(self.problems) + len(self.empty) + len(self.unusable) == num_wrong:
                pairs.append(pair)
        return pairs

    def _pair(self, row: Row, template: Template) -> PromptCompletion | None:
        if self.form.name == "text":
            return PromptCompletion("", self._text(row, "text"), row.origin)
        if self.form.name == "prompt_completion":
            prompt, completion = self._text(row, "prompt"), self._text(row, "completion")
            return PromptCompletion(prompt, completion, row.origin, prompt, self._accepted(row), self._group(row))
        example = self._conversation(row) if "messages" in self.form.columns else self._example(row)
        if example is None:
            return None
        if lost := template.lost(example):
            self.lost.setdefault(lost, []).append(row.origin)
        return template.render(example)

    def _example(self, row: Row) -> Example:
        return Example(
            instruction=self._text(row, "instruction"),
            input=self._text(row, "input", optional=True),
            output=self._text(row, "output"),
            origin=row.origin,
            accepted=self._accepted(row),
            group=self._group(row),
        )

    def _conversation(self, row: Row) -> Example | None:
        column = self.form.columns["messages"]
        try:
            conversation = read_conversation(row.values.get(column))
        except BrokenConversationError as error:
            self.problems.append(f"{row.origin}: {column!r} {error}.")
            return None
        except UnusableConversationError as error:
            self.unusable.append(f"{row.origin}: {error}.")
            return None
        self.notes.update(conversation.notes)
        *earlier, last = conversation.exchanges
        texts = [conversation.system, *(text for each in conversation.exchanges for text in (each.user, each.answer))]
        if any(map(has_lone_surrogate, texts)):
            self.problems.append(f"{row.origin}: {column!r} {HALF_PAIR}.")
        return Example(
            instruction=last.user,
            input="",
            output=last.answer,
            origin=row.origin,
            accepted=self._accepted(row),
            group=self._group(row),
            system=conversation.system,
            earlier=tuple(earlier),
        )

    def _text(self, row: Row, part: str, optional: bool = False) -> str:
        column = self.form.columns.get(part)
        value = None if column is None else row.values.get(column)
        if value is None and optional:
            return ""
        if column is not None and column not in row.values:
            self.problems.append(f"{row.origin}: no {column!r}; found {', '.join(map(repr, row.values)) or 'nothing'}.")
        elif not isinstance(value, str):
            kind = "null" if value is None else f"{type(value).__name__} {str(value)[:40]!r}"
            self.problems.append(f"{row.origin}: {column!r} is {kind}. expected text; quote it.")
        elif not optional and not value.strip():
            self.empty.append(f"{row.origin}: {column!r} is empty.")
        elif has_lone_surrogate(value):
            self.problems.append(f"{row.origin}: {column!r} {HALF_PAIR}.")
        else:
            return value
        return ""

    def _accepted(self, row: Row) -> tuple[str, ...]:
        accepted = accepted_of(row.values)
        if accepted is None:
            self.problems.append(f"{row.origin}: {ACCEPTED!r} is {row.values[ACCEPTED]!r}. expected a list of texts.")
        return accepted or ()

    def _group(self, row: Row) -> str:
        group = group_of(row.values)
        if group is None:
            self.problems.append(f"{row.origin}: {GROUP!r} is {row.values[GROUP]!r}. expected text.")
        return group or ""


def accepted_of(values: Mapping[str, Any]) -> tuple[str, ...] | None:
    """The outputs that count as right, none where the row names none; None where what it names is no list of texts."""
    texts = values.get(ACCEPTED)
    if texts is None:
        return ()
    is_right = isinstance(texts, list) and all(isinstance(text, str) and not has_lone_surrogate(text) for text in texts)
    return tuple(texts) if is_right else None


def group_of(values: Mapping[str, Any]) -> str | None:
    """The group that a row is scored in, "" where it names none; None where what it names is no text."""
    value = values.get(GROUP)
    name = "" if value is None else value
    return name if isinstance(name, str) and not has_lone_surrogate(name) else None


def has_lone_surrogate(text: str) -> bool:
    """Whether a text cannot be written: no tokenizer takes it either."""
    if text.isascii():
        return False
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return True
    return False
