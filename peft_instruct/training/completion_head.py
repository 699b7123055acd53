"""The training forward: learned positions alone behind the last attention, no padding, a preamble computed once.

Off CUDA, TRL's fused head scores every position of a batch, in fp32, and computes them once more in backward
(trl 1.16, trainer/utils.py:1640); half of an instruction row is its prompt. And the prompts of a template begin with
the same tokens, with an input and without: their hidden states are the same in all such rows, and they stand once
before the rows, which follow one after another. Where a model's attention is not ours, what all rows begin with is a
pass of its own, and its keys and values are all rows'. The loss is the same sum over the same positions.

    the rows are             where                                        what they begin with is computed
    joined                   attention is ours, padding is on the right   once per kind
    behind a preamble        a family that we know, nothing recomputed    once, where all rows share it
    as the batch has them    everywhere else                              in every row

With dropout nothing is shared, and with it or recomputation nothing is left out behind the last attention.
"""

from __future__ import annotations

import functools
import types
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from transformers import DynamicCache, PreTrainedConfig, PreTrainedModel
from trl.kernels.chunked_logprob import ChunkedLogProbFunction, _use_triton
from trl.trainer.utils import FusedCausalLMOutput

from peft_instruct.data.types import IGNORED_LABEL
from peft_instruct.model.cache_name import as_cache
from peft_instruct.model.device import arithmetic
from peft_instruct.model.dropout import has_dropout
from peft_instruct.model.families import FAMILIES, sees_all
from peft_instruct.model.head import is_left_to_trl
from peft_instruct.model.joined_rows import Kind, join_rows, kinds_of, num_in_common
from peft_instruct.model.kernels import ATTENTION
from peft_instruct.model.last_block import after_last_attention, computed_where
from peft_instruct.model.packed import Matrix, multiplies_packed
from peft_instruct.recipe.training_section import SpeedSection
from peft_instruct.training.chunked_loss import can_chunk, chunked_losses

# B rows of a batch, T tokens, P tokens of the shared preamble, D width, N learned positions, V vocabulary

SHORTEST_PREAMBLE = 8
"""Below this many tokens the pass of its own costs more than it saves."""


def score_learned_positions(model: PreTrainedModel, speed: SpeedSection, packed_as: torch.dtype | None = None) -> None:
    """Give a model that SFTTrainer has patched our forward for `fused_lm_head=True`; any other call is unchanged.

    On CUDA TRL's own kernel scores the learned positions alone and stays, where it runs.

    Args:
        packed_as: in what the head is multiplied; where its weight is frozen and held so, it is kept in the order of
            that product, too.
    """
    config = model.config.get_text_config()
    if is_left_to_trl(model) or not speed.completion_head:
        return
    patched_by_trl = model.forward
    is_random = has_dropout(model)
    may_join = joins_rows(config, speed)
    is_known = config.model_type in FAMILIES
    packed = _packed(model.get_output_embeddings(), packed_as)

    # `generate` looks at the signature.
    @functools.wraps(type(model).forward)
    def forward(self: Any, *args: Any, fused_lm_head: bool = False, labels: Any = None, **kwargs: Any) -> Any:
        if not fused_lm_head or labels is None or _trl_kernel_runs(self, labels.device):
            return patched_by_trl(*args, fused_lm_head=fused_lm_head, labels=labels, **kwargs)
        recomputes = self.training and self.is_gradient_checkpointing
        is_plain = not args and are_plain_rows(self, kwargs)
        joins = is_plain and may_join
        # With dropout each row draws its own. Unless rows are joined a cache holds what they share: with gradient
        # checkpointing there is none, and a model that we do not know may keep something else in it.
        may_share = is_plain and speed.shared_preamble and not (self.training and is_random)
        beginnings: list[tuple[int, ...]] = [()] * len(labels)
        if may_share and len(labels) > 1 and (joins or (is_known and not recomputes)):
            beginnings = beginnings_of(kwargs["input_ids"], kwargs["attention_mask"], labels)
        targets_BT = labels[:, 1:]
        learned_BT = targets_BT != IGNORED_LABEL
        targets_N = targets_BT[learned_BT]
        # Activations that backward recomputes would be computed everywhere; and a step that turns out not to fit has to
        # be the same with them, so that dropout must draw the same numbers.
        is_whole = recomputes or (self.training and is_random)
        read_late = [] if is_whole else after_last_attention(self, config)
        if joins:
            kinds = kinds_of(beginnings)
            hidden_ND = _hidden_states_of_joined_rows(self.base_model, kinds, kwargs, learned_BT, read_late)
        elif (shared := num_in_common(beginnings)) >= SHORTEST_PREAMBLE:
            hidden_BTD = _hidden_states_after_preamble(self.base_model, shared, kwargs, learned_BT, read_late)
            hidden_ND = hidden_BTD[:, :-1][learned_BT]
        else:
            kwargs["use_cache"] = False
            with computed_where(read_late, nn.functional.pad(learned_BT, (0, 1))):
                hidden_ND = self.base_model(*args, **kwargs).last_hidden_state[:, :-1][learned_BT]
        losses_N, is_top1_N = _losses(self.get_output_embeddings(), hidden_ND, targets_N, packed)
        return FusedCausalLMOutput(
            log_probs=_placed(-losses_N, learned_BT),
            # Not a metric of ours; TRL averages it at every step, so it must be there.
            entropy=losses_N.new_zeros(learned_BT.shape),
            is_top1=_placed(is_top1_N, learned_BT),
            label_mask=learned_BT,
        )

    model.forward = types.MethodType(forward, model)


