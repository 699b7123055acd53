"""Cross-entropy straight from hidden states: the logits of some rows at a time, forward and gradient in one pass.

All logits of a batch at once are N × 50,257 numbers in fp32, written and read by half a dozen passes. Here a block of
rows is one matrix product in the precision of training, and of that a few rows at a time pass through fp32 in the
processor's cache; memory does not grow with the batch. The gradient is computed beside the loss (as Liger-Kernel's
FusedLinearCrossEntropy does, arXiv 2410.10989, section 3.2), so that nothing is computed twice.
"""

from __future__ import annotations

from typing import Any

import torch

from peft_instruct.model.device import arithmetic
from peft_instruct.model.packed import Matrix

# N learned positions, B rows of a block, C rows of a chunk, D width, V vocabulary

ROWS_OF_BLOCK = 512
ROWS_OF_CHUNK = 32
"""Blocks are filled up to a multiple of these: oneDNN compiles, and keeps, a kernel for every shape."""


def can_chunk(head: torch.nn.Module, dtype: torch.dtype) -> bool:
    """Whether a language-model head is a plain matrix in a type whose smallest numbers hold a probability."""
    return type(head) is torch.nn.Linear and head.bias is None and dtype != torch.float16


def chunked_losses(
    hidden_ND: torch.Tensor, head: torch.nn.Linear, targets_N: torch.Tensor, packed: Matrix | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """(losses (N,) in nats, whether each target has the largest logit (N,)), both fp32.

    The loss's gradient has to weigh all positions alike where the head itself learns (a mean or a sum does).

    Args:
        packed: the head's weight (D, V), where it does not learn and stands packed.
    """
    losses_N, is_top1_N = _ChunkedLoss.apply(hidden_ND, head.weight, targets_N, packed)
    return losses_N, is_top1_N


class _ChunkedLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden_ND: torch.Tensor, weight_VD: torch.Tensor, targets_N: torch.Tensor, packed: Matrix | None
    ) -> Any:
        dtype = arithmetic(hidden_ND)
        ctx.dtypes = hidden_ND.dtype, weight_VD.dtype
        learns_hidden, learns_weight = ctx.needs_input_grad[:2]
        hidden_ND = hidden_ND.to(dtype)
        head = packed if packed is not None and packed.dtype == dtype else Matrix(weight_VD.t().to(dtype))
        N = len(hidden_ND)
        losses_N, is_top1_N = hidden_ND.new_empty(N, dtype=torch.float32), hidden_ND.new_empty(N, dtype=torch.float32)
        d_hidden_ND = torch.empty_like(hidden_ND) if learns_hidden else None
        d_weight_VD = None
        for start in range(0, N, ROWS_OF_BLOCK):
            block = slice(start, min(start + ROWS_OF_BLOCK, N))
            rows_BD = _filled_up(hidden_ND[block])
            logits_BV = head.product(rows_BD)
            losses_N[block], is_top1_N[block] = _to_gradient_in_place(logits_BV, targets_N[block])
            if d_hidden_ND is not None:
                d_hidden_ND[block] = head.transposed_product(logits_BV)[: block.stop - start]
            if learns_weight:
                d_block_VD = logits_BV.t() @ rows_BD
                d_weight_VD = d_block_VD.float() if d_weight_VD is None else d_weight_VD.add_(d_block_VD)
        if learns_weight and d_weight_VD is None:
            d_weight_VD = torch.zeros_like(weight_VD, dtype=torch.float32)
        ctx.save_for_backward(d_hidden_ND, d_weight_VD)
        ctx.mark_non_differentiable(is_top1_N)
        return losses_N, is_top1_N

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        by_loss_N = gradients[0]
        d_hidden_ND, d_weight_VD = ctx.saved_tensors
        hidden_dtype, weight_dtype = ctx.dtypes
        if d_hidden_ND is not None:
            d_hidden_ND = (d_hidden_ND * by_loss_N[:, None]).to(hidden_dtype)
        if d_weight_VD is not None and len(by_loss_N):
            if not bool((by_loss_N == by_loss_N[0]).all()):
                raise RuntimeError("chunked_losses: positions are weighted differently. expected a sum or a mean.")
            d_weight_VD = (d_weight_VD * by_loss_N[0]).to(weight_dtype)
        return d_hidden_ND, d_weight_VD, None, None


def _filled_up(rows: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.pad(rows, (0, 0, 0, -len(rows) % ROWS_OF_CHUNK))


def _to_gradient_in_place(logits_BV: torch.Tensor, targets_B: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Losses and whether each target leads; the logits become d loss / d logits: softmax minus one-hot. Rows beyond the
    targets stay 0, as the hidden states that they were filled up with make them."""
    losses, is_top1 = [], []
    for start in range(0, len(targets_B), ROWS_OF_CHUNK):
        targets_C1 = targets_B[start : start + ROWS_OF_CHUNK, None]
        place_CV = logits_BV[start : start + len(targets_C1)]
        # Cast first: softmax and max of torch 2.13 are up to seven times slower in bf16, or casting on the way.
        logits_CV = place_CV.float()
        # The first of the largest, as everywhere else: in bf16 two of them are often equal.
        highest_C1, leader_C1 = logits_CV.max(1, keepdim=True)
        p_CV = torch.softmax(logits_CV, -1)
        # The highest has probability 1 / Z: its logarithm is exact where the target's own may be one of 0.
        below_C1 = highest_C1 - logits_CV.gather(1, targets_C1)
        losses.append((below_C1 - p_CV.gather(1, leader_C1).log()).squeeze(1))
        is_top1.append((leader_C1 == targets_C1).squeeze(1).float())
        place_CV.copy_(p_CV.scatter_add_(1, targets_C1, torch.full_like(below_C1, -1.0)))
    return torch.cat(losses), torch.cat(is_top1)
