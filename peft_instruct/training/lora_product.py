"""A LoRA layer as one function: x W + b + s (x Aᵀ) Bᵀ, added where it stands, and a backward written out.

PEFT adds the update by three passes over the layer's whole output (product, scale, sum) and autograd by two more in
backward (peft 0.21, tuners/lora/layer.py:1102); on a CPU these passes cost as much as a tenth of a step. Here scale is
part of B, and both sums are the accumulation of a matrix product.
"""

from __future__ import annotations

import types
from typing import Any

import torch
from transformers.pytorch_utils import Conv1D

from peft_instruct.model.device import arithmetic

# N positions, I inputs, O outputs, R rank


def fuse_lora(model: torch.nn.Module) -> None:
    """Give each plain LoRA layer on the CPU the forward below; `unfuse_lora` takes it off again."""
    for module in model.modules():
        base_layer = getattr(module, "base_layer", None)
        if hasattr(module, "lora_A") and type(base_layer) in (torch.nn.Linear, Conv1D):
            module.forward = types.MethodType(_forward, module)  # type: ignore[method-assign]


def unfuse_lora(model: torch.nn.Module) -> None:
    for module in model.modules():
        if hasattr(module, "lora_A"):
            module.__dict__.pop("forward", None)


def _forward(self: Any, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
    name = self.active_adapters[0] if len(self.active_adapters) == 1 else None
    dtype = arithmetic(x)
    if (
        name not in self.lora_A
        or args
        or kwargs
        or self.disable_adapters
        or self.merged
        or name in self.lora_variant
        or not isinstance(self.lora_dropout[name], torch.nn.Identity)
        or self.base_layer.weight.dtype != dtype
        or x.device.type != "cpu"
    ):
        return type(self).forward(self, x, *args, **kwargs)
    layer = self.base_layer
    weight_IO = layer.weight if type(layer) is Conv1D else layer.weight.t()
    a_RI, b_OR = self.lora_A[name].weight, self.lora_B[name].weight
    out_NO = _LoraProduct.apply(
        x.reshape(-1, x.shape[-1]), weight_IO, layer.bias, a_RI, b_OR, self.scaling[name], dtype
    )
    return out_NO.view(*x.shape[:-1], -1)


class _LoraProduct(torch.autograd.Function):
    """The layer's own weight and bias are frozen: there is no gradient of them."""

    @staticmethod
    def forward(
        ctx: Any,
        x_NI: torch.Tensor,
        weight_IO: torch.Tensor,
        bias_O: torch.Tensor | None,
        a_RI: torch.Tensor,
        b_OR: torch.Tensor,
        scale: float,
        dtype: torch.dtype,
    ) -> torch.Tensor:
        ctx.dtypes, ctx.scale = (x_NI.dtype, a_RI.dtype), scale
        x_NI, a_RI, b_OR = x_NI.to(dtype), a_RI.to(dtype), (b_OR * scale).to(dtype)
        out_NO = x_NI @ weight_IO if bias_O is None else torch.addmm(bias_O.to(dtype), x_NI, weight_IO)
        low_NR = x_NI @ a_RI.t()
        out_NO.addmm_(low_NR, b_OR.t())
        ctx.save_for_backward(x_NI, low_NR, weight_IO, a_RI, b_OR)
        return out_NO

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        x_NI, low_NR, weight_IO, a_RI, b_OR = ctx.saved_tensors
        x_dtype, adapter_dtype = ctx.dtypes
        d_out_NO = gradients[0].to(x_NI.dtype)
        d_low_NR = d_out_NO @ b_OR
        d_x_NI = None
        if ctx.needs_input_grad[0]:
            d_x_NI = (d_out_NO @ weight_IO.t()).addmm_(d_low_NR, a_RI).to(x_dtype)
        d_a_RI = (d_low_NR.t() @ x_NI).to(adapter_dtype)
        d_b_OR = (d_out_NO.t() @ low_NR).to(adapter_dtype).mul_(ctx.scale)
        return d_x_NI, None, None, d_a_RI, d_b_OR, None, None
