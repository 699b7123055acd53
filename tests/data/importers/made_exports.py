"""Exports as Slack, Discord, Zendesk, Intercom and a mail program write them: the talks, among noise of the kind's own.

Everything is a function of a seed; each export holds at least 200 messages.
"""

from __future__ import annotations

import html
import json
import mailbox
import random
import re
import zipfile
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from email.message import EmailMessage
from email.utils import format_datetime
from pathlib import Path
from typing import Any

from talks import CHATTER, PEOPLE, TALKS, Talk

START = datetime(2026, 3, 2, 8, 0, tzinfo=timezone.utc)
MENTION = re.compile(r"@\[(\w+)\]")
NUM_NOISE = 170


def _shown(text: str, mention: Callable[[str], str] = lambda person: "@" + PEOPLE[person]) -> str:
    return MENTION.sub(lambda found: mention(found[1]), text)


def _scattered(seed: int, num_noise: int = NUM_NOISE) -> Iterator[Talk | int]:
    """The talks in their order with noise (its number) between them."""
    chance = random.Random(seed)
    items: list[Talk | int] = list(range(num_noise))
    for place, talk in zip(sorted(chance.sample(range(num_noise), len(TALKS)), reverse=True), TALKS[::-1], strict=True):
        items.insert(place, talk)
    yield from items


# --- Slack


def _slack_id(person: str) -> str:
    return f"U{sorted(PEOPLE).index(person):07d}"


def _slack_text(text: str) -> str:
    escaped = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _shown(escaped, lambda person: f"<@{_slack_id(person)}>")


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
    for item in _scattered(seed=1):
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
        content = _shown(text, lambda person: f"<@{person_of(person)['id']}>")
        messages.append(
            {"id": number, "type": "Default", "timestamp": moment.isoformat(timespec="milliseconds"),
             "timestampEdited": None, "content": content, "author": author, "attachments": [],
             "mentions": mentioned, **more}
        )  # fmt: skip
        return number

    bot = {"id": "1", "name": "MEE6", "isBot": True}
    for item in _scattered(seed=2):
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


# --- Zendesk and Intercom


def write_zendesk(path: Path) -> Path:
    """Tickets with public and internal comments, some by triggers, some that quote the mail they answer."""
    tickets = []
    number = 5000
    for item in _scattered(seed=3, num_noise=60):
        number += 1
        said = [("jo", "Is my ticket still open?"), ("jo", "Hello?")] if isinstance(item, int) else item.said
        requester = said[0][0]
        comments: list[dict[str, Any]] = []
        for person, text in said:
            body = _shown(text)
            if person != requester and number % 2:
                body += f"\n\nBest regards,\n{PEOPLE[person]}\nSupport"
            if person != requester and number % 3 == 0:
                body += f"\n\nOn Mon, 2 Mar 2026 at 09:00, {PEOPLE[requester]} <a@example.org> wrote:\n> {said[0][1]}\n"
            comments.append({"id": len(comments) + 1, "author_id": _number(person), "body": body, "public": True,
                             "created_at": "2026-03-02T09:00:00Z"})  # fmt: skip
        comments.insert(1, {"id": 90, "author_id": _number("bo"), "body": "internal: angry customer", "public": False})
        comments.append({"id": 91, "author_id": -1, "body": "Ticket closed automatically", "public": True})
        tickets.append({"id": number, "requester_id": _number(requester), "subject": "help", "comments": comments})
    path.write_text(json.dumps({"tickets": tickets, "count": len(tickets)}), encoding="utf-8")
    return path


def _number(person: str) -> int:
    return 300 + sorted(PEOPLE).index(person)


def as_html(text: str) -> str:
    """Paragraphs, lists and fenced code of the talks as a rich-text editor writes them."""
    parts = []
    for block in text.split("\n\n"):
        code = re.fullmatch(r"```\w*\n(.*)\n```", block, re.DOTALL)
        if code:
            parts.append(f"<pre><code>{html.escape(code[1])}</code></pre>")
        elif block.startswith("- "):
            parts.append("<ul>" + "".join(f"<li>{html.escape(line[2:])}</li>" for line in block.split("\n")) + "</ul>")
        else:
            inline = re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(block, quote=False))
            parts.append(f"<p>{inline.replace(chr(10), '<br>')}</p>")
    return "".join(parts)


