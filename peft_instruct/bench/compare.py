"""Result files side by side: the same work in one group, every device of every file a line of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peft_instruct.bench.columns import without_repeated_absences
from peft_instruct.bench.records import BenchFile, BenchRow

SAME_WORK_FRACTION = 0.01
"""Real tokens per step may differ by this much before a ratio is noted as one of unlike work."""

Work = tuple[str, int | None, str, int, int, bool]


@dataclass(frozen=True)
class Line:
    """One row of one file.

    Attributes:
        file: the result file's name.
        ratio: tokens per second by those of the group's first measured line; None without figures.
    """

    file: str
    row: BenchRow
    ratio: float | None

    def record(self) -> dict[str, Any]:
        return {"file": self.file, "ratio": self.ratio, **self.row.model_dump(mode="json")}


@dataclass(frozen=True)
class Comparison:
    """Every row of every file, and one line for each device that a file says is not there.

    Attributes:
        lines: grouped by the work that was asked for, in the order of the files; absent devices last.
        notes: what a reader must know before believing a ratio.
    """

    lines: tuple[Line, ...]
    notes: tuple[str, ...]


def compare_files(files: Sequence[tuple[Path, BenchFile]]) -> Comparison:
    """Group by method, rank, precision asked for, batch size and length; the device is what is compared."""
    labels = _labels([path for path, _ in files])
    groups: dict[Work, list[tuple[str, BenchRow]]] = {}
    absent: list[Line] = []
    for label, (_, file) in zip(labels, files, strict=True):
        for row in without_repeated_absences(file.rows):
            if row.status == "absent":
                absent.append(Line(label, row, None))
            else:
                groups.setdefault(work_of(row), []).append((label, row))
    notes = _recipe_notes(labels, [file for _, file in files])
    lines: list[Line] = []
    for members in groups.values():
        reference = next((row.measurement for _, row in members if row.measurement), None)
        for label, row in members:
            found = row.measurement
            ratio = found.tokens_per_second.median / reference.tokens_per_second.median if found and reference else None
            lines.append(Line(label, row, ratio))
            if found and reference and _is_other_work(found.tokens_per_step, reference.tokens_per_step):
                notes.append(
                    f"{label}: {row.cell}: {found.tokens_per_step:,.0f} real tokens a step, the line it is compared "
                    f"with has {reference.tokens_per_step:,.0f}: not the same rows"
                )
    return Comparison((*lines, *absent), tuple(notes))


def work_of(row: BenchRow) -> Work:
    cell = row.cell
    return cell.method, cell.rank, cell.precision, cell.batch_size, cell.max_length, cell.axis == "length"


def _labels(paths: Sequence[Path]) -> list[str]:
    """File names, or whole paths where names alone would be mistaken for each other."""
    names = [path.name for path in paths]
    return names if len(set(names)) == len(names) else [str(path) for path in paths]


def _recipe_notes(labels: Sequence[str], files: Sequence[BenchFile]) -> list[str]:
    recipes = {file.recipe_sha256 for file in files}
    if len(recipes) < 2:
        return []
    named = ", ".join(
        f"{label}: {file.recipe} {file.recipe_sha256[:8]}" for label, file in zip(labels, files, strict=True)
    )
    return [f"the recipes are not the same ({named}); a folder that is named otherwise counts as another"]


def _is_other_work(tokens: float, reference: float) -> bool:
    return abs(tokens - reference) > SAME_WORK_FRACTION * reference