def _trl_kernel_runs(model: Any, device: torch.device) -> bool:
    return device.type == "cuda" and trl_kernel_runs(device, arithmetic(model.get_input_embeddings().weight))


@functools.cache
def trl_kernel_runs(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether TRL's kernel for the learned positions alone does, tried once on one token.

    It takes Triton, a C compiler at its first call and, in bf16, compute capability 8.0; where there is no Triton TRL
    scores every position, in fp32 (trl 1.16, kernels/chunked_logprob.py).
    """
    if not _use_triton(device) or (dtype == torch.bfloat16 and torch.cuda.get_device_capability(device) < (8, 0)):
        return False
    hidden_1D = torch.zeros(1, 16, device=device, dtype=dtype, requires_grad=True)
    target_1 = torch.zeros(1, device=device, dtype=torch.long)
    try:
        found = ChunkedLogProbFunction.apply(hidden_1D, torch.zeros_like(hidden_1D), None, target_1, 1.0, 16)
        found[0].sum().backward()
    except Exception:  # whatever a compiler says
        return False
    return True


def _losses(
    head: Any, hidden_ND: torch.Tensor, targets_N: torch.Tensor, packed: Matrix | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """(cross-entropy, 1 where the target is the likeliest token), each (N,)."""
    if can_chunk(head, arithmetic(hidden_ND)):
        return chunked_losses(hidden_ND, head, targets_N, packed)
    logits_NV = head(hidden_ND).float()
    losses_N = nn.functional.cross_entropy(logits_NV, targets_N, reduction="none")
    return losses_N, (logits_NV.detach().argmax(-1) == targets_N).to(losses_N.dtype)


def _packed(head: nn.Module, dtype: torch.dtype | None) -> Matrix | None:
    weight: Any = head.weight
    is_frozen = weight.dtype == dtype and not weight.requires_grad
    if not is_frozen or not can_chunk(head, weight.dtype) or not multiplies_packed(weight):
        return None
    return Matrix(weight.t(), packs=True)


def joins_rows(config: PreTrainedConfig, speed: SpeedSection) -> bool:
    """Whether the rows of a batch follow one another: by our attention, in a model that sees all of a row."""
    return speed.joined_rows and config._attn_implementation == ATTENTION and sees_all(config)


def are_plain_rows(model: Any, inputs: dict[str, Any]) -> bool:
    """Whether rows of a batch may be taken apart: padded on the right or not at all, and told apart by their mask.

    Not with NEFTune, whose noise is scaled by the length of a row, and which each row draws for itself.
    """
    mask_BT = inputs.get("attention_mask")
    return (
        inputs.get("input_ids") is not None
        and mask_BT is not None
        and inputs.get("position_ids") is None
        and not (model.training and hasattr(model.get_input_embeddings(), "neftune_noise_alpha"))
        and bool((mask_BT[:, 1:] <= mask_BT[:, :-1]).all())
    )


def beginnings_of(ids_BT: torch.Tensor, mask_BT: torch.Tensor, labels_BT: torch.Tensor) -> list[tuple[int, ...]]:
    """Of each row, padded on the right, the tokens before its first learned one; a row's last is never among them."""
    is_learned_BT = nn.functional.pad(labels_BT != IGNORED_LABEL, (0, 1), value=True)
    lengths_B = torch.minimum(is_learned_BT.int().argmax(1), mask_BT.sum(1) - 1)
    return [tuple(ids[:length]) for ids, length in zip(ids_BT.tolist(), lengths_B.tolist(), strict=True)]


def _hidden_states_of_joined_rows(
    base_model: Any,
    kinds: Sequence[Kind],
    inputs: dict[str, Any],
    learned_BT: torch.Tensor,
    read_late: Sequence[nn.Module],
) -> torch.Tensor:
    """Last hidden states (N, D) that predict the learned tokens.

    Args:
        read_late: the modules that are computed for these tokens alone.

    Raises:
        RuntimeError: the model does not hand on to its attention what tells rows apart.
    """
    dtype = arithmetic(base_model.get_input_embeddings().weight)
    rows = join_rows(inputs["input_ids"], inputs["attention_mask"], kinds, dtype)
    token_N = rows.token[:, :-1][learned_BT]
    is_read = torch.zeros_like(rows.ids, dtype=torch.bool)
    is_read[0, token_N] = True
    with computed_where(read_late, is_read):
        hidden_1ND = base_model(
            input_ids=rows.ids,
            position_ids=rows.positions,
            # Of four dimensions it is taken as it is, and ours looks at the rows.
            attention_mask=rows.ids.new_ones(1, 1, 1, 1, dtype=torch.bool),
            joined_rows=rows,
            use_cache=False,
        ).last_hidden_state
    if rows.num_calls[0] < base_model.config.get_text_config().num_hidden_layers:
        raise RuntimeError(
            f"{type(base_model).__name__}: its attention was not told where rows begin. Set speed.joined_rows: false."
        )
    return hidden_1ND[0].index_select(0, token_N)


def _hidden_states_after_preamble(
    base_model: Any, shared: int, inputs: dict[str, Any], learned_BT: torch.Tensor, read_late: Sequence[nn.Module]
) -> torch.Tensor:
    """Last hidden states (B, T, D): the preamble's keys and values from one row, used by all; gradients flow back."""
    ids_BT, mask_BT = inputs["input_ids"], inputs["attention_mask"]
    cache = DynamicCache()
    is_read = nn.functional.pad(learned_BT, (0, 1))
    with computed_where(read_late, is_read[:, :shared].any(0, keepdim=True)):
        preamble_1PD = base_model(input_ids=ids_BT[:1, :shared], use_cache=True, **as_cache(cache)).last_hidden_state
    for layer in cache.layers:
        layer.keys = layer.keys.expand(len(ids_BT), -1, -1, -1)
        layer.values = layer.values.expand(len(ids_BT), -1, -1, -1)
    with computed_where(read_late, is_read[:, shared:]):
        own_BTD = base_model(
            input_ids=ids_BT[:, shared:], attention_mask=mask_BT, use_cache=True, **as_cache(cache)
        ).last_hidden_state
    return torch.cat([preamble_1PD.expand(len(ids_BT), -1, -1), own_BTD], dim=1)


def _placed(values_N: torch.Tensor, where_BT: torch.Tensor) -> torch.Tensor:
    return values_N.new_zeros(where_BT.shape).masked_scatter(where_BT, values_N)
