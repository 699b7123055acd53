"""A LoRA layer as one function: x W + b + s (x Aᵀ) Bᵀ, added where it stands, and a backward written out.

PEFT adds the update by three passes over the layer's whole output (product, scale, sum) and autograd by two more in
backward (peft 0.21, tuners/lora/layer.py:1102); on a CPU these passes cost as much as a tenth of a step. Here scale is
part of B, and both sums are the accumulation of a matrix product.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers.pytorch_utils import Conv1D

from peft_instruct.model.device import arithmetic
from peft_instruct.model.packed import Matrix, multiplies_packed
from peft_instruct.model.tiled import TiledMatrix, multiplies_by_tiles

# N positions, I inputs, O outputs, R rank


def fuse_lora(model: torch.nn.Module, packs: bool = False) -> None:
    """Give each plain LoRA layer on the CPU the forward below; `unfuse_lora` takes it off again.

    Args:
        packs: keep the frozen weights in the order in which they are multiplied, too.
    """
    for module in model.modules():
        base_layer = getattr(module, "base_layer", None)
        if hasattr(module, "lora_A") and type(base_layer) in (torch.nn.Linear, Conv1D):
            module.forward = _Fused(module, packs)  # type: ignore[method-assign, assignment]


def unfuse_lora(model: torch.nn.Module) -> None:
    for module in model.modules():
        if hasattr(module, "lora_A"):
            module.__dict__.pop("forward", None)


class _Fused:
    """The forward of one layer; its frozen matrix is made when it is first used."""

    def __init__(self, layer: Any, packs: bool) -> None:
        self.layer, self.packs = layer, packs
        self.matrix: Matrix | TiledMatrix | None = None

    def __call__(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        lora, base = self.layer, self.layer.base_layer
        name = lora.active_adapters[0] if len(lora.active_adapters) == 1 else None
        dtype = arithmetic(x)
        if (
            name not in lora.lora_A
            or args
            or kwargs
            or lora.disable_adapters
            or lora.merged
            or name in lora.lora_variant
            or not isinstance(lora.lora_dropout[name], torch.nn.Identity)
            or base.weight.dtype != dtype
            or x.device.type != "cpu"
        ):
            plain: torch.Tensor = type(lora).forward(lora, x, *args, **kwargs)
            return plain
        if self.matrix is None:
            weight_IO = base.weight if type(base) is Conv1D else base.weight.t()
            bias_O = None if base.bias is None else base.bias.to(dtype)
            if self.packs and multiplies_by_tiles(weight_IO):
                self.matrix = TiledMatrix(weight_IO, bias_O)
            else:
                self.matrix = Matrix(weight_IO, bias_O, packs=self.packs and multiplies_packed(weight_IO))
        a_RI, b_OR = lora.lora_A[name].weight, lora.lora_B[name].weight
        out_NO = _LoraProduct.apply(x.reshape(-1, x.shape[-1]), self.matrix, a_RI, b_OR, lora.scaling[name])
        return out_NO.view(*x.shape[:-1], -1)


class _LoraProduct(torch.autograd.Function):
    """The layer's own weight and bias are frozen: there is no gradient of them."""

    @staticmethod
    def forward(
        ctx: Any, x_NI: torch.Tensor, matrix: Matrix | TiledMatrix, a_RI: torch.Tensor, b_OR: torch.Tensor, scale: float
    ) -> torch.Tensor:
        ctx.dtypes, ctx.scale, ctx.matrix = (x_NI.dtype, a_RI.dtype), scale, matrix
        x_NI, a_RI, b_OR = x_NI.to(matrix.dtype), a_RI.to(matrix.dtype), (b_OR * scale).to(matrix.dtype)
        low_NR = x_NI @ a_RI.t()
        out_NO = matrix.product(x_NI, low_NR, b_OR.t())
        ctx.save_for_backward(x_NI, low_NR, a_RI, b_OR)
        return out_NO

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        x_NI, low_NR, a_RI, b_OR = ctx.saved_tensors
        x_dtype, adapter_dtype = ctx.dtypes
        d_out_NO = gradients[0].to(x_NI.dtype)
        d_low_NR = d_out_NO @ b_OR
        d_x_NI = None
        if ctx.needs_input_grad[0]:
            d_x_NI = ctx.matrix.transposed_product(d_out_NO, d_low_NR, a_RI).to(x_dtype)
        d_a_RI = (d_low_NR.t() @ x_NI).to(adapter_dtype)
        # Turned round the product takes up to twice as long: the larger factor would be read by columns.
        d_b_OR = (low_NR.t() @ d_out_NO).t().to(adapter_dtype).mul_(ctx.scale)
        return d_x_NI, None, d_a_RI, d_b_OR, None
