"""Attention of joined rows: plain products, few rows at a time, whose weights stay in the processor's cache.

torch 2.13's fused CPU attention, which works on tiles of 32 queries, takes 1.3 to 1.8 times as long in bf16, forward
and backward; in fp32 0.8 times for rows of 64 to 128 tokens and 1.25 times for 512, of rows that it is given side by
side already (benchmarks/results/attention_lengths.json).
"""

# N tokens in all, H heads, D width of a head, P tokens of all beginnings; of a group: R rows, W places of each, Q
# queries of each at a time, S keys that they may see, G = H R

from __future__ import annotations

from typing import Any

import torch

from peft_instruct.model.joined_rows import Group, JoinedRows

LONGEST_KEPT = 384
"""Keys up to which attention's weights are kept for backward; of more they are computed once more."""


def attention_of_joined_rows(
    query_HND: torch.Tensor,
    key_HND: torch.Tensor,
    value_HND: torch.Tensor,
    rows: JoinedRows,
    dropout: float,
    scaling: float | None,
) -> torch.Tensor:
    """Causal attention within each row, (N, H, D); the filler's is 0."""
    rows.num_calls[0] += 1
    scale = query_HND.shape[-1] ** -0.5 if scaling is None else scaling
    output_NHD: torch.Tensor = _Grouped.apply(query_HND, key_HND, value_HND, rows, dropout, scale)
    return output_NHD


class _Grouped(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        query_HND: torch.Tensor,
        key_HND: torch.Tensor,
        value_HND: torch.Tensor,
        rows: JoinedRows,
        dropout: float,
        scale: float,
    ) -> torch.Tensor:
        ctx.rows, ctx.scale = rows, scale
        kept: list[torch.Tensor | None] = []
        output_NHD = _of_tokens(query_HND, rows)
        for group in rows.groups:
            query_GWD = _side_by_side(query_HND, group)
            key_GSD, value_GSD = _behind_shared(key_HND, group), _behind_shared(value_HND, group)
            mixed_GWD = torch.empty_like(query_GWD)
            for first, end in group.blocks():
                seen = slice(group.num_before + end)
                bias_QS = rows.bias(group, first, end, query_HND.dtype)
                weights_GQS = _weights(query_GWD[:, first:end], key_GSD[:, seen], bias_QS, scale)
                noise_GQS = torch.dropout(torch.ones_like(weights_GQS), dropout, True) if dropout else None
                kept += [weights_GQS if weights_GQS.shape[2] <= LONGEST_KEPT else None, noise_GQS]
                mixed_GWD[:, first:end] = _noisy(weights_GQS, noise_GQS) @ value_GSD[:, seen]
            output_NHD[group.own] = _own(mixed_GWD, group)
        ctx.save_for_backward(query_HND, key_HND, value_HND, *kept)
        return output_NHD

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        (query_HND, key_HND, value_HND, *kept), rows = ctx.saved_tensors, ctx.rows
        (H, _, D), P = query_HND.shape, rows.num_shared
        d_query_NHD, *d_states_NHD = (_of_tokens(query_HND, rows) for _ in range(3))
        # The sums over all rows: in bf16 they would be rounded at each group.
        d_shared = [query_HND.new_zeros(P, H, D, dtype=torch.float32) for _ in range(2)]
        for group in reversed(rows.groups):
            d_GWD = _placed(gradients[0], group)
            query_GWD = _side_by_side(query_HND, group)
            key_GSD, value_GSD = _behind_shared(key_HND, group), _behind_shared(value_HND, group)
            d_query_GWD = torch.empty_like(query_GWD)
            d_key_GSD: torch.Tensor | None = None
            d_value_GSD: torch.Tensor | None = None
            for first, end in reversed(group.blocks()):
                seen = slice(group.num_before + end)
                query_GQD, d_GQD = query_GWD[:, first:end], d_GWD[:, first:end]
                noise_GQS, weights_GQS = kept.pop(), kept.pop()
                if weights_GQS is None:
                    bias_QS = rows.bias(group, first, end, query_HND.dtype)
                    weights_GQS = _weights(query_GQD, key_GSD[:, seen], bias_QS, ctx.scale)
                d_value_GSD = _added(d_value_GSD, _noisy(weights_GQS, noise_GQS).mT, d_GQD)
                d_weights_GQS = _noisy(d_GQD @ value_GSD[:, seen].mT, noise_GQS)
                d_scores_GQS = torch._softmax_backward_data(d_weights_GQS, weights_GQS, -1, weights_GQS.dtype)
                d_key_GSD = _added(d_key_GSD, d_scores_GQS.mT, query_GQD, ctx.scale)
                d_query_GWD[:, first:end] = _product(d_scores_GQS, key_GSD[:, seen], ctx.scale)
            d_query_NHD[group.own] = _own(d_query_GWD, group)
            before = group.num_before
            assert d_key_GSD is not None and d_value_GSD is not None
            for d_NHD, d_shared_PHD, d_GSD in zip(d_states_NHD, d_shared, (d_key_GSD, d_value_GSD), strict=True):
                d_NHD[group.own] = _own(d_GSD[:, before:], group)
                d_before_HRPD = d_GSD[:, :before].view(H, group.num_rows, before, D)
                d_shared_PHD[group.before] += d_before_HRPD.sum(1).transpose(0, 1)
        for d_NHD, d_shared_PHD in zip(d_states_NHD, d_shared, strict=True):
            d_NHD[:P] += d_shared_PHD
        return *(each.transpose(0, 1) for each in (d_query_NHD, *d_states_NHD)), None, None, None


