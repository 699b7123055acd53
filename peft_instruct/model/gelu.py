"""GELU's tanh form by the sigmoid, some of it at a time, its derivative beside it.

    x sigmoid(2 u), u = sqrt(2 / pi) (x + 0.044715 x³)    (Hendrycks and Gimpel 2016, arXiv 1606.08415; 1 + tanh(u) =
                                                          2 sigmoid(2 u))

torch 2.13's kernel evaluates tanh, forward and once more backward, and takes twice as long as these passes over what
the processor's cache holds. Below zero the sigmoid is also nearer to the formula: 1 + tanh(u) cancels.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

_LINEAR, _CUBIC = (2 * math.sqrt(2 / math.pi) * factor for factor in (1, 0.044715))
CHUNK, CHUNK_OF_THREAD = 1 << 18, 1 << 17
"""Elements at a time: the more, the fewer calls, but three times as many in fp32 have to stay in the cache."""
SMALLEST = 1 << 16
"""With fewer elements, as in generation, torch's kernel costs fewer calls."""


class GELUTanh(nn.Module):
    """On the CPU in fp32 and bf16 as above, elsewhere torch's kernel."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        is_ours = x.device.type == "cpu" and x.dtype in (torch.float32, torch.bfloat16) and x.is_contiguous()
        if not is_ours or x.numel() < SMALLEST:
            return nn.functional.gelu(x, approximate="tanh")
        output: torch.Tensor = _GELUTanh.apply(x) if torch.is_grad_enabled() else _gelu(x)
        return output


class _GELUTanh(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        # In x's place, for which nobody asks again: memory is that of torch's kernel.
        derivative = torch.empty_like(x) if ctx.needs_input_grad[0] else None
        ctx.save_for_backward(derivative)
        return _gelu(x, derivative)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        (derivative,) = ctx.saved_tensors
        return gradients[0] * derivative


def _gelu(x: torch.Tensor, derivative: torch.Tensor | None = None) -> torch.Tensor:
    """Its derivative is written where there is room for it: s + s (1 - s) (2 u)' x, of which s is the sigmoid."""
    output = torch.empty_like(x)
    linear = x.new_full((), _LINEAR, dtype=torch.float32)
    size = max(CHUNK, CHUNK_OF_THREAD * torch.get_num_threads())
    buffers = x.new_empty(3, min(size, x.numel()), dtype=torch.float32)
    for start in range(0, x.numel(), size):
        chunk = slice(start, min(start + size, x.numel()))
        value, inner, share = buffers[:, : chunk.stop - start]
        value.copy_(x.view(-1)[chunk])
        torch.addcmul(linear, value, value, value=_CUBIC, out=inner).mul_(value)
        torch.sigmoid(inner, out=share)
        if derivative is not None:
            # (2 u)' x is 3 (2 u) less two of its linear parts.
            inner.add_(value, alpha=-2 / 3 * _LINEAR)
            torch.ops.aten.sigmoid_backward.grad_input(inner, share, grad_input=inner)
            derivative.view(-1)[chunk].copy_(torch.add(share, inner, alpha=3, out=inner))
        output.view(-1)[chunk].copy_(value.mul_(share))
    return output
