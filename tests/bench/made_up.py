"""Result files with figures that are plainly made up: for tests of what is done with figures, never of a speed."""

from __future__ import annotations

from typing import Any

from peft_instruct.bench.records import BenchFile, BenchRow, Cell, Measurement, Spread


def spread(value: float) -> Spread:
    return Spread(median=value, smallest=value * 0.9, largest=value * 1.1)


def cell(device: Any = "cpu", method: str = "lora", precision: Any = "auto") -> Cell:
    return Cell(device=device, method=method, precision=precision, batch_size=8, max_length=512)


def measurement(device: str = "cpu", tokens_per_second: float = 1000.0, dtype: str = "fp32") -> Measurement:
    return Measurement.model_validate(
        {
            "device": device,
            "device_name": f"made-up {device}",
            "dtype": dtype,
            "num_threads": 2,
            "num_warmup": 3,
            "num_steps": 10,
            "step_seconds": spread(900 / tokens_per_second),
            "tokens_per_second": spread(tokens_per_second),
            "completion_tokens_per_second": spread(tokens_per_second / 2),
            "tokens_per_step": 900.0,
            "fill_fraction": 0.75,
            "memory": {"peak_bytes": 2_000_000_000, "baseline_bytes": 1_000_000_000, "how": f"a counter of {device}"},
            "num_trainable": 10,
            "num_parameters": 1000,
            "flops_per_token": 4e8,
            "flops_formula": "(4 N + 6 A) per token",
            "model_flops_per_second": spread(4e8 * tokens_per_second),
            "matrix_rate": {"flops_per_second": 8e11, "dtype": dtype, "size": 2048},
            "share_of_matrix_rate": 4e8 * tokens_per_second / 8e11,
        }
    )


def measured_row(device: str = "cpu", tokens_per_second: float = 1000.0, **words: Any) -> BenchRow:
    return BenchRow(cell=cell(device, **words), status="measured", measurement=measurement(device, tokens_per_second))


def absent_row(device: str, **words: Any) -> BenchRow:
    return BenchRow(cell=cell(device, **words), status="absent", reason=f"{device} is not here")


def failed_row(device: str, reason: str, **words: Any) -> BenchRow:
    return BenchRow(cell=cell(device, **words), status="failed", reason=reason)


def bench_file(*rows: BenchRow, recipe_sha256: str = "ab" * 32) -> BenchFile:
    return BenchFile(
        created="2030-01-01T00:00:00+00:00",
        recipe="made-up",
        recipe_sha256=recipe_sha256,
        environment={"versions": {"torch": "0"}},
        rows=list(rows),
    )
