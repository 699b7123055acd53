"""Weights in the order in which the CPU multiplies them.

A product of a few rows spends much of its time on putting the matrix into that order, anew every time: oneDNN with a
matrix that is in it already is 2.3 times as fast for 8 rows as `addmm` in fp32 and 1.4 times for 64 (GPT-2's shapes,
an AMD EPYC with AVX-512), and generation is nothing but such products.
"""

# I inputs, O outputs

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

MOST_PACKED_BYTES = 2 << 30
"""Larger models stay as they are: the packed weights stand beside the others."""


@contextmanager
def packed_weights(model: nn.Module) -> Iterator[None]:
    """The matrices of a model, packed for its forward passes within the block; without gradients.

    Packed are those in fp32 on an x86 CPU where autocast is off; others stay as they are. Where a forward pass turns
    autocast on by itself, its products are the plain ones.
    """
    layers = [module for module in model.modules() if isinstance(module, nn.Linear | Conv1D) and _can_pack(module)]
    num_bytes = sum(layer.weight.nbytes for layer in layers)
    packed = layers if num_bytes <= MOST_PACKED_BYTES and not torch.is_autocast_enabled("cpu") else []
    try:
        for layer in packed:
            layer.forward = _packed_forward(layer)  # type: ignore[method-assign]
        yield
    finally:
        for layer in packed:
            layer.__dict__.pop("forward", None)


def _can_pack(layer: nn.Linear | Conv1D) -> bool:
    return (
        # Subclasses (bitsandbytes' among them) compute in ways of their own.
        type(layer) in (nn.Linear, Conv1D)
        and layer.weight.device.type == "cpu"
        and layer.weight.dtype == torch.float32
        # Someone else's forward (a training's own) stays.
        and "forward" not in layer.__dict__
        and platform.machine() in ("x86_64", "AMD64")
        and torch.backends.mkldnn.is_available()
    )


def _packed_forward(layer: nn.Linear | Conv1D) -> Callable[[torch.Tensor], torch.Tensor]:
    weight_OI = layer.weight.detach() if isinstance(layer, nn.Linear) else layer.weight.detach().T.contiguous()
    packed = torch.ops.mkldnn._reorder_linear_weight(weight_OI)
    bias = layer.bias

    def forward(inputs: torch.Tensor) -> torch.Tensor:
        # accelerate puts autocast around the model's own forward: what enters the block does not see it.
        if torch.is_autocast_enabled("cpu"):
            plain: torch.Tensor = type(layer).forward(layer, inputs)
            return plain
        product: torch.Tensor = torch.ops.mkldnn._linear_pointwise(inputs, packed, bias, "none", [], "")
        return product

    return forward
