"""Attention of joined rows: plain products, row by row, whose weights stay in the processor's cache.

torch 2.13's fused CPU attention, which works on tiles of 32 queries, takes 1.4 to 2.1 times as long in bf16, forward
and backward; in fp32 0.7 times for rows of 64 tokens, which it then has to be given side by side, and 1.5 times for 384
(benchmarks/results/attention_lengths.json).
"""

# N tokens in all, H heads, D width of a head, P tokens shared; of one part: W places, Q queries at a time, S keys that
# they may see

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch

from peft_instruct.model.joined_rows import Block, JoinedRows, Part

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
    output_NHD: torch.Tensor = _RowByRow.apply(query_HND, key_HND, value_HND, rows, dropout, scale)
    return output_NHD


class _RowByRow(torch.autograd.Function):
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
        output_NHD = query_HND.new_zeros(query_HND.transpose(0, 1).shape)
        for part, key_HWD, value_HWD in _behind_shared(rows.parts, key_HND, value_HND):
            for block in part.blocks(rows.num_shared):
                weights_HQS = _weights(query_HND, key_HWD, rows, block, scale)
                noise_HQS = torch.dropout(torch.ones_like(weights_HQS), dropout, True) if dropout else None
                kept += [weights_HQS if block.num_keys <= LONGEST_KEPT else None, noise_HQS]
                mixed_HQD = _noisy(weights_HQS, noise_HQS) @ value_HWD[:, : block.num_keys]
                output_NHD[block.own] = mixed_HQD[:, : block.num_own].transpose(0, 1)
        ctx.save_for_backward(query_HND, key_HND, value_HND, *kept)
        return output_NHD

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        (query_HND, key_HND, value_HND, *kept), rows = ctx.saved_tensors, ctx.rows
        (H, N, D), P = query_HND.shape, rows.num_shared
        d_query_HND, d_key_HND, d_value_HND = (query_HND.new_zeros(N, H, D).transpose(0, 1) for _ in range(3))
        # The sums over all rows: in bf16 they would be rounded at each of them.
        d_shared_key_HPD, d_shared_value_HPD = (query_HND.new_zeros(H, P, D, dtype=torch.float32) for _ in range(2))
        for part, key_HWD, value_HWD in _behind_shared(rows.parts[::-1], key_HND, value_HND):
            d_keys_HWD, d_values_HWD = torch.zeros_like(key_HWD), torch.zeros_like(value_HWD)
            for block in reversed(list(part.blocks(P))):
                noise_HQS, weights_HQS = kept.pop(), kept.pop()
                if weights_HQS is None:
                    weights_HQS = _weights(query_HND, key_HWD, rows, block, ctx.scale)
                seen = slice(block.num_keys)
                d_HQD = gradients[0][block.queries].transpose(0, 1).contiguous()
                d_HQD[:, block.num_own :] = 0
                d_values_HWD[:, seen] += _noisy(weights_HQS, noise_HQS).transpose(1, 2) @ d_HQD
                d_weights_HQS = _noisy(d_HQD @ value_HWD[:, seen].transpose(1, 2), noise_HQS)
                d_scores_HQS = torch._softmax_backward_data(d_weights_HQS, weights_HQS, -1, weights_HQS.dtype)
                d_keys_HWD[:, seen] += _product(d_scores_HQS.transpose(1, 2), query_HND[:, block.queries], ctx.scale)
                d_query_HQD = _product(d_scores_HQS, key_HWD[:, seen], ctx.scale)
                d_query_HND[:, block.own] = d_query_HQD[:, : block.num_own]
            own, before = slice(part.start, part.start + part.length), part.num_before
            d_key_HND[:, own] = d_keys_HWD[:, before : before + part.length]
            d_value_HND[:, own] = d_values_HWD[:, before : before + part.length]
            d_shared_key_HPD[:, :before] += d_keys_HWD[:, :before]
            d_shared_value_HPD[:, :before] += d_values_HWD[:, :before]
        d_key_HND[:, :P] += d_shared_key_HPD
        d_value_HND[:, :P] += d_shared_value_HPD
        return d_query_HND, d_key_HND, d_value_HND, None, None, None


def _behind_shared(
    parts: Sequence[Part], key_HND: torch.Tensor, value_HND: torch.Tensor
) -> Iterator[tuple[Part, torch.Tensor, torch.Tensor]]:
    """Of each part the keys and the values that it sees, (H, what is before + W, D), until the next is asked for."""
    H, _, D = key_HND.shape
    most = max(part.num_before + part.width for part in parts)
    key_HWD, value_HWD = key_HND.new_empty(H, most, D), value_HND.new_empty(H, most, D)
    num_there = 0
    for part in parts:
        width, before = part.num_before + part.width, part.num_before
        for there_HWD, states_HND in ((key_HWD, key_HND), (value_HWD, value_HND)):
            if before > num_there:
                there_HWD[:, :before] = states_HND[:, :before]
            there_HWD[:, before:width] = states_HND[:, part.start : part.start + part.width]
        num_there = before
        yield part, key_HWD[:, :width], value_HWD[:, :width]


def _weights(
    query_HND: torch.Tensor, key_HWD: torch.Tensor, rows: JoinedRows, block: Block, scale: float
) -> torch.Tensor:
    query_HQD, key_HSD = query_HND[:, block.queries], key_HWD[:, : block.num_keys]
    bias_QS = rows.bias(query_HND.dtype)[block.allowed]
    scores_HQS = torch.baddbmm(bias_QS.expand(len(query_HQD), *bias_QS.shape), query_HQD, key_HSD.mT, alpha=scale)
    return torch.softmax(scores_HQS, -1)


def _noisy(values_HQS: torch.Tensor, noise_HQS: torch.Tensor | None) -> torch.Tensor:
    return values_HQS if noise_HQS is None else values_HQS * noise_HQS


def _product(one: torch.Tensor, other: torch.Tensor, scale: float) -> torch.Tensor:
    return torch.baddbmm(one.new_zeros(1, 1, 1), one, other, beta=0, alpha=scale)
