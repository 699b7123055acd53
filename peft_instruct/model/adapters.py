"""The trainable part: a LoRA adapter on a base (the one door to PEFT besides the adapter room), or all weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.tuners_utils import BaseTunerLayer
from transformers import set_seed

from peft_instruct.model.base import Base
from peft_instruct.model.device import DTYPES
from peft_instruct.model.families import is_conv1d_family, resolve_targets
from peft_instruct.recipe.model_section import MethodSection


@dataclass(frozen=True)
class Trainable:
    """A model with the part that learns switched on.

    Attributes:
        targets: full names of the modules with an adapter; empty for full training.
        num_trainable: parameters that learn.
        num_parameters: all parameters, those of the adapter included.
        is_held: the frozen weights are not as they were read, but in the precision of training.
    """

    model: torch.nn.Module
    targets: tuple[str, ...]
    num_trainable: int
    num_parameters: int
    is_held: bool = False

    def describe(self) -> str:
        share = self.num_trainable / self.num_parameters
        where = f" on {len(self.targets)} matrices ({_kinds(self.targets)})" if self.targets else ""
        return f"{self.num_trainable:,} of {self.num_parameters:,} parameters learn ({share:.2%}){where}"


def make_trainable(
    base: Base, method: MethodSection, seed: int = 0, frozen_weights: Literal["auto", "fp32"] = "fp32"
) -> Trainable:
    """Put an adapter on the base, or make every weight learn.

    Args:
        seed: of the adapter's first weights.
        frozen_weights: `auto` holds the weights under an adapter in the precision of training.

    Raises:
        RecipeError: a target that the model does not have.
    """
    if method.kind == "full":
        model: torch.nn.Module = base.model
        model.requires_grad_(True)
        targets: list[str] = []
        is_held = False
    else:
        targets = resolve_targets(base.model, base.model_type, method.targets)
        set_seed(seed)
        model = get_peft_model(base.model, lora_config(base, method, targets))
        # DoRA divides by the norm of the very weights, so these stay as they are.
        is_held = (
            frozen_weights == "auto"
            and base.compute.precision != "fp32"
            and base.quantization == "none"
            and not method.dora
        )
        if is_held:
            _hold_frozen(model, DTYPES[base.compute.precision])
    # A quantised weight holds two values a byte; its own count of parameters is what the layer stands for.
    counts = [(p.numel() * (2 if type(p).__name__ == "Params4bit" else 1), p.requires_grad) for p in model.parameters()]
    num_trainable = sum(n for n, learns in counts if learns)
    return Trainable(model, tuple(targets), num_trainable, sum(n for n, _ in counts), is_held)


def _hold_frozen(model: PeftModel, dtype: torch.dtype) -> None:
    """Cast once what autocast would cast at every step, activations included."""
    for module in model.modules():
        if isinstance(module, BaseTunerLayer):
            # PEFT casts the input up to the adapter's fp32, and autocast down again.
            module._cast_input_dtype = _input_as_autocast_wants  # type: ignore[method-assign]
    for weights in model.parameters():
        if not weights.requires_grad:
            weights.data = weights.data.to(dtype)


def _input_as_autocast_wants(x: torch.Tensor | None, dtype: torch.dtype) -> torch.Tensor | None:
    return x if x is None or torch.is_autocast_enabled(x.device.type) else x.to(dtype)


def let_go_of_frozen(model: torch.nn.Module) -> None:
    """Free the weights under an adapter; the model is of no use until `borrow_frozen`."""
    for weights in model.parameters():
        if not weights.requires_grad:
            weights.data = weights.data.new_empty(0)


def borrow_frozen(model: torch.nn.Module, other: torch.nn.Module) -> None:
    """Give the weights under an adapter the values of another model with the same adapter, as they were read."""
    original = dict(other.named_parameters())
    for module in model.modules():
        if isinstance(module, BaseTunerLayer):
            module.__dict__.pop("_cast_input_dtype", None)
    for name, weights in model.named_parameters():
        if not weights.requires_grad:
            weights.data = original[name].data


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


def tensors_not_finite(model: torch.nn.Module) -> list[str]:
    """Names of trained tensors that hold NaN or infinity."""
    return [name for name, p in model.named_parameters() if p.requires_grad and not torch.isfinite(p).all()]


def has_adapter(model: torch.nn.Module) -> bool:
    return isinstance(model, PeftModel)


def _kinds(targets: tuple[str, ...]) -> str:
    return ", ".join(dict.fromkeys(".".join(name.split(".")[-2:]) for name in targets))


@contextmanager
def read_onto(device: torch.device, model: Any) -> Iterator[None]:
    """A block in which an adapter's file is read onto a device.

    PEFT takes a GPU where there is one, also for a model on the CPU (peft 0.21, peft_model.py:1471).
    """
    if has_adapter(model):
        model.load_adapter = partial(model.load_adapter, torch_device=str(device))
    try:
        yield
    finally:
        vars(model).pop("load_adapter", None)
