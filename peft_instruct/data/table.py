"""Many rows of tokens as a few arrays: a tenth of the memory of Python's integers, ready for arrow and for a file."""

# N tokens of all rows together, R rows

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import overload

import numpy as np

from peft_instruct.data.types import IGNORED_LABEL, Tokens


@dataclass(frozen=True, eq=False)
class TokenTable(Sequence[Tokens]):
    """Rows of `Tokens`, made one by one when they are asked for.

    Attributes:
        ids: of all rows, one behind the other, (N,) int32.
        learned: whether a token has a label, (N,) bool.
        offsets: where each row begins, and the end of the last, (R + 1,) int64.
        origins: of the rows.
    """

    ids: np.ndarray
    learned: np.ndarray
    offsets: np.ndarray
    origins: Sequence[str]

    @classmethod
    def of(cls, rows: Sequence[Tokens]) -> TokenTable:
        """The rows as a table; a table is one already."""
        if isinstance(rows, cls):
            return rows
        builder = TableBuilder()
        for row in rows:
            builder.extend(row.input_ids, (label != IGNORED_LABEL for label in row.labels))
            builder.end_row(row.origin)
        return builder.table()

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @overload
    def __getitem__(self, place: int) -> Tokens: ...
    @overload
    def __getitem__(self, place: slice) -> list[Tokens]: ...
    def __getitem__(self, place: int | slice) -> Tokens | list[Tokens]:
        if isinstance(place, slice):
            return [self[number] for number in range(*place.indices(len(self)))]
        number = range(len(self))[place]
        start, end = self.offsets[number : number + 2]
        return Tokens(
            tuple(self.ids[start:end].tolist()),
            tuple(self.labels[start:end].tolist()),
            int(self.prompt_lengths[number]),
            self.origins[number],
        )

    @cached_property
    def labels(self) -> np.ndarray:
        """(N,) int32: the id where it is learned, else -100."""
        return np.where(self.learned, self.ids, np.int32(IGNORED_LABEL))

    @cached_property
    def lengths(self) -> np.ndarray:
        """Tokens of each row, (R,) int64."""
        return np.diff(self.offsets)

    @cached_property
    def prompt_lengths(self) -> np.ndarray:
        """Tokens before the first learned one of each row, (R,) int64."""
        # Behind the last learned token stands the end of the table, for rows in which nothing is learned.
        places = np.append(np.flatnonzero(self.learned), self.offsets[-1])
        first = places[np.searchsorted(places, self.offsets[:-1])]
        return np.minimum(first, self.offsets[1:]) - self.offsets[:-1]


class TableBuilder:
    """Takes rows and gives a TokenTable."""

    def __init__(self) -> None:
        self._ids, self._learned, self._offsets = array("i"), bytearray(), array("q", [0])
        self._origins: list[str] = []

    def extend(self, ids: Sequence[int], learned: Iterable[bool]) -> None:
        """More tokens of the row that is being made, and whether each is learned."""
        self._ids.extend(ids)
        self._learned.extend(learned)

    def end_row(self, origin: str) -> None:
        self._offsets.append(len(self._ids))
        self._origins.append(origin)

    def table(self) -> TokenTable:
        return TokenTable(
            np.array(self._ids, dtype=np.int32),
            np.array(memoryview(self._learned), dtype=np.bool_),
            np.array(self._offsets, dtype=np.int64),
            self._origins,
        )


def ranges(starts: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """`start, start + 1, …`, so many of each, one behind the other, int64."""
    ends = np.cumsum(counts)
    return np.arange(counts.sum()) + np.repeat(starts - ends + counts, counts)
