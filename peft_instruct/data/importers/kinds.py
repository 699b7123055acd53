"""Which kinds of export there are, and which one an export is, with the reason."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from peft_instruct.data.importers import discord, faq_csv, faq_html, faq_markdown, intercom, mbox, slack, zendesk
from peft_instruct.data.importers.export import Export
from peft_instruct.data.importers.fields import flattened
from peft_instruct.data.importers.types import Broken, Found
from peft_instruct.errors import DatasetError

MOST_FILES_LOOKED_AT = 20
"""Files of an export that are opened to tell its kind."""


@dataclass(frozen=True)
class Kind:
    """One kind of export.

    Attributes:
        about: what it is, for people.
        suffixes: of the files that are read; others are told as left out.
    """

    about: str
    suffixes: tuple[str, ...]
    read: Callable[[Export, tuple[str, ...]], Iterator[Found]]


KINDS = {
    "slack": Kind("a Slack export (zip or folder)", (".json",), slack.read),
    "discord": Kind("channels by DiscordChatExporter (JSON)", (".json",), discord.read),
    "zendesk": Kind("help-desk tickets with comments (JSON)", (".json", ".jsonl", ".ndjson"), zendesk.read),
    "intercom": Kind("conversations with parts (JSON)", (".json", ".jsonl", ".ndjson"), intercom.read),
    "mbox": Kind("a mail box", (".mbox", ".mbx", ""), mbox.read),
    "faq-markdown": Kind("FAQ pages in Markdown", (".md", ".markdown"), faq_markdown.read),
    "faq-html": Kind("FAQ pages in HTML", (".html", ".htm", ".xhtml"), faq_html.read),
    "faq-csv": Kind("a table of questions and answers", (".csv", ".tsv"), faq_csv.read),
}


def kind_of(export: Export) -> tuple[str, str]:
    """The kind of an export and the reason.

    Raises:
        DatasetError: it looks like none, or like several.
    """
    days = sum(bool(slack.DAY.search(name)) for name in export.names)
    index = next((name for name in export.names if PurePosixPath(name).name in ("users.json", "channels.json")), "")
    if days and index:
        return "slack", f"holds {index} and {days} files CHANNEL/YYYY-MM-DD.json"
    readable = [name for name in export.names if any(export.suffix(name) in kind.suffixes for kind in KINDS.values())]
    looks: dict[str, str] = {}
    unlike = []
    for name in readable[:MOST_FILES_LOOKED_AT]:
        kind, reason = _kind_of_file(export, name)
        if kind:
            looks.setdefault(kind, f"{name} {reason}")
        else:
            unlike.append(f"{name} {reason}")
    if len(looks) == 1:
        return next(iter(looks.items()))
    if looks:
        found = "; ".join(f"{kind}: {reason}" for kind, reason in looks.items())
        raise DatasetError(f"{export.path}: looks like several kinds of export ({found}). Name one with --kind.")
    seen = unlike[0] if unlike else f"first file {export.names[0]}"
    raise DatasetError(
        f"{export.path}: looks like no export that can be read ({seen}). expected one of {', '.join(KINDS)}. "
        "Name it with --kind."
    )


def _kind_of_file(export: Export, name: str) -> tuple[str, str]:
    suffix = export.suffix(name)
    by_suffix = next((kind for kind in ("faq-markdown", "faq-html", "faq-csv") if suffix in KINDS[kind].suffixes), "")
    if by_suffix:
        return by_suffix, f"is a {suffix} file"
    if suffix in KINDS["mbox"].suffixes:
        return ("mbox", "begins with `From `") if export.read(name).startswith(b"From ") else ("", "is no mbox")
    return _kind_of_json(export, name)


def _kind_of_json(export: Export, name: str) -> tuple[str, str]:
    first = next(iter(export.records(name)), None)
    if isinstance(first, Broken):
        return "", f"is broken: {first.place}: {first.what}"
    if discord.is_channel(first):
        return "discord", "has a channel and its messages"
    record = next(flattened(iter([first]), *zendesk.KEYS, *intercom.KEYS), None)
    if zendesk.is_ticket(record):
        return "zendesk", "has tickets with requester_id and comments"
    if intercom.is_conversation(record):
        return "intercom", "has conversations with a source and conversation_parts"
    if isinstance(record, dict) and slack.DAY.search(name) and "ts" in record:
        return "slack", "is a day of a channel with time stamps `ts`"
    return "", f"has {_shape(record)}"


def _shape(record: Any) -> str:
    if isinstance(record, dict):
        return f"the keys {', '.join(map(repr, list(record)[:8]))}"
    return "an empty list" if record is None or record == [] else f"{type(record).__name__} records"


def files_of(export: Export, kind: str) -> tuple[str, ...]:
    """The files that a kind reads; a file named alone is read whatever it is called."""
    if len(export.names) == 1:
        return export.names
    return tuple(name for name in export.names if export.suffix(name) in KINDS[kind].suffixes)
