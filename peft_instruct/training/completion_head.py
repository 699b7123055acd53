"""The language-model head on the positions that are learned, and on no other.

Off CUDA, TRL's fused head scores every position of a batch, in fp32, and computes them once more in backward
(trl 1.16, trainer/utils.py:1640); half of an instruction row is its prompt. The loss is the same sum over the same
positions.
"""

from __future__ import annotations

import functools
import types
from typing import Any

import torch
from transformers import PreTrainedModel
from trl.trainer.utils import FusedCausalLMOutput

from peft_instruct.data.types import IGNORED_LABEL

# B rows of a batch, T tokens, D width, N learned positions, V vocabulary

# Models that scale or cap their logits keep TRL's head, which knows how each of them does it.
_RESHAPED_LOGITS = (
    "final_logit_softcapping",
    "logit_scale",
    "output_multiplier",
    "lm_head_multiplier",
    "logits_scaling",
)


def score_learned_positions(model: PreTrainedModel) -> None:
    """Give a model that SFTTrainer has patched our forward for `fused_lm_head=True`; any other call is unchanged.

    On CUDA TRL's own kernel scores the learned positions alone and stays.
    """
    config = model.config.get_text_config()
    if any(getattr(config, name, None) is not None for name in _RESHAPED_LOGITS):
        return
    patched_by_trl = model.forward

    # `generate` looks at the signature.
    @functools.wraps(type(model).forward)
    def forward(self: Any, *args: Any, fused_lm_head: bool = False, labels: Any = None, **kwargs: Any) -> Any:
        if not fused_lm_head or labels is None or labels.device.type == "cuda":
            return patched_by_trl(*args, fused_lm_head=fused_lm_head, labels=labels, **kwargs)
        kwargs["use_cache"] = False
        hidden_BTD = self.base_model(*args, **kwargs).last_hidden_state[:, :-1]
        targets_BT = labels[:, 1:]
        learned_BT = targets_BT != IGNORED_LABEL
        logits_NV = self.get_output_embeddings()(hidden_BTD[learned_BT]).float()
        targets_N = targets_BT[learned_BT]
        losses_N = torch.nn.functional.cross_entropy(logits_NV, targets_N, reduction="none")
        with torch.no_grad():
            is_top1_N = (logits_NV.argmax(-1) == targets_N).to(losses_N.dtype)
        return FusedCausalLMOutput(
            log_probs=_placed(-losses_N, learned_BT),
            # Not a metric of ours; TRL averages it at every step, so it must be there.
            entropy=losses_N.new_zeros(learned_BT.shape),
            is_top1=_placed(is_top1_N, learned_BT),
            label_mask=learned_BT,
        )

    model.forward = types.MethodType(forward, model)


def _placed(values_N: torch.Tensor, where_BT: torch.Tensor) -> torch.Tensor:
    return values_N.new_zeros(where_BT.shape).masked_scatter(where_BT, values_N)
