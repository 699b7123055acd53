"""Faster ways through a model that compute what the plain ones compute.

Each is put in when a base is loaded (`model.kernels: fast`) and nothing of it is written with the weights.
"""

# B rows of a batch, H heads, T query positions, S key positions, D width of a head

from __future__ import annotations

from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel, activations
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from peft_instruct.model.device import arithmetic
from peft_instruct.model.gelu import GELUTanh
from peft_instruct.model.joined_rows import JoinedRows
from peft_instruct.model.row_attention import attention_of_joined_rows

ATTENTION = "peft_instruct"
# Keys up to which plain products are faster than torch 2.13's fused CPU attention, whose backward works on tiles of 32
# rows: 2 to 3 times for the usual row in bf16, never in fp32 (benchmarks/results/attention_lengths.json).
LONGEST_PLAIN = {torch.bfloat16: 384}


def use_fast_kernels(model: PreTrainedModel, attention: bool = True) -> None:
    """GELU's tanh form as one function and, with `attention`, plain products for short rows on the CPU."""
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, activations.NewGELUActivation | activations.GELUTanh):
                setattr(module, name, GELUTanh())
    if attention and model.config._attn_implementation == "sdpa" and model.device.type == "cpu":
        model.set_attn_implementation(ATTENTION)


def attention_for_length(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    joined_rows: JoinedRows | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Attention over (B, H, T, D) with a Boolean mask (B, 1, T, S) or none; returns (B, T, H, D).

    In bf16, rows of `LONGEST_PLAIN` keys or fewer go through plain products, all others (and a lone query, which is
    generation) through torch's `scaled_dot_product_attention`. With `joined_rows` the batch is one sequence of several
    rows, and its mask is theirs.
    """
    if joined_rows is not None:
        groups = getattr(module, "num_key_value_groups", 1)
        # Under autocast rotary positions leave queries and keys in fp32. Without the batch not by an index, whose
        # gradient is written once more, into zeros.
        states = query, repeat_kv(key, groups), repeat_kv(value, groups)
        query, key, value = (each.to(arithmetic(query)).squeeze(0) for each in states)
        return attention_of_joined_rows(query, key, value, joined_rows, dropout, scaling).unsqueeze(0), None
    num_queries, num_keys = query.shape[2], key.shape[2]
    is_own_mask = (attention_mask is None and num_queries == num_keys) or (
        attention_mask is not None and attention_mask.dtype == torch.bool
    )
    if (
        num_queries == 1
        or num_keys > LONGEST_PLAIN.get(query.dtype, 0)
        or not is_own_mask
        or kwargs.get("position_bias") is not None
    ):
        output, _ = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
        return output, None
    groups = getattr(module, "num_key_value_groups", 1)
    key, value = repeat_kv(key, groups), repeat_kv(value, groups)
    B, H, T, D = query.shape
    lowest = torch.finfo(query.dtype).min
    if attention_mask is None:
        bias = torch.full((T, T), lowest, dtype=query.dtype, device=query.device).triu_(1).expand(B * H, T, T)
    else:
        allowed = attention_mask.expand(B, H, T, num_keys).reshape(B * H, T, num_keys)
        bias = torch.zeros_like(allowed, dtype=query.dtype).masked_fill_(~allowed, lowest)
    flat = query.reshape(B * H, T, D), key.reshape(B * H, num_keys, D), value.reshape(B * H, num_keys, D)
    output = _plain_products(*flat, bias, dropout, scaling)
    return output.view(B, H, T, D).transpose(1, 2).contiguous(), None


def _plain_products(
    query_GTD: torch.Tensor,
    key_GSD: torch.Tensor,
    value_GSD: torch.Tensor,
    bias_GTS: torch.Tensor,
    dropout: float,
    scaling: float | None,
) -> torch.Tensor:
    scale = query_GTD.shape[-1] ** -0.5 if scaling is None else scaling
    scores_GTS = torch.baddbmm(bias_GTS, query_GTD, key_GSD.transpose(1, 2), alpha=scale)
    weights_GTS = torch.softmax(scores_GTS, dim=-1, dtype=scores_GTS.dtype)
    if dropout:
        weights_GTS = torch.nn.functional.dropout(weights_GTS, p=dropout)
    return torch.bmm(weights_GTS.to(value_GSD.dtype), value_GSD)


AttentionInterface.register(ATTENTION, attention_for_length)
AttentionMaskInterface.register(ATTENTION, sdpa_mask)
