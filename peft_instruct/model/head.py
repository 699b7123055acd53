"""Whether a model's logits are what its training computes: the output embedding on the last hidden states."""

from __future__ import annotations

from typing import Any

import torch
from transformers import PreTrainedModel

from peft_instruct.errors import ModelError
from peft_instruct.model.families import FAMILIES

_OTHERWISE = (
    "final_logit_softcapping",
    "logit_scale",
    "output_multiplier",
    "lm_head_multiplier",
    "logits_scaling",
    "output_router_logits",
)
LARGEST_DIFFERENCE = 2**-10
"""Of the largest logit; the same products in the same order, so that nothing but another function exceeds it."""


def is_left_to_trl(model: PreTrainedModel) -> bool:
    """Whether logits are scaled or capped, or experts add to the loss: TRL's head knows how."""
    config = model.config.get_text_config()
    return any(getattr(config, name, None) not in (None, False) for name in _OTHERWISE)


@torch.no_grad()
def check_head(model: PreTrainedModel, model_type: str) -> None:
    """One short forward of a model of no known family, both ways.

    Raises:
        ModelError: something stands between hidden states and logits (a layer, a cap) that training would leave out.
    """
    if model_type in FAMILIES or is_left_to_trl(model):
        return
    ids_BT = torch.arange(4, device=model.device)[None]
    was_training, head = model.training, model.get_output_embeddings()
    model.eval()
    logits_BTV = model(input_ids=ids_BT, use_cache=False).logits
    base: Any = model.base_model
    trained_BTV = head(base(input_ids=ids_BT, use_cache=False).last_hidden_state) if head is not None else None
    model.train(was_training)
    if trained_BTV is None or (trained_BTV - logits_BTV).abs().max() > LARGEST_DIFFERENCE * logits_BTV.abs().max():
        raise ModelError(
            f"model.base: a {model_type} model computes its logits otherwise than by its output embedding on the last "
            f"hidden states, which is what training learns through. expected {', '.join(FAMILIES)}, or alike."
        )
