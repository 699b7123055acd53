"""Weights in the order in which the CPU multiplies them.

A product of a few rows spends much of its time on putting the matrix into that order, anew every time: oneDNN with a
matrix that is in it already is 2.3 times as fast for 8 rows as `addmm` in fp32 and 1.4 times for 64 (GPT-2's shapes,
an AMD EPYC with AVX-512), and generation is nothing but such products. Of the thousand rows of a training step it is
still a tenth, and the bias costs no pass of its own.
"""

# N positions, I inputs, O outputs

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

MOST_PACKED_BYTES = 2 << 30
"""Larger models stay as they are: the packed weights stand beside the others."""


class Matrix:
    """A weight, and its bias, as a layer's forward and backward multiply them."""

    def __init__(self, weight_IO: torch.Tensor, bias_O: torch.Tensor | None = None, *, packs: bool = False) -> None:
        """`packs`: keep both orders beside the weight, which must not change from then on."""
        self.dtype = weight_IO.dtype
        self._weight_IO, self._bias_O = weight_IO, bias_O
        self._packed = (_reordered(weight_IO.t()), _reordered(weight_IO)) if packs else None

    def product(self, x_NI: torch.Tensor, *update: torch.Tensor) -> torch.Tensor:
        """x W + bias, (N, O); with `update`, an l (N, R) and a b (R, O), also + l b."""
        if self._packed:
            out_NO = _pointwise(x_NI, self._packed[0], self._bias_O)
        elif self._bias_O is None:
            out_NO = x_NI @ self._weight_IO
        else:
            out_NO = torch.addmm(self._bias_O, x_NI, self._weight_IO)
        return out_NO.addmm_(*update) if update else out_NO

    def transposed_product(self, d_NO: torch.Tensor, *update: torch.Tensor) -> torch.Tensor:
        """d Wᵀ, (N, I): the gradient of the inputs; with `update` as above."""
        d_NI = _pointwise(d_NO, self._packed[1], None) if self._packed else d_NO @ self._weight_IO.t()
        return d_NI.addmm_(*update) if update else d_NI


def may_pack_frozen(model: nn.Module) -> bool:
    """Whether the matrices of a model that do not learn may stand packed, in both orders, beside themselves."""
    num_bytes = 0
    for layer in model.modules():
        if isinstance(layer, nn.Linear | Conv1D) and not layer.weight.requires_grad and multiplies_packed(layer.weight):
            num_bytes += 2 * layer.weight.nbytes
    return num_bytes <= MOST_PACKED_BYTES


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
        and layer.weight.dtype == torch.float32
        # Someone else's forward (a training's own) stays.
        and "forward" not in layer.__dict__
        and multiplies_packed(layer.weight)
    )


def multiplies_packed(weight: torch.Tensor) -> bool:
    """Whether oneDNN packs such a matrix here."""
    is_x86 = weight.device.type == "cpu" and platform.machine() in ("x86_64", "AMD64")
    if not is_x86 or not torch.backends.mkldnn.is_available():
        return False
    is_native = weight.dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return is_native or weight.dtype == torch.float32


def _packed_forward(layer: nn.Linear | Conv1D) -> Callable[[torch.Tensor], torch.Tensor]:
    weight_OI = layer.weight if isinstance(layer, nn.Linear) else layer.weight.t()
    packed, bias = _reordered(weight_OI), layer.bias

    def forward(inputs: torch.Tensor) -> torch.Tensor:
        # accelerate puts autocast around the model's own forward: what enters the block does not see it.
        if torch.is_autocast_enabled("cpu"):
            plain: torch.Tensor = type(layer).forward(layer, inputs)
            return plain
        return _pointwise(inputs, packed, bias)

    return forward


def _reordered(weight_OI: torch.Tensor) -> torch.Tensor:
    packed: torch.Tensor = torch.ops.mkldnn._reorder_linear_weight(weight_OI.detach().contiguous())
    return packed


def _pointwise(inputs_NI: torch.Tensor, packed: torch.Tensor, bias_O: torch.Tensor | None) -> torch.Tensor:
    product: torch.Tensor = torch.ops.mkldnn._linear_pointwise(inputs_NI, packed, bias_O, "none", [], "")
    return product
