"""`data import`: an export of a chat, a help desk, a mail box or FAQ pages -> JSON Lines to train on."""

from __future__ import annotations

import shlex
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from peft_instruct.data.importers.kinds import KINDS
from peft_instruct.data.importers.pairing import Shape
from peft_instruct.data.importers.run import Imported, cleaned, import_export, reasons
from peft_instruct.data.importers.types import Dropped
from peft_instruct.data.personal import mask
from peft_instruct.data.writing import write_rows
from peft_instruct.errors import RecipeError

NAMES = {"email": "e-mail addresses", "phone": "phone numbers", "card": "card numbers", "secret": "secrets",
         "ip": "IP addresses", "iban": "IBANs", "ssn": "social security numbers"}  # fmt: skip
MOST_SHOWN = 200
"""Characters of a dropped message that are listed."""


@dataclass(frozen=True)
class ImportResult:
    """What was written, what was left out and what was masked."""

    out: Path
    imported: Imported
    masks: bool
    dropped_file: Path | None

    def record(self) -> dict[str, Any]:
        imported = self.imported
        return {
            "out": str(self.out),
            "kind": imported.kind,
            "reason": imported.reason,
            "num_rows": len(imported.rows),
            "num_messages": imported.num_messages,
            "dropped": dict(reasons(imported.dropped)),
            "masked": {kind: imported.masked[kind] for kind in NAMES} if self.masks else None,
            "num_cleaned": imported.num_cleaned,
        }

    def text(self) -> str:
        imported = self.imported
        lines = [
            f"{imported.kind}: {imported.reason}",
            f"{imported.num_messages} messages -> {len(imported.rows)} rows in {self.out} "
            f"({', '.join(imported.rows[0])})",
        ]
        if imported.dropped:
            where = f", listed in {self.dropped_file}" if self.dropped_file else "; --dropped FILE lists them"
            lines.append(f"left out {len(imported.dropped)}{where}")
            lines += [f"  {count:>6}  {reason}" for reason, count in reasons(imported.dropped)]
        found = ", ".join(f"{imported.masked[kind]} {name}" for kind, name in NAMES.items() if imported.masked[kind])
        lines.append(f"masked: {found or 'nothing found'}" if self.masks else "masked: nothing, as --no-mask says")
        if imported.num_cleaned:
            lines.append(f"control characters taken out of {imported.num_cleaned} texts")
        lines.append(f"next: peft-instruct data check {shlex.quote(str(self.out))}")
        return "\n".join(lines)


def data_import(
    source: Path,
    *,
    out: Path,
    kind: str | None = None,
    shape: Shape = "pairs",
    masks: bool = True,
    dropped: Path | None = None,
    replaces: bool = False,
) -> ImportResult:
    """Write the rows of an export, and on request what was left out of them.

    Raises:
        RecipeError: no such kind; a file to write is there already or has no place.
        DatasetError: see `import_export`.
    """
    targets = [path for path in (out, dropped) if path is not None]
    problems = [f"--kind: {kind!r} is not one of {', '.join(KINDS)}."] if kind and kind not in KINDS else []
    problems += [problem for path in targets if (problem := _unwritable(path, source, replaces))]
    if dropped is not None and dropped.resolve() == out.resolve():
        problems.append(f"--dropped: {dropped} is where the rows go. Name another file.")
    if problems:
        raise RecipeError("\n".join(problems))
    imported = import_export(source, kind, shape, masks=masks)
    write_rows(out, imported.rows)
    if dropped is not None:
        write_rows(dropped, (_listed(item, masks) for item in imported.dropped))
    return ImportResult(out, imported, masks, dropped)


def _unwritable(path: Path, source: Path, replaces: bool) -> str:
    if path.suffix != ".jsonl":
        return f"{path}: rows are written as JSON Lines. Name a .jsonl file."
    if path.exists() and (not replaces or path.samefile(source) or path.is_dir()):
        return f"{path}: is there already. Name another file, or use --if-exists replace."
    return "" if path.parent.is_dir() else f"{path}: no folder {path.parent}. Make it first."


def _listed(item: Dropped, masks: bool) -> dict[str, Any]:
    # Masked before it is cut: of half an address nothing tells that it is one.
    text = (mask(item.text)[0] if masks else item.text)[:MOST_SHOWN]
    return {**{name: cleaned(value) for name, value in asdict(item).items()}, "text": cleaned(text)}
