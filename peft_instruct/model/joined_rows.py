"""Rows of a batch laid one after another, so that nothing is computed for padding, nor twice what rows begin with.

    [what the rows of a kind begin with][of the next kind]…[rest of row 1][rest of row 2]…[filler]

Only attention looks from one token to another; there some rows at a time stand side by side, each behind the keys and
values of its kind's beginning (as FlashAttention's variable lengths and Hydragen's shared prefix do, arXiv 2307.08691
and 2402.05099). Every other part of a model takes the tokens as they come.
"""

# B rows, T tokens of the longest one, P tokens of all beginnings, N tokens in all; of a group: R rows, W places of each
# row, M tokens

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise, takewhile

import torch
from torch import nn

MULTIPLE = 32
"""oneDNN compiles, and keeps, a kernel for every shape of a product."""
MOST_SCORES = 1 << 16
"""Of a head, in a group of several rows: as many stay in the processor's cache, and fewer cost more calls."""
QUERIES = 128
"""Of a row, taken at a time: for the same reason, and most of what is masked is not computed."""
TIMES_IN_HALF = 2
"""In 16 bits, as many of both: the same bytes."""
LEAST_SPARED = 16
"""Tokens that a beginning must spare: rows of several kinds stand side by side less often."""


@dataclass(frozen=True)
class Kind:
    """Rows, by their places in the batch, of which the first `num_shared` tokens are computed once."""

    rows: tuple[int, ...]
    num_shared: int


@dataclass(frozen=True)
class Group:
    """Own tokens of rows of one kind, or beginnings, that attention sees side by side.

    Attributes:
        num_rows, width: R and W.
        queries: of each row, taken at a time.
        before: the beginning that each row sees besides itself, in the sequence.
        own: their tokens in the sequence; M of them.
        token: of each place, (R W,); of one that is beyond its row's end, any.
        place: of each own token, (M,).
        padding: the places that are beyond their row's end.
    """

    num_rows: int
    width: int
    queries: int
    before: slice
    own: slice
    token: torch.Tensor
    place: torch.Tensor
    padding: torch.Tensor

    @property
    def is_one_row(self) -> bool:
        """Of no more places than tokens: its states are a stretch of the sequence as it is."""
        return self.num_rows == 1 and self.width == self.own.stop - self.own.start

    @property
    def is_kept(self) -> bool:
        """Whether its states are kept side by side for backward: not where most of them are the beginning, repeated."""
        return self.num_before <= self.width

    @property
    def num_before(self) -> int:
        return int(self.before.stop - self.before.start)

    def blocks(self) -> list[tuple[int, int]]:
        """Queries of each row that are taken at a time, from and to."""
        return [(first, min(first + self.queries, self.width)) for first in range(0, self.width, self.queries)]


@dataclass(frozen=True)
class _Layout:
    """To what a group's width is filled up, and its limits."""

    multiple: int
    most_scores: int
    queries: int

    @classmethod
    def for_dtype(cls, dtype: torch.dtype) -> _Layout:
        """In fp32 a product is not oneDNN's part, and no width is filled up."""
        if dtype == torch.float32:
            return cls(1, MOST_SCORES, QUERIES)
        return cls(MULTIPLE, TIMES_IN_HALF * MOST_SCORES, TIMES_IN_HALF * QUERIES)


@dataclass(frozen=True)
class JoinedRows:
    """Where the tokens of a batch stand in one sequence.

    Attributes:
        kinds: every row in one of them.
        num_shared: P.
        ids, positions: what the model is given, (1, N).
        token: at each place of the batch as it was, (B, T); of padding any.
        groups: all tokens but the filler, in the order of the sequence.
        num_calls: of their attention, so that a model which does not pass this on is found out.
    """

    kinds: tuple[Kind, ...]
    num_shared: int
    ids: torch.Tensor
    positions: torch.Tensor
    token: torch.Tensor
    groups: tuple[Group, ...]
    num_calls: list[int] = field(default_factory=lambda: [0])
    _biases: dict[torch.dtype, torch.Tensor] = field(default_factory=dict)

    @property
    def are_kept(self) -> bool:
        return all(group.is_kept for group in self.groups)

    def bias(self, group: Group, first: int, end: int, dtype: torch.dtype) -> torch.Tensor:
        """What is added to the scores of a block, (Q, S): the lowest number where masked."""
        most_before = max(each.num_before for each in self.groups)
        if dtype not in self._biases:
            widest = max(each.width for each in self.groups)
            lowest = self.ids.new_full((widest, most_before + widest), torch.finfo(dtype).min, dtype=dtype)
            self._biases[dtype] = lowest.triu_(most_before + 1)
        return self._biases[dtype][first:end, most_before - group.num_before : most_before + end]


