"""Help-desk tickets as Zendesk's API and its exports give them: a requester, and comments that are public or not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from peft_instruct.data.importers.export import Export
from peft_instruct.data.importers.fields import flattened, list_of, record_of, text_of
from peft_instruct.data.importers.html_text import html_to_text
from peft_instruct.data.importers.mail_text import own_words
from peft_instruct.data.importers.types import Broken, Conversation, Dropped, Found, Message, Role

KEYS = ("tickets", "results")


def is_ticket(record: Any) -> bool:
    return isinstance(record, dict) and isinstance(record.get("comments"), list) and "requester_id" in record


def read(export: Export, names: tuple[str, ...]) -> Iterator[Found]:
    """One conversation per ticket: who requested it asks, every other author answers."""
    for name in names:
        for ticket in flattened(export.records(name), *KEYS):
            if isinstance(ticket, Broken):
                yield ticket
            elif is_ticket(ticket):
                yield from _ticket(ticket, name)
            else:
                yield Dropped(name, text_of(ticket, "id"), "not a ticket", str(ticket)[:200])


def _ticket(ticket: dict[str, Any], file: str) -> Iterator[Found]:
    requester, number = text_of(ticket, "requester_id"), text_of(ticket, "id")
    messages = []
    for comment in list_of(ticket, "comments"):
        place = f"{number}/{text_of(comment, 'id')}"
        text = text_of(comment, "plain_body", "body") or html_to_text(text_of(comment, "html_body"))
        reason = _reason_to_drop(comment)
        if reason:
            yield Dropped(file, place, reason, text)
        else:
            role: Role = "user" if text_of(comment, "author_id") == requester else "assistant"
            messages.append(Message(place, role, own_words(text), text_of(comment, "created_at")))
    yield Conversation(file, tuple(messages))


def _reason_to_drop(comment: Any) -> str:
    if not isinstance(comment, dict):
        return "not a message"
    if comment.get("public") is False:
        return "internal note"
    rule = text_of(record_of(record_of(comment, "via"), "source"), "rel")
    # Zendesk's own author is -1.
    if text_of(comment, "author_id") == "-1" or rule == "trigger" or rule == "automation":
        return "written by a bot"
    return ""
