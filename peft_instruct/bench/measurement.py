"""Steps, memory and arithmetic of one cell -> the figures that its row shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, fields

import torch

from peft_instruct.bench.flops import LEGEND, Matrices, TokenCounts
from peft_instruct.bench.records import MatrixRate, Measurement, Memory, Spread
from peft_instruct.bench.stopwatch import Step, StepSplit
from peft_instruct.bench.witness import Witness
from peft_instruct.model.adapters import Trainable
from peft_instruct.model.device import device_name


def summarize(
    steps: Sequence[Step],
    num_warmup: int,
    *,
    trainable: Trainable,
    matrices: Matrices,
    memory: Memory,
    matrix_rate: MatrixRate,
    witness: Witness,
    splits: Sequence[StepSplit] = (),
) -> Measurement:
    """The figures of the steps after the first `num_warmup`.

    Raises:
        ValueError: no step is left, or one without a learned token; the caller's mistake.
    """
    measured = steps[num_warmup:]
    if not measured or any(step.counts.num_completion_tokens == 0 for step in measured):
        raise ValueError(f"{len(steps)} steps of which {num_warmup} are warm-up leave nothing to measure")
    total = sum((step.counts for step in measured), TokenCounts())
    speed = Spread.of([matrices.flops(step.counts) / step.seconds for step in measured])
    return Measurement.model_validate(
        {
            "device": witness.device,
            "device_name": device_name(witness.device),
            "dtype": witness.dtype,
            "num_threads": torch.get_num_threads(),
            "num_warmup": num_warmup,
            "num_steps": len(measured),
            "step_seconds": Spread.of([step.seconds for step in measured]),
            "tokens_per_second": Spread.of([step.counts.num_tokens / step.seconds for step in measured]),
            "completion_tokens_per_second": Spread.of(
                [step.counts.num_completion_tokens / step.seconds for step in measured]
            ),
            "tokens_per_step": total.num_tokens / len(measured),
            "fill_fraction": total.num_tokens / total.num_positions,
            "memory": memory,
            "num_trainable": trainable.num_trainable,
            "num_parameters": trainable.num_parameters,
            "flops_per_token": matrices.flops(total) / total.num_tokens,
            "flops_formula": f"{matrices.formula}; {LEGEND}",
            "model_flops_per_second": speed,
            "matrix_rate": matrix_rate,
            "share_of_matrix_rate": speed.median / matrix_rate.flops_per_second,
            "split": _shares(splits),
        }
    )


def _shares(splits: Sequence[StepSplit]) -> dict[str, float] | None:
    total = sum(sum(astuple(split)) for split in splits)
    return (
        {part.name: sum(getattr(split, part.name) for split in splits) / total for part in fields(StepSplit)}
        if splits
        else None
    )