def kinds_of(beginnings: Sequence[tuple[int, ...]]) -> tuple[Kind, ...]:
    """The rows, in the order of their tokens, cut where the least is left to compute.

    Args:
        beginnings: of each row the tokens that may be shared.
    """
    # Of rows in the order of their tokens, those between two have in common what all neighbours between them have.
    order = sorted(range(len(beginnings)), key=beginnings.__getitem__)
    common = [num_in_common([beginnings[place] for place in two]) for two in pairwise(order)]
    # best[end]: the most that the first `end` rows can spare, and where their last kind begins.
    best = [(0, 0)]
    for end in range(1, len(order) + 1):
        choices, shared = [(best[end - 1][0], end - 1)], sys.maxsize
        for start in range(end - 2, -1, -1):
            shared = min(shared, common[start])
            choices.append((best[start][0] + (end - 1 - start) * shared - LEAST_SPARED, start))
        best.append(max(choices))
    kinds: list[Kind] = []
    alone: list[int] = []
    end = len(order)
    while end:
        start = best[end][1]
        if end - start > 1:
            kinds.append(Kind(tuple(order[start:end]), min(common[start : end - 1])))
        else:
            alone += order[start:end]
        end = start
    return (*kinds, Kind(tuple(alone), 0)) if alone else tuple(kinds)


def num_in_common(rows: Sequence[tuple[int, ...]]) -> int:
    """How many tokens all rows begin with."""
    # What the first and the last in order have in common, all between them have.
    same = takewhile(lambda two: two[0] == two[1], zip(min(rows), max(rows), strict=False))
    return sum(1 for _ in same)


def join_rows(ids_BT: torch.Tensor, mask_BT: torch.Tensor, kinds: Sequence[Kind], dtype: torch.dtype) -> JoinedRows:
    """Lay out a batch that is padded on the right, of which every row is longer than its kind's beginning.

    The longest come first, so that those of a group are of like length.

    Args:
        dtype: in which attention multiplies.
    """
    layout = _Layout.for_dtype(dtype)
    device, width = ids_BT.device, ids_BT.shape[1]
    lengths = mask_BT.sum(1).tolist()
    kinds = sorted(kinds, key=lambda kind: -kind.num_shared)
    shared = [kind.num_shared for kind in kinds if kind.num_shared]
    num_shared = sum(shared)
    # Of each piece of the sequence its place in the batch, row by row, and its length.
    pieces = [(kind.rows[0] * width, kind.num_shared) for kind in kinds]
    groups = [*_groups(shared, 0, slice(0, 0), layout, device)]
    token_BT = torch.arange(width, device=device).repeat(len(lengths), 1)
    start = num_shared
    for kind, end_of_shared in zip(kinds, accumulate(kind.num_shared for kind in kinds), strict=True):
        P, before = kind.num_shared, slice(end_of_shared - kind.num_shared, end_of_shared)
        rows = sorted(kind.rows, key=lambda row: -lengths[row])
        own = [lengths[row] - P for row in rows]
        groups += _groups(own, start, before, layout, device)
        for row, length in zip(rows, own, strict=True):
            pieces.append((row * width + P, length))
            token_BT[row, :P] += before.start
            token_BT[row, P:] += start - P
            start += length
    place_N = torch.cat([torch.arange(first, first + length, device=device) for first, length in pieces])
    ids_N, positions_N = ids_BT.flatten()[place_N], place_N % width
    ids_1N, positions_1N = (nn.functional.pad(each, (0, -start % MULTIPLE))[None] for each in (ids_N, positions_N))
    token_BT.clamp_max_(start - 1)
    return JoinedRows(tuple(kinds), num_shared, ids_1N, positions_1N, token_BT, tuple(groups))


def _groups(
    lengths: Sequence[int], start: int, before: slice, layout: _Layout, device: torch.device
) -> Iterator[Group]:
    """Rows of those lengths, the longest first, one behind the other."""
    first = 0
    while first < len(lengths):
        width = lengths[first] + -lengths[first] % layout.multiple
        some = lengths[first : first + max(1, layout.most_scores // (width * (before.stop - before.start + width)))]
        yield _group(start, some, width, layout.queries, before, device)
        first, start = first + len(some), start + sum(some)


def _group(start: int, lengths: Sequence[int], width: int, queries: int, before: slice, device: torch.device) -> Group:
    lengths_R = torch.tensor(lengths, device=device)
    end = start + sum(lengths)
    places_W = torch.arange(width, device=device)
    starts_R = start + lengths_R.cumsum(0) - lengths_R
    token_RW = (starts_R[:, None] + places_W).clamp_max(end - 1)
    is_own_RW = (places_W < lengths_R[:, None]).flatten()
    place_M, padding = is_own_RW.nonzero()[:, 0], (~is_own_RW).nonzero()[:, 0]
    own = slice(start, end)
    return Group(len(lengths), width, queries, before, own, token_RW.flatten(), place_M, padding)
