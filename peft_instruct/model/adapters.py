"""The trainable part: a LoRA adapter on a base (the one door to PEFT besides the adapter room), or all weights."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import set_seed

from peft_instruct.model.base import Base
from peft_instruct.model.families import is_conv1d_family, resolve_targets
from peft_instruct.recipe.schema import MethodSection


@dataclass(frozen=True)
class Trainable:
    """A model with the part that learns switched on.

    Attributes:
        targets: full names of the modules with an adapter; empty for full training.
        num_trainable: parameters that learn.
        num_parameters: all parameters, those of the adapter included.
    """

    model: torch.nn.Module
    targets: tuple[str, ...]
    num_trainable: int
    num_parameters: int

    def describe(self) -> str:
        share = self.num_trainable / self.num_parameters
        where = f" on {len(self.targets)} matrices ({_kinds(self.targets)})" if self.targets else ""
        return f"{self.num_trainable:,} of {self.num_parameters:,} parameters learn ({share:.2%}){where}"


def make_trainable(base: Base, method: MethodSection, seed: int = 0) -> Trainable:
    """Put an adapter on the base, or make every weight learn.

    Args:
        seed: of the adapter's first weights.

    Raises:
        RecipeError: a target that the model does not have.
    """
    if method.kind == "full":
        model: torch.nn.Module = base.model
        model.requires_grad_(True)
        targets: list[str] = []
    else:
        targets = resolve_targets(base.model, base.model_type, method.targets)
        set_seed(seed)
        model = get_peft_model(base.model, lora_config(base, method, targets))
    # A quantised weight holds two values a byte; its own count of parameters is what the layer stands for.
    counts = [(p.numel() * (2 if type(p).__name__ == "Params4bit" else 1), p.requires_grad) for p in model.parameters()]
    return Trainable(model, tuple(targets), sum(n for n, learns in counts if learns), sum(n for n, _ in counts))


def lora_config(base: Base, method: MethodSection, targets: list[str]) -> LoraConfig:
    return LoraConfig(
        task_type="CAUSAL_LM",
        r=method.rank,
        lora_alpha=method.alpha,
        lora_dropout=method.dropout,
        target_modules=targets,
        use_dora=method.dora,
        use_rslora=method.rslora,
        # Conv1D stores (in, out); bitsandbytes' layers and everyone else's store (out, in).
        fan_in_fan_out=is_conv1d_family(base.model_type) and base.quantization == "none",
        bias="none",
    )


def has_adapter(model: torch.nn.Module) -> bool:
    return isinstance(model, PeftModel)


def _kinds(targets: tuple[str, ...]) -> str:
    return ", ".join(dict.fromkeys(".".join(name.split(".")[-2:]) for name in targets))
