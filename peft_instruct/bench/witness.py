"""Sees where and in which type a model is really computed, whatever was asked for.

accelerate takes fp16 on a CPU and computes in fp32, and autocast turns fp32 weights into bf16 products: neither the
recipe nor the weights tell what ran, so the result of a block's matrix is looked at while the model trains.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers.pytorch_utils import Conv1D

from peft_instruct.model.device import DTYPES

_NAMES = {dtype: name for name, dtype in DTYPES.items()}


class Witness:
    """Watches the first product of a frozen or full block matrix, once."""

    def __init__(self, model: torch.nn.Module) -> None:
        watched = next(
            module
            for name, module in model.named_modules()
            if isinstance(module, torch.nn.Linear | Conv1D) and ".lora_" not in name
        )
        self._weight: torch.Tensor = next(watched.parameters())
        # bitsandbytes computes in a type of its own and hands back the type of its input.
        self._computed_in = getattr(watched, "compute_dtype", None)
        self._seen: tuple[str, torch.dtype] | None = None
        self._hook = watched.register_forward_hook(self._look)

    def _look(self, module: torch.nn.Module, inputs: Any, output: torch.Tensor) -> None:
        self._seen = output.device.type, self._computed_in or output.dtype
        self._hook.remove()

    @property
    def device(self) -> str:
        return self._seen[0] if self._seen else self._weight.device.type

    @property
    def dtype(self) -> str:
        """`fp32`, `bf16` or `fp16`; of the weights where the product goes around the module."""
        return _NAMES[self._seen[1] if self._seen else self._weight.dtype]
