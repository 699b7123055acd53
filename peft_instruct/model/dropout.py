"""Where a model drops: in modules, and in numbers that modules copy out of the config when they are built."""

from __future__ import annotations

from torch import nn
from transformers import PreTrainedModel

# Of a module (OPT, BLOOM, StarCoder2 have all but the first) and, with the last line, of a config.
_COPIED = ("attention_dropout", "dropout", "attn_dropout", "hidden_dropout", "activation_dropout", "residual_dropout",
           "embedding_dropout")  # fmt: skip
_CONFIG_KEYS = (*_COPIED, "attn_pdrop", "embd_pdrop", "resid_pdrop", "embed_dropout", "resid_dropout",
                "hidden_dropout_prob", "attention_probs_dropout_prob")  # fmt: skip


def set_dropout(model: PreTrainedModel, probability: float) -> None:
    for key in _CONFIG_KEYS:
        if hasattr(model.config, key):
            setattr(model.config, key, probability)
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = probability
        for name in _copies(module):
            setattr(module, name, probability)


def has_dropout(model: nn.Module) -> bool:
    """Whether a forward pass in training mode is random by its dropout."""
    return any(_probability(module) > 0 for module in model.modules())


def _probability(module: nn.Module) -> float:
    if isinstance(module, nn.Dropout):
        return module.p
    return max((float(getattr(module, name)) for name in _copies(module)), default=0.0)


def _copies(module: nn.Module) -> list[str]:
    return [name for name in _COPIED if isinstance(vars(module).get(name), int | float)]
