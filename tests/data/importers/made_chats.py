"""Exports as Slack and Discord write them: the talks, among noise of the kind's own."""

from __future__ import annotations

import json
import random
import zipfile
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from scattered import MENTION, START, scattered, shown
from talks import CHATTER, PEOPLE, TALKS

# --- Slack


def _slack_id(person: str) -> str:
    return f"U{sorted(PEOPLE).index(person):07d}"


def _slack_text(text: str) -> str:
    escaped = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return shown(escaped, lambda person: f"<@{_slack_id(person)}>")


class _SlackChannel:
    def __init__(self) -> None:
        self.moment = START
        self.records: list[tuple[datetime, dict[str, Any]]] = []

    def post(self, text: str, person: str = "", **more: Any) -> str:
        self.moment += timedelta(minutes=17)
        ts = f"{self.moment.timestamp():.6f}"
        user = {"user": _slack_id(person)} if person else {}
        self.records.append((self.moment, {"type": "message", "text": text, "ts": ts, **user, **more}))
        return ts


def write_slack(path: Path) -> Path:
    """A zip with two channels of one file a day, threads broken by days, edits, deletions, bots and joins."""
    chance = random.Random(1)
    channel = _SlackChannel()
    for item in scattered(seed=1):
        if isinstance(item, int):
            _slack_noise(channel, item, chance)
            continue
        thread: dict[str, Any] = {}
        for number, (person, text) in enumerate(item.said):
            if number == 1 and item is TALKS[0]:
                # Written wrong first, then edited; the workspace keeps the event.
                wrong = channel.post("You need nothing.", person, **thread)
                _, record = channel.records[-1]
                edited = {**record, "text": _slack_text(text), "edited": {"user": record["user"], "ts": record["ts"]}}
                channel.post("", subtype="message_changed", message=edited, previous_message=record, hidden=True)
                assert wrong == edited["ts"]
            else:
                ts = channel.post(_slack_text(text), person, **thread)
                thread = thread or {"thread_ts": ts}
        if item is TALKS[1]:
            gone = channel.post("wrong thread, sorry", "gus", **thread)
            channel.post("", subtype="message_deleted", deleted_ts=gone, hidden=True)
            channel.post("This message was deleted.", "gus", subtype="tombstone", **thread)
            channel.post("Beep, a reminder", bot_id="B01", subtype="bot_message", **thread)
    users = [
        {"id": _slack_id(person), "name": person, "profile": {"display_name": name}} for person, name in PEOPLE.items()
    ]
    users.append({"id": "UBOT", "name": "deploybot", "is_bot": True, "profile": {"real_name": "Deploy"}})
    days: dict[str, list[dict[str, Any]]] = {}
    for moment, record in channel.records:
        days.setdefault(f"help/{moment:%Y-%m-%d}.json", []).append(record)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("users.json", json.dumps(users))
        archive.writestr("channels.json", json.dumps([{"id": "C1", "name": "help"}]))
        archive.writestr("integration_logs.json", "[]")
        for name, records in days.items():
            archive.writestr(name, json.dumps(records, indent=1))
    return path


def _slack_noise(channel: _SlackChannel, number: int, chance: random.Random) -> None:
    person = chance.choice(sorted(PEOPLE))
    kinds: list[Callable[[], Any]] = [
        lambda: channel.post(f"<@{_slack_id(person)}> has joined the channel", person, subtype="channel_join"),
        lambda: channel.post("Build <https://ci.example.org/7|#7> passed", person, bot_id="B01"),
        lambda: channel.post("deployed", user="UBOT"),
        lambda: channel.post("", person, files=[{"id": "F1", "name": "screen.png"}]),
        lambda: channel.post(f"<!here> {chance.choice(CHATTER)}", person),
        lambda: channel.post(chance.choice(CHATTER), person),
        lambda: channel.post(f"set the channel topic: {number}", person, subtype="channel_topic"),
    ]
    kinds[number % len(kinds)]()


# --- Discord


def write_discord(path: Path) -> Path:
    """A channel as DiscordChatExporter writes it: replies, split messages, bots, joins, custom emoji."""
    chance = random.Random(2)
    messages: list[dict[str, Any]] = []
    moment = START

    def person_of(person: str) -> dict[str, Any]:
        number = str(900 + sorted(PEOPLE).index(person))
        return {"id": number, "name": person, "nickname": PEOPLE[person], "isBot": False}

    def post(text: str, author: dict[str, Any], minutes: int = 30, **more: Any) -> str:
        nonlocal moment
        moment += timedelta(minutes=minutes)
        number = str(1000 + len(messages))
        mentioned = [person_of(person) for person in MENTION.findall(text)]
        content = shown(text, lambda person: f"<@{person_of(person)['id']}>")
        messages.append(
            {"id": number, "type": "Default", "timestamp": moment.isoformat(timespec="milliseconds"),
             "timestampEdited": None, "content": content, "author": author, "attachments": [],
             "mentions": mentioned, **more}
        )  # fmt: skip
        return number

    bot = {"id": "1", "name": "MEE6", "isBot": True}
    for item in scattered(seed=2):
        if isinstance(item, int):
            author = person_of(chance.choice(sorted(PEOPLE)))
            match item % 4:
                case 0:
                    post("Joined the server.", author, type="GuildMemberJoin")
                case 1:
                    post("GG, you just advanced to level 5!", bot)
                case 2:
                    post(chance.choice(CHATTER) + " <:party:123456>", author)
                case 3:
                    post("", author, attachments=[{"id": "5", "fileName": "cat.png"}])
            continue
        first = before = ""
        for person, text in item.said:
            if before == person:
                post(text, person_of(person), minutes=1)
            elif first:
                post(text, person_of(person), type="Reply", reference={"messageId": first})
            else:
                first = post(text, person_of(person))
            before = person
    channel = {"id": "77", "type": "GuildTextChat", "name": "help"}
    path.write_text(json.dumps({"guild": {"id": "7"}, "channel": channel, "messages": messages}), encoding="utf-8")
    return path
