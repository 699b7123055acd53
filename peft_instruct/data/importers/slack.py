"""Slack exports: a zip or folder of users.json, channels.json and one `CHANNEL/YYYY-MM-DD.json` a day.

Format: Slack's "How to read Slack data exports"; edits and deletions stand in the text already, or as events of
their own where the workspace keeps them.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from peft_instruct.data.importers.export import Export
from peft_instruct.data.importers.fields import flattened, iso_time, record_of, text_of
from peft_instruct.data.importers.threads import Post, threads
from peft_instruct.data.importers.types import Broken, Dropped, Found

DAY = re.compile(r"(?:^|/)(?P<channel>[^/]+)/\d{4}-\d{2}-\d{2}\.json$")
PEOPLE = "users.json"
PRIVATE_LISTS = ("dms.json", "mpims.json")
_PEOPLE_WRITE = {"", "thread_broadcast", "me_message", "file_share"}
_MARKUP = re.compile(r"<(?P<sign>[@#!]?)(?P<target>[^<>|\n]+)(?:\|(?P<label>[^<>\n]*))?>")


@dataclass
class _Channel:
    """Records of a channel by time stamp, edits applied; and where each stood."""

    file: str
    is_private: bool = False
    records: dict[str, dict[str, Any]] = field(default_factory=dict)
    dropped: list[Dropped] = field(default_factory=list)

    def add(self, record: Any) -> None:
        subtype, ts = text_of(record, "subtype"), text_of(record, "ts")
        if not isinstance(record, dict) or not ts:
            self.dropped.append(Dropped(self.file, ts, "not a message", str(record)[:200]))
        elif subtype == "message_changed":
            new = record_of(record, "message")
            self.records[text_of(new, "ts")] = new
            self.dropped.append(Dropped(self.file, ts, "edit (applied)"))
        elif subtype == "message_deleted":
            gone = self.records.pop(text_of(record, "deleted_ts"), {})
            if gone:
                self.dropped.append(Dropped(self.file, text_of(gone, "ts"), "deleted", text_of(gone, "text")))
            self.dropped.append(Dropped(self.file, ts, "deletion (applied)"))
        elif ts in self.records:
            self.dropped.append(Dropped(self.file, ts, "exported twice", text_of(record, "text")))
        else:
            self.records[ts] = record


def read(export: Export, names: tuple[str, ...]) -> Iterator[Found]:
    """One conversation per thread; messages nobody replied to are conversations of one message."""
    people, bots = _people(export)
    private = _private(export)
    channels: dict[str, _Channel] = {}
    for name in sorted(names, key=lambda name: (str(PurePosixPath(name).parent), name)):
        day = DAY.search(name)
        if day is None:
            if PurePosixPath(name).name in (PEOPLE, *PRIVATE_LISTS):
                # What is damaged of them would leave rows of bots and of direct messages, and ids in place of names.
                yield from (each for each in flattened(export.records(name)) if isinstance(each, Broken))
            elif PurePosixPath(name).name != "channels.json":
                yield Dropped(name, "", "file without messages")
            continue
        folder = str(PurePosixPath(name).parent)
        channel = channels.setdefault(folder, _Channel(folder, day["channel"] in private))
        for record in flattened(export.records(name)):
            if isinstance(record, Broken):
                yield record
            else:
                channel.add(record)
    for channel in channels.values():
        posts = []
        for ts, record in channel.records.items():
            reason = "direct message" if channel.is_private else _reason_to_drop(record, bots)
            text = resolved(text_of(record, "text"), people)
            if reason:
                channel.dropped.append(Dropped(channel.file, ts, reason, text))
            else:
                parent = text_of(record, "thread_ts")
                posts.append(Post(ts, text_of(record, "user"), text, iso_time(ts), parent if parent != ts else ""))
        yield from channel.dropped
        yield from threads(channel.file, sorted(posts, key=lambda post: _seconds(post.id)))


def _private(export: Export) -> set[str]:
    """The folders of direct messages, of two or of several: what was said there was said to nobody else."""
    lists = [name for name in export.names if PurePosixPath(name).name in PRIVATE_LISTS]
    talks = [talk for name in lists for talk in flattened(export.records(name))]
    return {text_of(talk, key) for talk in talks for key in ("id", "name")} - {""}


def _people(export: Export) -> tuple[dict[str, str], set[str]]:
    """Id -> the name people see, and the ids that are no people."""
    people, bots = {}, {"USLACKBOT"}
    for name in export.names:
        if PurePosixPath(name).name == PEOPLE:
            for user in flattened(export.records(name)):
                profile = record_of(user, "profile")
                shown = text_of(profile, "display_name") or text_of(user, "real_name", "name")
                people[text_of(user, "id")] = shown or text_of(profile, "real_name")
                if isinstance(user, dict) and user.get("is_bot") is True:
                    bots.add(text_of(user, "id"))
    return people, bots


def _reason_to_drop(record: dict[str, Any], bots: set[str]) -> str:
    subtype = text_of(record, "subtype")
    if subtype == "tombstone":
        return "deleted"
    if subtype == "bot_message" or record.get("bot_id") or text_of(record, "user") in bots:
        return "written by a bot"
    if subtype not in _PEOPLE_WRITE:
        return f"system message ({subtype})"
    return "" if text_of(record, "user") else "without an author"


def resolved(text: str, people: dict[str, str]) -> str:
    """Slack's markup as people see it: mentions by name, links by label and address, entities as characters."""

    def shown(found: re.Match[str]) -> str:
        sign, target, label = found["sign"], found["target"], found["label"] or ""
        if sign == "@":
            return "@" + (people.get(target) or label or "someone").removeprefix("@")
        if sign == "#":
            return "#" + (label or "channel")
        if sign == "!":
            return label or "@" + target.split("^")[0]
        address = re.sub(r"^(mailto|tel):", "", target)
        if not label or label in (address, re.sub(r"^https?://", "", address).rstrip("/")):
            return address
        return f"{label} ({address})"

    return html.unescape(_MARKUP.sub(shown, text))


def _seconds(ts: str) -> float:
    try:
        return float(ts)
    except ValueError:
        return 0.0
