"""A mail box as a mail program writes it: the talks, among newsletters, bounces and questions nobody answered."""

from __future__ import annotations

import mailbox
from datetime import timedelta
from email.message import EmailMessage
from email.utils import format_datetime
from pathlib import Path

from scattered import START, as_html, scattered, shown
from talks import PEOPLE

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


class _MailBox:
    """Eleven minutes between two mails, each in one of four encodings."""

    def __init__(self, path: Path) -> None:
        self.box = mailbox.mbox(path)
        self.moment = START
        self.num_sent = 0

    def send(self, person: str, subject: str, text: str, **headers: str) -> str:
        """The id of the mail; of a header's name `_` stands for `-`."""
        self.moment += timedelta(minutes=11)
        self.num_sent += 1
        mail = EmailMessage()
        mail["From"] = f"{PEOPLE[person]} <{person}@example.org>"
        mail["To"] = "help@example.org"
        mail["Subject"] = subject
        mail["Date"] = format_datetime(self.moment)
        mail["Message-ID"] = f"<{self.num_sent}@example.org>"
        for name, value in headers.items():
            mail[name.replace("_", "-")] = value
        match self.num_sent % 4:
            case 0:
                mail.set_content(as_html(text), subtype="html", cte="base64")
            case 1:
                mail.set_content(text, cte="quoted-printable")
            case 2 if text.isascii():
                mail.set_content(text, cte="7bit")
            case _:
                mail.set_content(text, cte="base64")
        self.box.add(mail)
        return str(mail["Message-ID"])

    def close(self) -> None:
        self.box.flush()
        self.box.close()


def write_mbox(path: Path) -> Path:
    """A support mail box written by the standard library: threads, four encodings, quotes, bounces, newsletters."""
    box = _MailBox(path)
    for number, item in enumerate(scattered(seed=5, num_noise=165)):
        if isinstance(item, int):
            _noise(box, item)
            continue
        last = ""
        before = ""
        for place, (person, text) in enumerate(item.said):
            body = shown(text) + _SIGNATURES[(number + place) % len(_SIGNATURES)](PEOPLE[person])
            if last:
                body += _QUOTING[(number + place) % len(_QUOTING)](PEOPLE[item.said[0][0]], before)
            subject = f"Help {number}" if not last else f"Re: Help {number}"
            # Some programs send no references at all; the subject then tells.
            more = {"In_Reply_To": last, "References": last} if last and number % 3 else {}
            last = box.send(person, subject, body, **more)
            before = text
    box.close()
    return path


def _noise(box: _MailBox, number: int) -> None:
    match number % 4:
        case 0:
            box.send("jo", "Newsletter", "Buy now!", Precedence="bulk")
        case 1:
            box.send("ana", "Out of office", "I am away.", Auto_Submitted="auto-replied")
        case 2:
            box.send("eli", f"Nobody answers {number}", "Anyone?")
        case 3:
            box.send("gus", "Re: gone", "As I said", In_Reply_To=f"<gone{number}@example.org>")