def write_intercom(path: Path) -> Path:
    """Conversations, one a line, with parts in HTML: comments, notes, assignments, bot greetings."""
    lines = []
    for number, item in enumerate(_scattered(seed=4, num_noise=70), start=1):
        said = (("jo", "Hi"),) if isinstance(item, int) else item.said
        (asker, first), *rest = said
        parts = [
            {"id": "a", "part_type": "assignment", "body": None, "author": {"type": "admin", "id": "1"}},
            {
                "id": "b",
                "part_type": "comment",
                "body": "<p>We reply in 2 hours.</p>",
                "author": {"type": "bot", "id": "2"},
            },
            {"id": "c", "part_type": "note", "body": "<p>VIP</p>", "author": {"type": "admin", "id": "1"}},
        ]
        for place, (person, text) in enumerate(rest):
            kind = "user" if person == asker else "admin"
            parts.append({"id": f"p{place}", "part_type": "comment", "body": as_html(_shown(text)),
                          "created_at": 1772438400 + place, "author": {"type": kind, "id": person}})  # fmt: skip
        parts.append({"id": "z", "part_type": "close", "body": None, "author": {"type": "admin", "id": "1"}})
        source = {
            "id": "s",
            "type": "conversation",
            "body": as_html(_shown(first)),
            "author": {"type": "lead", "id": asker},
        }
        lines.append({"type": "conversation", "id": str(number), "created_at": 1772438400, "source": source,
                      "conversation_parts": {"type": "conversation_part.list",
                                             "conversation_parts": parts}})  # fmt: skip
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


# --- mail

_QUOTING = (
    lambda name, text: f"\n\nOn Mon, 2 Mar 2026 at 09:00, {name} <x@example.org>\nwrote:\n\n" + _quoted(text),
    lambda name, text: f"\n\nAm Mo., 2. März 2026 um 09:00 Uhr schrieb {name} <x@example.org>:\n\n" + _quoted(text),
    lambda name, text: f"\n\n-----Original Message-----\nFrom: {name}\nSent: Monday\nTo: help\nSubject: help\n\n{text}",
    lambda name, text: (
        f"\n\n________________________________\nFrom: {name}\nSent: Monday\nTo: help\nSubject: x\n\n{text}"
    ),
    lambda name, text: f"\n\nLe lun. 2 mars 2026 à 09:00, {name} <x@example.org> a écrit :\n\n" + _quoted(text),
)
_SIGNATURES = (
    lambda name: f"\n\n-- \n{name}\nAcme GmbH | +49 30 998877",
    lambda name: f"\n\nBest regards,\n{name}",
    lambda name: "\n\nSent from my iPhone",
    lambda name: f"\n\nMit freundlichen Grüßen\n{name}\nAcme GmbH",
    lambda name: f"\n\nThanks,\n{name}\n\nThis e-mail and its attachments are confidential.",
)


def _quoted(text: str) -> str:
    return "\n".join(f"> {line}" for line in text.split("\n"))


def write_mbox(path: Path) -> Path:
    """A support mail box written by the standard library: threads, four encodings, quotes, bounces, newsletters."""
    box = mailbox.mbox(path)
    moment = START
    count = 0

    def send(person: str, subject: str, text: str, **headers: str) -> str:
        nonlocal moment, count
        moment += timedelta(minutes=11)
        count += 1
        mail = EmailMessage()
        mail["From"] = f"{PEOPLE[person]} <{person}@example.org>"
        mail["To"] = "help@example.org"
        mail["Subject"] = subject
        mail["Date"] = format_datetime(moment)
        mail["Message-ID"] = f"<{count}@example.org>"
        for name, value in headers.items():
            mail[name.replace("_", "-")] = value
        match count % 4:
            case 0:
                mail.set_content("text in the other part")
                mail.clear_content()
                mail.set_content(as_html(text), subtype="html", cte="base64")
            case 1:
                mail.set_content(text, cte="quoted-printable")
            case 2 if text.isascii():
                mail.set_content(text, cte="7bit")
            case _:
                mail.set_content(text, cte="base64")
        box.add(mail)
        return str(mail["Message-ID"])

    for number, item in enumerate(_scattered(seed=5, num_noise=165)):
        if isinstance(item, int):
            match item % 4:
                case 0:
                    send("jo", "Newsletter", "Buy now!", Precedence="bulk")
                case 1:
                    send("ana", "Out of office", "I am away.", Auto_Submitted="auto-replied")
                case 2:
                    send("eli", f"Nobody answers {item}", "Anyone?")
                case 3:
                    send("gus", "Re: gone", "As I said", In_Reply_To=f"<gone{item}@example.org>")
            continue
        last = ""
        before = ""
        for place, (person, text) in enumerate(item.said):
            body = _shown(text) + _SIGNATURES[(number + place) % len(_SIGNATURES)](PEOPLE[person])
            if last:
                body += _QUOTING[(number + place) % len(_QUOTING)](PEOPLE[item.said[0][0]], before)
            subject = f"Help {number}" if not last else f"Re: Help {number}"
            # Some programs send no references at all; the subject then tells.
            more = {"In_Reply_To": last, "References": last} if last and number % 3 else {}
            last = send(person, subject, body, **more)
            before = text
    box.flush()
    box.close()
    return path
