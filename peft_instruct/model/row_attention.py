"""Attention of joined rows: plain products, few rows at a time, whose weights stay in the processor's cache.

torch 2.13's fused CPU attention, which works on tiles of 32 queries, takes 1.3 to 1.8 times as long in bf16, forward
and backward; in fp32 0.8 times for rows of 64 to 128 tokens and 1.25 times for 512, of rows that it is given side by
side already (benchmarks/results/attention_lengths.json).
"""

# N tokens in all, H heads, D width of a head, P tokens of all beginnings; of a group: R rows, W places of each, Q
# queries of each at a time, S keys that they may see, G = H R

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
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
        ctx.rows, ctx.scale, ctx.num_heads = rows, scale, len(query_HND)
        query_HND = query_HND * scale
        # What is kept side by side backward does not have to place again, and the sequence itself may go.
        whole = [query_HND, key_HND, value_HND]
        kept: list[torch.Tensor | None] = [] if rows.are_kept else [*whole]
        output_NHD = _of_tokens(query_HND, rows)
        for group in rows.groups:
            states = _states(whole, group)
            kept += states if group.is_kept else []
            query_GWD, key_GSD, value_GSD = states
            mixed = []
            for first, end in group.blocks():
                seen = slice(group.num_before + end)
                bias_QS = rows.bias(group, first, end, query_HND.dtype)
                weights_GQS = _weights(query_GWD[:, first:end], key_GSD[:, seen], bias_QS)
                noise_GQS = torch.dropout(torch.ones_like(weights_GQS), dropout, True) if dropout else None
                kept += [weights_GQS if weights_GQS.shape[2] <= LONGEST_KEPT else None, noise_GQS]
                mixed.append(_noisy(weights_GQS, noise_GQS) @ value_GSD[:, seen])
            _put_own(_joined(mixed), group, output_NHD)
        ctx.save_for_backward(*kept)
        return output_NHD

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        rows, kept, H = ctx.rows, deque(ctx.saved_tensors), ctx.num_heads
        whole = [] if rows.are_kept else [kept.popleft() for _ in range(3)]
        d_states_NHD = [_of_tokens(gradients[0].transpose(0, 1), rows) for _ in range(3)]
        # The sums over all rows: in bf16 they would be rounded at each group.
        D = gradients[0].shape[2]
        d_shared = [gradients[0].new_zeros(H, rows.num_shared, D, dtype=torch.float32) for _ in range(2)]
        for group in rows.groups:
            states = [kept.popleft() for _ in range(3)] if group.is_kept else _states(whole, group)
            query_GWD, key_GSD, value_GSD = states
            of_blocks = [kept.popleft() for _ in range(2 * len(group.blocks()))]
            d_GWD = _placed(gradients[0], group)
            d_query: list[torch.Tensor] = []
            d_key_GSD: torch.Tensor | None = None
            d_value_GSD: torch.Tensor | None = None
            for first, end in reversed(group.blocks()):
                seen = slice(group.num_before + end)
                query_GQD, d_GQD = query_GWD[:, first:end], d_GWD[:, first:end]
                noise_GQS, weights_GQS = of_blocks.pop(), of_blocks.pop()
                if weights_GQS is None:
                    bias_QS = rows.bias(group, first, end, query_GWD.dtype)
                    weights_GQS = _weights(query_GQD, key_GSD[:, seen], bias_QS)
                d_value_GSD = _added(d_value_GSD, _noisy(weights_GQS, noise_GQS).mT, d_GQD)
                d_weights_GQS = _noisy(d_GQD @ value_GSD[:, seen].mT, noise_GQS)
                d_scores_GQS = torch._softmax_backward_data(d_weights_GQS, weights_GQS, -1, weights_GQS.dtype)
                d_key_GSD = _added(d_key_GSD, d_scores_GQS.mT, query_GQD)
                d_query.insert(0, d_scores_GQS @ key_GSD[:, seen])
            _put_own(_joined(d_query), group, d_states_NHD[0])
            assert d_key_GSD is not None and d_value_GSD is not None
            for d_NHD, d_shared_HPD, d_GSD in zip(d_states_NHD[1:], d_shared, (d_key_GSD, d_value_GSD), strict=True):
                before = group.num_before
                _put_own(d_GSD[:, before:], group, d_NHD)
                d_before_HRPD = d_GSD[:, :before].unflatten(0, (H, group.num_rows))
                d_shared_HPD[:, group.before] += d_before_HRPD.sum(1, dtype=torch.float32)
        d_states_NHD[0].mul_(ctx.scale)
        for d_NHD, d_shared_HPD in zip(d_states_NHD[1:], d_shared, strict=True):
            d_NHD[: rows.num_shared] += d_shared_HPD.transpose(0, 1)
        return *(each.transpose(0, 1) for each in d_states_NHD), None, None, None