def _of_tokens(states_HND: torch.Tensor, rows: JoinedRows) -> torch.Tensor:
    """Room for what the groups give, (N, H, D); the filler's is 0."""
    states_NHD = torch.empty_like(states_HND.transpose(0, 1), memory_format=torch.contiguous_format)
    states_NHD[rows.groups[-1].own.stop :] = 0
    return states_NHD


def _added(
    sum_GSD: torch.Tensor | None, one_GSQ: torch.Tensor, other_GQD: torch.Tensor, scale: float = 1.0
) -> torch.Tensor:
    """With a product of a block. The last block of queries comes first, which sees all keys."""
    if sum_GSD is None:
        return _product(one_GSQ, other_GQD, scale)
    sum_GSD[:, : one_GSQ.shape[1]].baddbmm_(one_GSQ, other_GQD, alpha=scale)
    return sum_GSD


def _side_by_side(states_HND: torch.Tensor, group: Group) -> torch.Tensor:
    """(G, W, D)."""
    if group.is_one_row:
        return states_HND[:, group.own]
    # By tokens, of which each is one stretch of memory: by heads torch 2.13 takes ten times as long.
    states_PHD = states_HND.transpose(0, 1).index_select(0, group.token)
    return states_PHD.transpose(0, 1).reshape(-1, group.width, states_HND.shape[2])


def _behind_shared(states_HND: torch.Tensor, group: Group) -> torch.Tensor:
    """Keys or values that the rows of a group see, (G, S, D)."""
    if not group.num_before:
        return _side_by_side(states_HND, group)
    H, _, D = states_HND.shape
    seen_HRSD = states_HND.new_empty(H, group.num_rows, group.num_before + group.width, D)
    seen_HRSD[:, :, : group.num_before] = states_HND[:, None, group.before]
    seen_HRSD[:, :, group.num_before :] = _side_by_side(states_HND, group).view(H, group.num_rows, group.width, D)
    return seen_HRSD.view(-1, group.num_before + group.width, D)


def _own(states_GWD: torch.Tensor, group: Group) -> torch.Tensor:
    """What stands at the places of the group's own tokens, (M, H, D)."""
    if group.is_one_row:
        return states_GWD.transpose(0, 1)
    states_HRWD = states_GWD.reshape(-1, group.num_rows * group.width, states_GWD.shape[2])
    return states_HRWD.transpose(0, 1).contiguous().index_select(0, group.place)


def _placed(d_NHD: torch.Tensor, group: Group) -> torch.Tensor:
    """The gradient of `_own`, (G, W, D): 0 beyond a row's end."""
    if group.is_one_row:
        return d_NHD[group.own].transpose(0, 1)
    d_PHD = d_NHD.index_select(0, group.token).index_fill_(0, group.padding, 0)
    return d_PHD.transpose(0, 1).reshape(-1, group.width, d_NHD.shape[2])


def _weights(query_GQD: torch.Tensor, key_GSD: torch.Tensor, bias_QS: torch.Tensor, scale: float) -> torch.Tensor:
    bias_GQS = bias_QS.expand(len(query_GQD), *bias_QS.shape)
    return torch.softmax(torch.baddbmm(bias_GQS, query_GQD, key_GSD.mT, alpha=scale), -1)


def _noisy(values_GQS: torch.Tensor, noise_GQS: torch.Tensor | None) -> torch.Tensor:
    return values_GQS if noise_GQS is None else values_GQS * noise_GQS


def _product(one: torch.Tensor, other: torch.Tensor, scale: float) -> torch.Tensor:
    return torch.baddbmm(one.new_zeros(1, 1, 1), one, other, beta=0, alpha=scale)
