"""`data check` over the files of one side: read what can be read, and find every problem in one pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from peft_instruct.data.checks.across import check_across
from peft_instruct.data.checks.catalogue import Finding
from peft_instruct.data.checks.parts import RowParts, parts_of
from peft_instruct.data.checks.rows import check_row
from peft_instruct.data.formats import Format, detect_format
from peft_instruct.data.sources import UNREAD, read_rows
from peft_instruct.data.types import Row
from peft_instruct.recipe.data_section import Columns

PROVENANCE = "provenance"


@dataclass(frozen=True)
class CheckedFile:
    """One file as it stands there.

    Attributes:
        rows: every record that is one.
        form: the format that they were read in.
        broken: what is not a record.
        unread: the place behind which nothing could be read; empty where everything was.
    """

    source: str
    rows: tuple[Row, ...]
    form: Format
    broken: tuple[Finding, ...]
    unread: str = ""


def read_file(source: str, format: str, columns: Columns, revision: str = "main") -> CheckedFile:
    """The rows of a file; broken records are findings.

    Raises:
        DatasetError: there is no such file, none of its rows is a record, or no format fits them.
    """
    problems: list[str] = []
    rows = read_rows(source, revision, problems).rows
    broken, unread = [], ""
    for problem in problems:
        place, _, what = problem.partition(": ")
        broken.append(Finding("broken-record", place, "", what))
        unread = place if problem.endswith(UNREAD) else unread
    return CheckedFile(source, tuple(rows), detect_format(rows, format, columns, source), tuple(broken), unread)


def check_files(
    train: Sequence[CheckedFile], held_out: Sequence[CheckedFile] = (), ignore: Sequence[str] = ()
) -> list[Finding]:
    """Every problem of the training files, and of the held-out ones by themselves, each file's in its order.

    Args:
        ignore: codes for which no row is left out.
    """
    findings: list[Finding] = []
    sides: list[list[RowParts]] = []
    for files in (train, held_out):
        side: list[RowParts] = []
        for file in files:
            findings += file.broken
            # `data import` writes where each row comes from; that is not meant to be learned.
            ignored = ", ".join(name for name in file.form.ignored if name != PROVENANCE)
            if ignored and file.rows:
                findings.append(Finding("ignored-column", file.rows[0].origin, "", ignored))
            for row in file.rows:
                parts = parts_of(row, file.form)
                found = list(check_row(parts))
                findings += found
                # Of two alike the one that stays must not be left out for another reason.
                is_left_out = any(each.kind.remedy == "drop" and each.code not in ignore for each in found)
                side += [] if is_left_out or parts.is_giant else [parts]
        sides.append(side)
    return findings + list(check_across(*sides))
