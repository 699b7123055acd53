"""Rows of a batch laid one after another, so that nothing is computed for padding, nor twice what all rows begin with.

    [what all rows begin with][rest of row 1][rest of row 2]…[filler to a multiple of 32]

Only attention looks from one token to another; there the rows stand side by side again, each behind the keys and values
of the common beginning (as FlashAttention's variable lengths and Hydragen's shared prefix do, arXiv 2307.08691 and
2402.05099). Every other part of a model takes the tokens as they come.
"""

# B rows, T tokens of the longest row's own part, P tokens shared, M own tokens of all rows, N = P + M + filler,
# S = B T places, H heads, D width of a head

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch

MULTIPLE = 32
"""oneDNN compiles, and keeps, a kernel for every number of rows of a product."""


@dataclass(frozen=True)
class JoinedRows:
    """Where the tokens of a batch stand in one sequence.

    Attributes:
        num_shared: P.
        ids, positions: what the model is given, (1, N).
        token: of each place of a row's own part, its token (0 to N - 1); of padding, the first own one; (B, T).
        place: of each own token, its place among the B T; (M,).
        padding: the places that hold none.
        num_calls: of the attention below, so that a model which does not pass this on is found out.
    """

    num_shared: int
    ids: torch.Tensor
    positions: torch.Tensor
    token: torch.Tensor
    place: torch.Tensor
    padding: torch.Tensor
    num_calls: list[int] = field(default_factory=lambda: [0])

    def token_of(self) -> torch.Tensor:
        """The token at each place of the batch as it was, (B, P + T)."""
        shared_P = torch.arange(self.num_shared, device=self.token.device)
        return torch.cat([shared_P.expand(len(self.token), -1), self.token], dim=1)


def join_rows(ids_BT: torch.Tensor, mask_BT: torch.Tensor, num_shared: int) -> JoinedRows:
    """Lay out a batch that is padded on the right, of which all rows begin with the same `num_shared` tokens."""
    own_BT = mask_BT[:, num_shared:].bool()
    place_M, padding_S = own_BT.flatten().nonzero()[:, 0], (~own_BT).flatten().nonzero()[:, 0]
    end = num_shared + len(place_M)
    filler = ids_BT.new_zeros(-end % MULTIPLE)
    positions_BT = torch.arange(ids_BT.shape[1], device=ids_BT.device).expand(ids_BT.shape)
    token_S = torch.full_like(own_BT.flatten(), num_shared, dtype=torch.int64)
    token_S[place_M] = torch.arange(num_shared, end, device=ids_BT.device)

    def joined(values_BT: torch.Tensor) -> torch.Tensor:
        return torch.cat([values_BT[0, :num_shared], values_BT[:, num_shared:][own_BT], filler])[None]

    return JoinedRows(num_shared, joined(ids_BT), joined(positions_BT), token_S.view(own_BT.shape), place_M, padding_S)


def attention_of_joined_rows(
    query_HND: torch.Tensor, key_HND: torch.Tensor, value_HND: torch.Tensor, rows: JoinedRows, attend: Any
) -> torch.Tensor:
    """Causal attention within each row, (N, H, D); the filler's is 0.

    Args:
        attend: attention of (…, T, D) queries over (…, S, D) keys and values, with a Boolean mask (T, S).
    """
    rows.num_calls[0] += 1
    (H, N, D), P, (B, T) = query_HND.shape, rows.num_shared, rows.token.shape
    query, key, value = (_Placed.apply(states, rows).view(H * B, T, D) for states in (query_HND, key_HND, value_HND))
    causal = torch.ones(T, P + T, dtype=torch.bool, device=query.device).tril_(P)
    parts = []
    if P:
        shared = [states[:, :P] for states in (query_HND, key_HND, value_HND)]
        parts.append(attend(*shared, causal.new_ones(P, P).tril_()).transpose(0, 1))
        key, value = (
            torch.cat([states[:, None].expand(H, B, P, D).reshape(H * B, P, D), own], dim=1)
            for states, own in zip(shared[1:], (key, value), strict=True)
        )
    parts.append(_Taken.apply(attend(query, key, value, causal).view(H, B * T, D), rows))
    parts.append(query.new_zeros(N - P - len(rows.place), H, D))
    return torch.cat(parts)


class _Placed(torch.autograd.Function):
    """Tokens (H, N, D) to places (H, S, D); what padding holds is seen by no token, so it has no gradient."""

    @staticmethod
    def forward(ctx: Any, states_HND: torch.Tensor, rows: JoinedRows) -> torch.Tensor:
        ctx.rows, ctx.num_tokens = rows, states_HND.shape[1]
        return states_HND.index_select(1, rows.token.flatten())

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        rows: JoinedRows = ctx.rows
        d_HSD = gradients[0]
        d_NHD = d_HSD.new_zeros(ctx.num_tokens, d_HSD.shape[0], d_HSD.shape[2])
        own = slice(rows.num_shared, rows.num_shared + len(rows.place))
        d_NHD[own] = d_HSD.transpose(0, 1).index_select(0, rows.place)
        return d_NHD.transpose(0, 1), None


class _Taken(torch.autograd.Function):
    """Places (H, S, D) to own tokens (M, H, D)."""

    @staticmethod
    def forward(ctx: Any, states_HSD: torch.Tensor, rows: JoinedRows) -> torch.Tensor:
        ctx.rows = rows
        return states_HSD.transpose(0, 1).index_select(0, rows.place)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        rows: JoinedRows = ctx.rows
        from_first_S = rows.token.flatten() - rows.num_shared
        d_HSD = gradients[0].transpose(0, 1).index_select(1, from_first_S)
        return d_HSD.index_fill_(1, rows.padding, 0), None
