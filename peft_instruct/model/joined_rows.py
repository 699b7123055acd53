"""Rows of a batch laid one after another, so that nothing is computed for padding, nor twice what all rows begin with.

    [what all rows begin with][rest of row 1][rest of row 2]…[filler]

Only attention looks from one token to another; there each row stands behind the keys and values of the common
beginning (as FlashAttention's variable lengths and Hydragen's shared prefix do, arXiv 2307.08691 and 2402.05099). Every
other part of a model takes the tokens as they come.
"""

# B rows, T tokens of the longest row's own part, P tokens shared, N tokens in all; of one part: W places, Q queries at
# a time, S keys that they may see

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch

MULTIPLE = 32
"""oneDNN compiles, and keeps, a kernel for every number of rows of a product."""
QUERIES = 128
"""Taken at a time: their weights stay in the processor's cache, and most of what is masked is not computed."""


@dataclass(frozen=True)
class Block:
    """Queries of a part that are taken at a time.

    Attributes:
        queries: their places in the sequence, filled up to a multiple.
        num_own: the first of them that are the part's; what follows is the next part's, and is thrown away.
        num_keys: S, what is shared included.
        allowed: where their mask stands in that of the widest part.
    """

    queries: slice
    num_own: int
    num_keys: int
    allowed: tuple[slice, slice]

    @property
    def own(self) -> slice:
        return slice(self.queries.start, self.queries.start + self.num_own)


@dataclass(frozen=True)
class Part:
    """A row's own tokens, or those that all rows share: one after another in the sequence.

    Attributes:
        num_before: shared tokens that it sees besides itself.
    """

    start: int
    length: int
    num_before: int

    @property
    def width(self) -> int:
        """W: its length, filled up."""
        return _filled(self.length)

    def blocks(self, num_shared: int) -> Iterator[Block]:
        for first in range(0, self.width, QUERIES):
            end = min(first + QUERIES, self.width)
            num_keys, from_key = self.num_before + end, num_shared - self.num_before
            yield Block(
                slice(self.start + first, self.start + end),
                min(end, self.length) - first,
                num_keys,
                (slice(first, end), slice(from_key, from_key + num_keys)),
            )


@dataclass(frozen=True)
class JoinedRows:
    """Where the tokens of a batch stand in one sequence.

    Attributes:
        num_shared: P.
        ids, positions: what the model is given, (1, N).
        shape: of the batch as it was, without what is shared: (B, T).
        rows: the own part of each.
        num_calls: of their attention, so that a model which does not pass this on is found out.
    """

    num_shared: int
    ids: torch.Tensor
    positions: torch.Tensor
    shape: tuple[int, int]
    rows: tuple[Part, ...]
    num_calls: list[int] = field(default_factory=lambda: [0])
    _biases: dict[torch.dtype, torch.Tensor] = field(default_factory=dict)

    @property
    def parts(self) -> tuple[Part, ...]:
        return (Part(0, self.num_shared, 0), *self.rows) if self.num_shared else self.rows

    def token_of(self) -> torch.Tensor:
        """The token at each place of the batch as it was, (B, P + T); of padding any."""
        arange_T = torch.arange(self.num_shared + self.shape[1], device=self.ids.device)
        from_start_B1 = torch.tensor([[row.start - self.num_shared] for row in self.rows], device=self.ids.device)
        own_BT = (from_start_B1 + arange_T).clamp_max(self.ids.shape[1] - 1)
        return torch.where(arange_T < self.num_shared, arange_T, own_BT)

    def bias(self, dtype: torch.dtype) -> torch.Tensor:
        """What is added to the scores of the widest part, (W, P + W): the lowest number where masked."""
        if dtype not in self._biases:
            widest = max(part.width for part in self.parts)
            lowest_WS = self.ids.new_full((widest, self.num_shared + widest), torch.finfo(dtype).min, dtype=dtype)
            self._biases[dtype] = lowest_WS.triu_(self.num_shared + 1)
        return self._biases[dtype]


def join_rows(ids_BT: torch.Tensor, mask_BT: torch.Tensor, num_shared: int) -> JoinedRows:
    """Lay out a batch that is padded on the right, of which all rows begin with the same `num_shared` tokens."""
    own_BT = mask_BT[:, num_shared:].bool()
    rows, end = [], num_shared
    for length in own_BT.sum(1).tolist():
        rows.append(Part(end, length, num_shared))
        end += length
    # Every part can be taken by its width.
    last = max(_filled(num_shared), *(row.start + row.width for row in rows))
    filler = ids_BT.new_zeros(_filled(last) - end)
    positions_BT = torch.arange(ids_BT.shape[1], device=ids_BT.device).expand(ids_BT.shape)

    def joined(values_BT: torch.Tensor) -> torch.Tensor:
        return torch.cat([values_BT[0, :num_shared], values_BT[:, num_shared:][own_BT], filler])[None]

    shape = len(own_BT), own_BT.shape[1]
    return JoinedRows(num_shared, joined(ids_BT), joined(positions_BT), shape, tuple(rows))


def _filled(length: int) -> int:
    return length + -length % MULTIPLE
