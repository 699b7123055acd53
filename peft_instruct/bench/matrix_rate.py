"""What the device reaches on one large matrix product: the rate that a model's arithmetic is held against."""

from __future__ import annotations

import time
from statistics import median

import torch

from peft_instruct.bench.records import MatrixRate
from peft_instruct.model.device import DTYPES, synchronize

# Large enough that the product, not its start, takes the time; small enough that all of them take about a second.
SIZES = {"cuda": 8192, "mps": 4096, "cpu": 2048}
NUM_WARMUP = 2
NUM_TIMED = 7


def measure_matrix_rate(device: str, dtype: str, size: int | None = None) -> MatrixRate:
    """Median rate of square products (2 · size³ FLOPs each), in the asking process, with its settings."""
    size = size or SIZES[device]
    generator = torch.Generator().manual_seed(0)
    # Random, not constant: on GPUs the power that a product draws, and so its clock, depends on the values.
    left, right = (torch.randn(size, size, generator=generator).to(device, DTYPES[dtype]) for _ in range(2))
    out = torch.empty_like(left)
    seconds = []
    with torch.no_grad():
        for _ in range(NUM_WARMUP + NUM_TIMED):
            synchronize(device)
            began = time.perf_counter()
            torch.mm(left, right, out=out)
            synchronize(device)
            seconds.append(time.perf_counter() - began)
    rate = 2 * size**3 / median(seconds[NUM_WARMUP:])
    return MatrixRate.model_validate({"flops_per_second": rate, "dtype": dtype, "size": size})
