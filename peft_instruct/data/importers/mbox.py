"""Mail boxes (mbox): threads by their References, with what each person wrote and nothing that was quoted."""

from __future__ import annotations

import email
import email.policy
import re
from collections.abc import Container, Iterator
from datetime import datetime, timezone
from email.message import EmailMessage
from email.utils import getaddresses

from peft_instruct.data.formats import QUESTION_MARKS
from peft_instruct.data.importers.export import Export
from peft_instruct.data.importers.html_text import html_to_text
from peft_instruct.data.importers.mail_text import own_words
from peft_instruct.data.importers.threads import Post, threads
from peft_instruct.data.importers.types import Broken, Dropped, Found

_SEPARATOR = re.compile(rb"(?:\A|(?<=\n\n)|(?<=\n\r\n))From \S+ .*\d{4}")
_REPLY_MARKS = re.compile(
    r"^(?:\s*(?:re|aw|sv|antw|fwd?|wg|tr|rv|res|回复|答复|转发)(?:\[\d+\])?\s*[:：])+\s*", re.IGNORECASE
)
_NO_REPLY = re.compile(r"^(?:no-?reply|do-?not-?reply|mailer-daemon|postmaster|bounce)", re.IGNORECASE)
LEAST_SAID = 25
"""Characters of a mail that says something by itself; of a shorter one ("See above. Thanks!") the subject counts."""


def read(export: Export, names: tuple[str, ...]) -> Iterator[Found]:
    """One conversation per thread: the author of its first mail asks, the others answer."""
    for name in names:
        mails: dict[str, tuple[Post, EmailMessage]] = {}
        for number, mail in enumerate(_mails(export.read(name)), start=1):
            post = _post(mail, number)
            if isinstance(post, Broken):
                yield Broken(f"{name}: mail {number}", post.what)
                continue
            reason = _reason_to_drop(mail) or ("exported twice" if post.id in mails else "")
            if reason:
                yield Dropped(name, post.id, reason, post.text)
            else:
                mails[post.id] = (post, mail)
        subjects: dict[str, str] = {}
        # In the order of their times: a mail box may stand the newest first.
        in_order = sorted(mails.values(), key=lambda each: each[0].time)
        yield from threads(name, [_in_thread(post, mail, mails, subjects) for post, mail in in_order])


def _mails(content: bytes) -> Iterator[EmailMessage]:
    starts = [found.start() for found in _SEPARATOR.finditer(content)]
    for start, end in zip(starts, [*starts[1:], len(content)], strict=True):
        mail = content[start:end].split(b"\n", 1)[-1]
        # `>From ` is how an mbox writes a line of text that begins with `From `.
        mail = re.sub(rb"^>(>*From )", rb"\1", mail, flags=re.MULTILINE)
        yield email.message_from_bytes(mail, policy=email.policy.default)


def _post(mail: EmailMessage, number: int) -> Post | Broken:
    try:
        author = next((address for _, address in getaddresses([str(mail["From"] or "")])), "").lower()
        identity = str(mail["Message-ID"] or "").strip() or f"mail {number}"
        date = mail["Date"]
        moment = getattr(date, "datetime", None)
        return Post(identity, author, own_words(_body(mail)), _utc(moment))
    except (ValueError, LookupError, AttributeError, TypeError, IndexError) as error:
        # The parser of the standard library fails on some broken headers with whatever it stumbles on.
        return Broken("", f"broken headers ({type(error).__name__}: {error})")


def _body(mail: EmailMessage) -> str:
    part = mail.get_body(preferencelist=("plain", "html"))
    if part is None:
        return ""
    try:
        text = part.get_content()
    except (LookupError, UnicodeError):
        text = (part.get_payload(decode=True) or b"").decode("utf-8", errors="replace")  # type: ignore[union-attr]
    if not isinstance(text, str):
        return ""
    return html_to_text(text) if part.get_content_subtype() == "html" else text


def _utc(moment: datetime | None) -> str:
    if moment is None:
        return ""
    aware = moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)
    return aware.astimezone(timezone.utc).isoformat(timespec="seconds")


def _reason_to_drop(mail: EmailMessage) -> str:
    automatic = str(mail["Auto-Submitted"] or "no").split(";")[0].strip().lower() != "no"
    if automatic or mail["X-Autoreply"] or mail["X-Autorespond"] or mail.get_content_type() == "multipart/report":
        return "written by a bot"
    if str(mail["Precedence"] or "").lower() in ("bulk", "junk", "auto_reply"):
        return "sent in bulk"
    sender = next((address for _, address in getaddresses([str(mail["From"] or "")])), "")
    if _NO_REPLY.match(sender):
        return "written by a bot"
    return "" if sender else "without an author"


def _in_thread(post: Post, mail: EmailMessage, known: Container[str], subjects: dict[str, str]) -> Post:
    """The post with its parent: the last known mail it refers to, else the thread of its subject."""
    referred = str(mail["In-Reply-To"] or "").split() + str(mail["References"] or "").split()[::-1]
    subject = str(mail["Subject"] or "")
    plain = _REPLY_MARKS.sub("", subject).strip().lower()
    parent = next((identity for identity in referred if identity in known), "")
    if not parent and plain != subject.strip().lower():
        parent = subjects.get(plain, "")
    if not parent and referred:
        parent = referred[0]
    subjects.setdefault(plain, post.id)
    text = post.text if parent or not _asks_in(subject, post.text) else f"{subject.strip()}\n\n{post.text}".strip()
    return Post(post.id, post.author, text, post.time, parent)


def _asks_in(subject: str, text: str) -> bool:
    """Whether a mail asks in its subject: its text asks nothing, and there is a question, or next to no text."""
    if not subject.strip() or any(mark in text for mark in QUESTION_MARKS):
        return False
    return subject.rstrip().endswith(QUESTION_MARKS) or len(text) < LEAST_SAID
