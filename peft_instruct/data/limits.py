"""Rows of any length -> rows within the length limit, and what is lost by it: nothing without being told."""

# N tokens of all rows together, R rows

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from peft_instruct.data.table import TokenTable
from peft_instruct.data.types import LengthReport
from peft_instruct.errors import DatasetError

LEAST_PROMPT_FRACTION = 4
"""A truncated row keeps at least max_length / 4 of its prompt's end: the response header is in it."""


@dataclass(frozen=True)
class Encoded:
    """Rows before any of them is cut.

    Attributes:
        completions: where each row's completion begins in the ids of the table, (R,) int64.
        num_start: tokens that every prompt begins with.
    """

    table: TokenTable
    completions: np.ndarray
    num_start: int


def fit(rows: Encoded, *, max_length: int, overlong: str = "truncate") -> tuple[TokenTable, LengthReport]:
    """The rows within the limit, and what it did to them; see `tokens.tokenize`."""
    table, lengths = rows.table, rows.table.lengths
    report = LengthReport(num_rows=len(table), longest=int(lengths.max(initial=0)))
    too_long = np.flatnonzero(lengths > max_length).tolist()
    if overlong == "error" and too_long:
        raise DatasetError.of(
            "data.overlong: error",
            [
                f"{table.origins[row]}: {lengths[row]} tokens. expected at most max_length {max_length}."
                for row in too_long
            ],
        )
    if overlong == "drop":
        report.dropped = [table.origins[row] for row in too_long]
        table = _kept(table, table.learned, np.repeat(lengths <= max_length, lengths))
    elif too_long:
        cutter = _Cutter(rows, max_length, report)
        for row in too_long:
            cutter.cut(row)
        table = _kept(table, cutter.learned, cutter.kept)
    if not len(table):
        raise DatasetError(
            f"data.max_length: {max_length} leaves none of the {report.num_rows} rows (the longest has "
            f"{report.longest} tokens). Raise max_length, or set overlong: truncate."
        )
    report.num_tokens, report.num_completion_tokens = len(table.ids), int(table.learned.sum())
    return table, report


def _kept(table: TokenTable, learned: np.ndarray, kept: np.ndarray) -> TokenTable:
    """The table without the tokens that are not kept, both (N,), and without the rows of which none is."""
    offsets = np.append(0, np.cumsum(kept))[table.offsets]
    left = np.flatnonzero(np.diff(offsets))
    return TokenTable(
        table.ids[kept], learned[kept], np.append(0, offsets[left + 1]), [table.origins[row] for row in left.tolist()]
    )


class _Cutter:
    """Shortens rows of a table: marks the tokens that stay, and those that are still learned, both (N,) bool."""

    def __init__(self, rows: Encoded, max_length: int, report: LengthReport) -> None:
        self.rows, self.max_length, self.report = rows, max_length, report
        self.kept = np.ones_like(rows.table.learned)
        self.learned = rows.table.learned.copy()

    def cut(self, row: int) -> None:
        table, begin = self.rows.table, int(self.rows.completions[row])
        start, end = table.offsets[row : row + 2].tolist()
        length = begin - start
        keep = max(self.max_length - (end - begin), min(length, self.max_length // LEAST_PROMPT_FRACTION))
        if keep < length:
            self.report.truncated.append(table.origins[row])
            first = start + self.rows.num_start
            last = min(first + length - keep, begin)
            self.kept[first:last] = False
            # An answer that has lost its beginning is no longer learned.
            rest = self.learned[last:begin]
            if self.learned[last - 1] and rest[:1].any():
                rest[: rest.argmin() or len(rest)] = False
            length = keep
        if length + end - begin > self.max_length:
            self.report.stopless.append(table.origins[row])
            self.kept[begin + self.max_length - length : end] = False
