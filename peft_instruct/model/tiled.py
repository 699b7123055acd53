"""Frozen weights on a CPU that multiplies bf16 by tiles (AMX): a product takes as long as what goes to and from memory.

A low-rank update is more inputs of the same product, x W + l b = [x l] [W; b], and so is a bias, beside a one: where
there are at least as many outputs as inputs, that costs less than to read and write the outputs again. Packing (see
`packed`) gains nothing there.
"""

# N positions, I inputs, O outputs, R rank of an update

from __future__ import annotations

import math

import torch

from peft_instruct.model.device import has_amx

TILE = 32
"""Inputs of a tile in bf16, and rows that oneDNN computes alike."""
WIDEST_FOR_ONE = 768


class TiledMatrix:
    """As `packed.Matrix`; the weight must not change."""

    def __init__(self, weight_IO: torch.Tensor, bias_O: torch.Tensor | None = None) -> None:
        self.dtype = weight_IO.dtype
        self._forward, self._backward = _Stack(weight_IO), _Stack(weight_IO.t())
        self._bias_O = bias_O

    def product(self, x_NI: torch.Tensor, low_NR: torch.Tensor, b_RO: torch.Tensor) -> torch.Tensor:
        """x W + bias + l b, (N, O)."""
        if self._bias_O is not None:
            low_NR = torch.nn.functional.pad(low_NR, (0, 1), value=1.0)
            b_RO = torch.cat([b_RO, self._bias_O[None]])
        return self._forward.product(x_NI, low_NR, b_RO)

    def transposed_product(self, d_NO: torch.Tensor, low_NR: torch.Tensor, b_RI: torch.Tensor) -> torch.Tensor:
        """d Wᵀ + l b, (N, I)."""
        return self._backward.product(d_NO, low_NR, b_RI)


class _Stack:
    """A weight, and where the product has no fewer outputs than inputs, an update below it."""

    def __init__(self, weight_IO: torch.Tensor) -> None:
        self.num_inputs, num_outputs = weight_IO.shape
        self.is_wide = num_outputs >= self.num_inputs
        self.weight = weight_IO.detach() if self.is_wide else weight_IO.detach().contiguous()

    def product(self, x_NI: torch.Tensor, low_NR: torch.Tensor, b_RO: torch.Tensor) -> torch.Tensor:
        if not self.is_wide:
            return by_rows(x_NI, self.weight).addmm_(low_NR, b_RO)
        added = len(b_RO)
        padding = -(self.num_inputs + added) % TILE
        if len(self.weight) != self.num_inputs + added + padding:
            self.weight = torch.nn.functional.pad(self.weight[: self.num_inputs], (0, 0, 0, added + padding))
        self.weight[self.num_inputs :] = torch.nn.functional.pad(b_RO, (0, 0, 0, padding))
        zeros = x_NI.new_zeros(len(x_NI), padding)
        return by_rows(torch.cat([x_NI, low_NR, zeros], dim=1), self.weight)


def multiplies_by_tiles(weight: torch.Tensor) -> bool:
    return weight.device.type == "cpu" and weight.dtype == torch.bfloat16 and has_amx()


def by_rows(x_NI: torch.Tensor, weight_IO: torch.Tensor) -> torch.Tensor:
    """x W, so many rows at a time that both of two threads have some.

    oneDNN 3.12 leaves a product that has about as many rows as outputs, and not many of either, to one of them: of
    GPT-2's 768 outputs from 704 rows to 1,280 at least, by the number of inputs.
    """
    num_rows, num_outputs = len(x_NI), weight_IO.shape[1]
    most = num_outputs * 5 // 6
    is_for_one = num_outputs <= WIDEST_FOR_ONE and most < num_rows < 2 * num_outputs
    if not is_for_one or torch.get_num_threads() != 2:
        return x_NI @ weight_IO
    output_NO = x_NI.new_empty(num_rows, num_outputs)
    rows = math.ceil(num_rows / (math.ceil(num_rows / most) * TILE)) * TILE
    for x_rows, output_rows in zip(x_NI.split(rows), output_NO.split(rows), strict=True):
        torch.mm(x_rows, weight_IO, out=output_rows)
    return output_NO
