"""Where a model drops: in modules, and in numbers that Llama, Qwen and GPT-NeoX copy out of the config when built."""

from __future__ import annotations

from torch import nn
from transformers import PreTrainedModel

_CONFIG_KEYS = ("attn_pdrop", "embd_pdrop", "resid_pdrop", "attention_dropout", "embed_dropout", "resid_dropout",
                "hidden_dropout")  # fmt: skip
_COPIED = "attention_dropout"


def set_dropout(model: PreTrainedModel, probability: float) -> None:
    for key in _CONFIG_KEYS:
        if hasattr(model.config, key):
            setattr(model.config, key, probability)
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = probability
        elif isinstance(getattr(module, _COPIED, None), int | float):
            setattr(module, _COPIED, probability)


def has_dropout(model: nn.Module) -> bool:
    """Whether a forward pass in training mode is random by its dropout."""
    return any(_probability(module) > 0 for module in model.modules())


def _probability(module: nn.Module) -> float:
    if isinstance(module, nn.Dropout):
        return module.p
    copied = getattr(module, _COPIED, 0.0)
    return float(copied) if isinstance(copied, int | float) else 0.0
