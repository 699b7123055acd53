"""An export -> rows to learn from, cleaned and masked, each with where it came from."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from peft_instruct.data.importers.export import Export, open_export
from peft_instruct.data.importers.kinds import KINDS, files_of, kind_of
from peft_instruct.data.importers.pairing import Dialogue, Shape, paired
from peft_instruct.data.importers.types import Broken, Conversation, Dropped
from peft_instruct.data.personal import mask
from peft_instruct.errors import DatasetError

# Terminal escapes whole (their letters would stay as text), other controls but tab and newline, halves of surrogate
# pairs, which are no characters.
_ESCAPE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b\n]*(?:\x07|\x1b\\)|[@-Z\\-_])")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


@dataclass
class Imported:
    """What became of an export.

    Attributes:
        rows: records as they are written: `instruction` and `output`, or `messages`; and `provenance`.
        num_messages: all messages of the export, those of `rows` and those dropped.
        masked: kind of personal data -> how often it was masked in the rows.
        num_cleaned: turns out of which control characters were taken.
    """

    kind: str
    reason: str
    rows: list[dict[str, Any]] = field(default_factory=list)
    dropped: list[Dropped] = field(default_factory=list)
    masked: Counter[str] = field(default_factory=Counter)
    num_messages: int = 0
    num_cleaned: int = 0


def import_export(path: Path, kind: str | None = None, shape: Shape = "pairs", *, masks: bool = True) -> Imported:
    """Read an export into rows.

    Args:
        kind: a key of KINDS; None finds out.
        masks: replace e-mail addresses, phone and card numbers, secrets and IP addresses by their kind.

    Raises:
        DatasetError: unreadable, of no known kind, with broken files (all of them told), or without a single row.
    """
    with open_export(path) as export:
        found, reason = (kind, "named by --kind") if kind else kind_of(export)
        imported = Imported(found, reason)
        problems = _read(export, imported, shape, masks)
    if problems:
        raise DatasetError.of(str(path), problems)
    if not imported.rows:
        counts = ", ".join(f"{count} {reason}" for reason, count in reasons(imported.dropped)) or "nothing: it is empty"
        raise DatasetError(f"{path}: no question with an answer in it, read as {found} ({reason}). Left out: {counts}.")
    return imported


def _read(export: Export, imported: Imported, shape: Shape, masks: bool) -> list[str]:
    names = files_of(export, imported.kind)
    imported.dropped += [
        Dropped(name, "", f"file that is not {imported.kind}") for name in set(export.names) - {*names}
    ]
    imported.dropped += [Dropped(name, "", "link or special file") for name in export.links]
    problems = []
    for item in KINDS[imported.kind].read(export, names):
        if isinstance(item, Broken):
            problems.append(f"{item.place}: {item.what}.")
            continue
        for part in paired(item, shape) if isinstance(item, Conversation) else [item]:
            if isinstance(part, Dropped):
                imported.dropped.append(part)
                imported.num_messages += bool(part.id)
            else:
                imported.rows.append(_row(part, shape, imported, masks))
                imported.num_messages += len(part.messages)
    return problems


def _row(dialogue: Dialogue, shape: Shape, imported: Imported, masks: bool) -> dict[str, Any]:
    texts = []
    for turn in dialogue.turns:
        text = cleaned(turn.text)
        imported.num_cleaned += text != turn.text
        if masks:
            text, counts = mask(text)
            imported.masked += counts
        texts.append(text)
    provenance = {
        "file": cleaned(dialogue.file),
        "ids": [cleaned(message.id) for message in dialogue.messages],
        "time": cleaned(dialogue.messages[0].time),
    }
    if shape == "pairs":
        return {"instruction": texts[0], "output": texts[1], "provenance": provenance}
    messages = [{"role": turn.role, "content": text} for turn, text in zip(dialogue.turns, texts, strict=True)]
    return {"messages": messages, "provenance": provenance}


def cleaned(text: str) -> str:
    """The text without terminal escapes and control characters; half a surrogate pair becomes U+FFFD."""
    text = _ESCAPE.sub("", text)
    return _CONTROL.sub(lambda found: "\ufffd" if found[0] >= "\ud800" else "", text)


def reasons(dropped: list[Dropped]) -> list[tuple[str, int]]:
    """Reason -> how many, the most frequent first."""
    return Counter(item.reason for item in dropped).most_common()