def _of_tokens(states_HND: torch.Tensor, rows: JoinedRows) -> torch.Tensor:
    """Room for what the groups give, (N, H, D); the filler's is 0."""
    states_NHD = torch.empty_like(states_HND.transpose(0, 1), memory_format=torch.contiguous_format)
    states_NHD[rows.groups[-1].own.stop :] = 0
    return states_NHD


def _joined(blocks: list[torch.Tensor]) -> torch.Tensor:
    return blocks[0] if len(blocks) == 1 else torch.cat(blocks, dim=1)


def _added(sum_GSD: torch.Tensor | None, one_GSQ: torch.Tensor, other_GQD: torch.Tensor) -> torch.Tensor:
    """With a product of a block. The last block of queries comes first, which sees all keys."""
    if sum_GSD is None:
        return one_GSQ @ other_GQD
    sum_GSD[:, : one_GSQ.shape[1]].baddbmm_(one_GSQ, other_GQD)
    return sum_GSD


def _states(whole: Sequence[torch.Tensor], group: Group) -> list[torch.Tensor]:
    """Queries (G, W, D), keys and values (G, S, D), each by itself in memory; of those of the sequence, (H, N, D)."""
    query_HND, key_HND, value_HND = whole
    return [_side_by_side(query_HND, group), _behind_shared(key_HND, group), _behind_shared(value_HND, group)]


def _side_by_side(states_HND: torch.Tensor, group: Group) -> torch.Tensor:
    """(G, W, D)."""
    return _by_heads(states_HND, group).reshape(-1, group.width, states_HND.shape[2]).contiguous()


def _by_heads(states_HND: torch.Tensor, group: Group) -> torch.Tensor:
    """At the group's places, (H, R, W, D)."""
    if group.is_one_row:
        return states_HND[:, None, group.own]
    # By tokens, of which each is one stretch of memory: by heads torch 2.13 takes ten times as long.
    states_PHD = states_HND.transpose(0, 1).index_select(0, group.token)
    return states_PHD.transpose(0, 1).unflatten(1, (group.num_rows, group.width))


def _behind_shared(states_HND: torch.Tensor, group: Group) -> torch.Tensor:
    """Keys or values that the rows of a group see, (G, S, D)."""
    if not group.num_before:
        return _side_by_side(states_HND, group)
    H, _, D = states_HND.shape
    seen_HRSD = states_HND.new_empty(H, group.num_rows, group.num_before + group.width, D)
    seen_HRSD[:, :, : group.num_before] = states_HND[:, None, group.before]
    seen_HRSD[:, :, group.num_before :] = _by_heads(states_HND, group)
    return seen_HRSD.view(-1, group.num_before + group.width, D)


def _put_own(states_GWD: torch.Tensor, group: Group, to_NHD: torch.Tensor) -> None:
    """What stands at the places of the group's own tokens goes to where they stand in the sequence."""
    if group.is_one_row:
        to_NHD[group.own] = states_GWD.transpose(0, 1)
        return
    states_HRWD = states_GWD.unflatten(0, (-1, group.num_rows))
    states_PHD = states_HRWD.permute(1, 2, 0, 3).flatten(0, 1)
    torch.index_select(states_PHD, 0, group.place, out=to_NHD[group.own])


def _placed(d_NHD: torch.Tensor, group: Group) -> torch.Tensor:
    """The gradient of what `_put_own` took, (G, W, D): 0 beyond a row's end."""
    if group.is_one_row:
        return d_NHD[group.own].transpose(0, 1)
    d_PHD = d_NHD.index_select(0, group.token).index_fill_(0, group.padding, 0)
    return d_PHD.transpose(0, 1).reshape(-1, group.width, d_NHD.shape[2])


def _weights(query_GQD: torch.Tensor, key_GSD: torch.Tensor, bias_QS: torch.Tensor) -> torch.Tensor:
    bias_GQS = bias_QS.expand(len(query_GQD), *bias_QS.shape)
    return torch.softmax(torch.baddbmm(bias_GQS, query_GQD, key_GSD.mT), -1)


def _noisy(values_GQS: torch.Tensor, noise_GQS: torch.Tensor | None) -> torch.Tensor:
    return values_GQS if noise_GQS is None else values_GQS * noise_GQS
