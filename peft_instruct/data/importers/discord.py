"""Discord channels as DiscordChatExporter writes them in JSON: one file per channel or thread."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from peft_instruct.data.importers.export import Export
from peft_instruct.data.importers.fields import iso_time, list_of, record_of, text_of
from peft_instruct.data.importers.threads import Post, threads
from peft_instruct.data.importers.types import Broken, Dropped, Found

SAME_BREATH_SECONDS = 300
"""A message without a reply mark belongs to the one just before it by the same author within this time."""

_PEOPLE_WRITE = {"Default", "Reply", "0", "19"}
_THREADS = {"GuildPublicThread", "GuildPrivateThread", "GuildNewsThread", "10", "11", "12"}
_MARKUP = re.compile(r"<(?P<sign>@[!&]?|#|a?:\w+:|t:)(?P<id>\d+)(?::\w)?>")


def is_channel(record: Any) -> bool:
    return isinstance(record, dict) and isinstance(record.get("messages"), list) and "channel" in record


def read(export: Export, names: tuple[str, ...]) -> Iterator[Found]:
    """One conversation per chain of replies; a thread channel is one conversation."""
    for name in names:
        for record in export.records(name):
            if isinstance(record, Broken):
                yield record
            elif is_channel(record):
                yield from _channel(record, name)
            else:
                yield Dropped(name, "", "file without messages")


def _channel(channel: dict[str, Any], file: str) -> Iterator[Found]:
    messages = list_of(channel, "messages")
    names = _names(channel, messages)
    is_thread = text_of(record_of(channel, "channel"), "type") in _THREADS
    posts: dict[str, Post] = {}
    before: Post | None = None
    for message in messages:
        text = _resolved(text_of(message, "content"), names)
        reason = _reason_to_drop(message)
        if not reason and text_of(message, "id") in posts:
            reason = "exported twice"
        if reason:
            yield Dropped(file, text_of(message, "id"), reason, text)
            continue
        post = Post(
            text_of(message, "id"), _author(message), text, text_of(message, "timestamp"),
            text_of(record_of(message, "reference"), "messageId"),
        )  # fmt: skip
        if is_thread:
            post = _under(post, next(iter(posts), ""))
        elif not post.parent and before is not None and _same_breath(before, post):
            post = _under(post, before.id)
        posts[post.id] = before = post
    yield from threads(file, posts.values())


def _under(post: Post, parent: str) -> Post:
    return Post(post.id, post.author, post.text, post.time, parent)


def _reason_to_drop(message: Any) -> str:
    if not isinstance(message, dict) or not text_of(message, "id"):
        return "not a message"
    if record_of(message, "author").get("isBot"):
        return "written by a bot"
    kind = text_of(message, "type") or "Default"
    if kind not in _PEOPLE_WRITE:
        return f"system message ({kind})"
    return "" if _author(message) else "without an author"


def _author(message: Any) -> str:
    return text_of(record_of(message, "author"), "id", "name")


def _names(channel: dict[str, Any], messages: list[Any]) -> dict[str, str]:
    """Sign and id -> what people see, of everyone who writes or is mentioned, and of the channel itself."""
    here = record_of(channel, "channel")
    names = {"#" + text_of(here, "id"): text_of(here, "name")}
    for message in messages:
        for person in (record_of(message, "author"), *list_of(message, "mentions")):
            names["@" + text_of(person, "id")] = text_of(person, "nickname", "name")
    return names


def _resolved(text: str, names: dict[str, str]) -> str:
    def shown(found: re.Match[str]) -> str:
        sign = found["sign"]
        if sign == "t:":
            return iso_time(found["id"]) or found[0]
        if ":" in sign:
            return sign.removeprefix("a")  # an emoji of the server, by its name
        if sign == "#":
            return "#" + (names.get("#" + found["id"]) or "channel")
        return "@" + ("role" if sign == "@&" else names.get("@" + found["id"]) or "someone")

    return _MARKUP.sub(shown, text)


def _same_breath(before: Post, post: Post) -> bool:
    if before.author != post.author:
        return False
    try:
        # Python 3.10 reads neither `Z` nor seven digits of a second.
        times = [re.sub(r"\.\d+|Z$", "", time) for time in (before.time, post.time)]
        first, second = (datetime.fromisoformat(time).replace(tzinfo=None) for time in times)
    except ValueError:
        return False
    return 0 <= (second - first).total_seconds() <= SAME_BREATH_SECONDS
