"""Conversations as Intercom's API and its exports give them: a source, then parts of which some are comments."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from peft_instruct.data.importers.export import Export
from peft_instruct.data.importers.fields import flattened, iso_time, list_of, record_of, text_of
from peft_instruct.data.importers.html_text import html_to_text
from peft_instruct.data.importers.mail_text import own_words
from peft_instruct.data.importers.types import Broken, Conversation, Dropped, Found, Message, Role

KEYS = ("conversations", "data")
_ASKERS = {"user", "lead", "contact"}
_COMMENTS = {"comment", "source"}
"""`source` is our name of the first message, which is no part."""


def is_conversation(record: Any) -> bool:
    return isinstance(record, dict) and "conversation_parts" in record and isinstance(record.get("source"), dict)


def read(export: Export, names: tuple[str, ...]) -> Iterator[Found]:
    """One conversation each: users, leads and contacts ask, the team answers."""
    for name in names:
        for conversation in flattened(export.records(name), *KEYS):
            if isinstance(conversation, Broken):
                yield conversation
            elif is_conversation(conversation):
                yield from _conversation(conversation, name)
            else:
                yield Dropped(name, text_of(conversation, "id"), "not a conversation", str(conversation)[:200])


def _conversation(conversation: dict[str, Any], file: str) -> Iterator[Found]:
    number = text_of(conversation, "id")
    source = {"created_at": conversation.get("created_at"), **record_of(conversation, "source"), "part_type": "source"}
    parts = conversation.get("conversation_parts")
    listed = parts if isinstance(parts, list) else list_of(parts, "conversation_parts")
    messages = []
    for part in (source, *listed):
        place = f"{number}/{text_of(part, 'id')}"
        text = html_to_text(text_of(part, "body"))
        reason = _reason_to_drop(part)
        if reason:
            yield Dropped(file, place, reason, text)
        else:
            role: Role = "user" if text_of(record_of(part, "author"), "type") in _ASKERS else "assistant"
            messages.append(Message(place, role, own_words(text), iso_time(part.get("created_at"))))
    yield Conversation(file, tuple(messages))


def _reason_to_drop(part: Any) -> str:
    if not isinstance(part, dict):
        return "not a message"
    kind = text_of(part, "part_type")
    if kind == "note":
        return "internal note"
    if text_of(record_of(part, "author"), "type") == "bot":
        return "written by a bot"
    if part.get("redacted") is True:
        return "deleted"
    # An assignment or a closing may carry a comment; without one it only says that it happened.
    if kind not in _COMMENTS and not text_of(part, "body"):
        return f"system message ({kind or 'no type'})"
    return ""
