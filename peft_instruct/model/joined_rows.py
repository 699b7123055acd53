"""Rows of a batch laid one after another, so that nothing is computed for padding, nor twice what all rows begin with.

    [what all rows begin with][rest of row 1][rest of row 2]…[filler]

Only attention looks from one token to another; there some rows at a time stand side by side, each behind the keys and
values of the common beginning (as FlashAttention's variable lengths and Hydragen's shared prefix do, arXiv 2307.08691
and 2402.05099). Every other part of a model takes the tokens as they come.
"""

# B rows, T tokens of the longest one's own part, P tokens shared, N tokens in all; of a group: R rows, W places of each
# row, M tokens

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch

MULTIPLE = 32
"""oneDNN compiles, and keeps, a kernel for every number of rows of a product."""
MOST_SCORES = 1 << 16
"""Of a head, in a group of several rows: as many stay in the processor's cache, and fewer cost more calls."""
QUERIES = 128
"""Of a row, taken at a time: for the same reason, and most of what is masked is not computed."""


@dataclass(frozen=True)
class Group:
    """Rows' own tokens, or those that all rows share, that attention sees side by side.

    Attributes:
        num_rows, width: R and W.
        num_before: shared tokens that each row sees besides itself.
        own: their tokens in the sequence; M of them.
        token: of each place, (R W,); of one that is beyond its row's end, any.
        place: of each own token, (M,).
        padding: the places that are beyond their row's end.
    """

    num_rows: int
    width: int
    num_before: int
    own: slice
    token: torch.Tensor
    place: torch.Tensor
    padding: torch.Tensor

    def blocks(self) -> list[tuple[int, int]]:
        """Queries of each row that are taken at a time, from and to."""
        return [(first, min(first + QUERIES, self.width)) for first in range(0, self.width, QUERIES)]


@dataclass(frozen=True)
class JoinedRows:
    """Where the tokens of a batch stand in one sequence.

    Attributes:
        num_shared: P.
        ids, positions: what the model is given, (1, N).
        token: at each place of the batch as it was, (B, P + T); of padding any.
        groups: all tokens but the filler, in the order of the sequence.
        num_calls: of their attention, so that a model which does not pass this on is found out.
    """

    num_shared: int
    ids: torch.Tensor
    positions: torch.Tensor
    token: torch.Tensor
    groups: tuple[Group, ...]
    num_calls: list[int] = field(default_factory=lambda: [0])
    _biases: dict[torch.dtype, torch.Tensor] = field(default_factory=dict)

    @property
    def shape(self) -> tuple[int, int]:
        """(B, T)."""
        return len(self.token), self.token.shape[1] - self.num_shared

    def bias(self, group: Group, first: int, end: int, dtype: torch.dtype) -> torch.Tensor:
        """What is added to the scores of a block, (Q, S): the lowest number where masked."""
        if dtype not in self._biases:
            widest = max(each.width for each in self.groups)
            lowest = self.ids.new_full((widest, self.num_shared + widest), torch.finfo(dtype).min, dtype=dtype)
            self._biases[dtype] = lowest.triu_(self.num_shared + 1)
        return self._biases[dtype][first:end, self.num_shared - group.num_before : self.num_shared + end]


def join_rows(ids_BT: torch.Tensor, mask_BT: torch.Tensor, num_shared: int) -> JoinedRows:
    """Lay out a batch that is padded on the right, of which all rows begin with the same `num_shared` tokens.

    The longest row comes first, so that those of a group are of like length.
    """
    device = ids_BT.device
    lengths_B = mask_BT[:, num_shared:].sum(1)
    order_B = lengths_B.argsort(descending=True, stable=True)
    lengths = lengths_B[order_B].tolist()
    end = num_shared + sum(lengths)
    filler = ids_BT.new_zeros(_filled(end) - end)
    own_BT = mask_BT[order_B, num_shared:].bool()
    positions_BT = torch.arange(ids_BT.shape[1], device=device).expand(ids_BT.shape)

    def joined(values_BT: torch.Tensor) -> torch.Tensor:
        return torch.cat([values_BT[0, :num_shared], values_BT[order_B, num_shared:][own_BT], filler])[None]

    starts_B = torch.empty_like(lengths_B)
    starts_B[order_B] = num_shared + lengths_B[order_B].cumsum(0) - lengths_B[order_B]
    own_token_BT = starts_B[:, None] + torch.arange(ids_BT.shape[1] - num_shared, device=device)
    shared_P = torch.arange(num_shared, device=device)
    token_BT = torch.cat([shared_P.expand(len(ids_BT), -1), own_token_BT.clamp_max(end - 1)], dim=1)
    shared = [_group(0, [num_shared], 0, device)] if num_shared else []
    groups = (*shared, *_groups(lengths, num_shared, device))
    return JoinedRows(num_shared, joined(ids_BT), joined(positions_BT), token_BT, groups)


def _groups(lengths: Sequence[int], num_shared: int, device: torch.device) -> Iterator[Group]:
    """Rows of those lengths, the longest first, one behind the other."""
    first, start = 0, num_shared
    while first < len(lengths):
        width = _filled(lengths[first])
        some = lengths[first : first + max(1, MOST_SCORES // (width * (num_shared + width)))]
        yield _group(start, some, num_shared, device)
        first, start = first + len(some), start + sum(some)


def _group(start: int, lengths: Sequence[int], num_before: int, device: torch.device) -> Group:
    lengths_R = torch.tensor(lengths, device=device)
    width, end = _filled(lengths[0]), start + sum(lengths)
    places_W = torch.arange(width, device=device)
    starts_R = start + lengths_R.cumsum(0) - lengths_R
    token_RW = (starts_R[:, None] + places_W).clamp_max(end - 1)
    is_own_RW = (places_W < lengths_R[:, None]).flatten()
    place_M, padding = is_own_RW.nonzero()[:, 0], (~is_own_RW).nonzero()[:, 0]
    return Group(len(lengths), width, num_before, slice(start, end), token_RW.flatten(), place_M, padding)


def _filled(length: int) -> int:
    return length + -length % MULTIPLE
