"""Rows of exactly one length, for a sweep over it: of rows as they are, a longer limit changes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle

from peft_instruct.data.types import IGNORED_LABEL, Tokens


def filled_rows(rows: Sequence[Tokens], length: int, count: int) -> list[Tokens]:
    """Whole rows one after another, as in a conversation, cut from the left to `length` tokens; again from the first
    when all were used.

    The last token of a row is learned, so each of these learns too.
    """
    endless = cycle(range(len(rows)))
    return [_filled([rows[next(endless)]], rows, endless, length) for _ in range(count)]


def _filled(joined: list[Tokens], rows: Sequence[Tokens], endless: cycle[int], length: int) -> Tokens:
    while sum(len(row.input_ids) for row in joined) < length:
        joined.append(rows[next(endless)])
    ids = tuple(token for row in joined for token in row.input_ids)[-length:]
    labels = tuple(label for row in joined for label in row.labels)[-length:]
    first = next(place for place, label in enumerate(labels) if label != IGNORED_LABEL)
    return Tokens(ids, labels, first, joined[-1].origin)
