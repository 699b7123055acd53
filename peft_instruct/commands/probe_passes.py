"""A few training passes of the longest batch of a run, of shapes in between and of the median one: time and memory."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from torch.utils.data import DataLoader
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from peft_instruct.bench.memory import device_memory, memory_probe, peak_memory
from peft_instruct.bench.prediction import PassTimes, next_rows
from peft_instruct.bench.stopwatch import StepSplit, Stopwatch
from peft_instruct.commands.preparing import Prepared
from peft_instruct.commands.probe_order import NUM_TIMED, InOrder, ProbeOrder, widest
from peft_instruct.model.adapters import Trainable
from peft_instruct.recipe import Recipe
from peft_instruct.recipe.writing import exact_values
from peft_instruct.training.completion_head import joins_rows
from peft_instruct.training.plan import Batch, passes_of
from peft_instruct.training.sft import build_trainer
from peft_instruct.training.trainer import CompletionTrainer


@dataclass(frozen=True)
class StepTimes:
    """What a step takes.

    Attributes:
        passes: forward and backward.
        forward_share: of a pass.
        optimizer_seconds: of a step, besides its passes.
        new_shape_seconds: what the first batch of a shape takes beyond the next ones: kernels are compiled for it.
    """

    passes: PassTimes
    forward_share: float
    optimizer_seconds: float
    new_shape_seconds: float


@dataclass(frozen=True)
class Passes:
    """What was measured, and what it says of a run.

    Attributes:
        rows_at_once: rows of a pass that memory has room for.
        longest: rows and tokens of the widest row of the longest batch.
        by_tokens: batches are of so many tokens (`training.batch_tokens`), not of so many rows.
        peak_bytes: of the process or the device, as `train` counts it at its end.
        training_peak_bytes: while training alone.
        not_run_bytes: what shapes of batches that were not run will leave in memory, for the rest of the run.
    """

    times: StepTimes
    rows_at_once: int
    longest: tuple[int, int]
    by_tokens: bool
    peak_bytes: int
    training_peak_bytes: int
    not_run_bytes: int
    total_bytes: int
    how: str

    def memory(self) -> dict[str, Any]:
        rows, widest = self.longest
        return {
            "peak_bytes": self.peak_bytes,
            "training_peak_bytes": self.training_peak_bytes,
            "not_run_bytes": self.not_run_bytes,
            "device_bytes": self.total_bytes,
            "how": self.how,
            "longest_batch": [rows, widest],
            "fits": self.rows_at_once >= rows,
            "micro_batch": min(self.rows_at_once, rows),
            "by_tokens": self.by_tokens,
        }

    def training_seconds(self, lengths: Sequence[int], steps: Sequence[Sequence[Batch]]) -> float:
        passes = [passes_of(batch, lengths, self.rows_at_once) for step in steps for batch in step]
        return (
            math.fsum(self.times.passes.seconds(*each) for each in passes)
            + len(steps) * self.times.optimizer_seconds
            + len(set(passes)) * self.times.new_shape_seconds
        )

    def validation_seconds(self, lengths: Sequence[int], size: int) -> float:
        """Of one validation loss: passes without their backward half.

        Args:
            size: most rows of a batch; memory may hold fewer.
        """
        size = min(size, self.rows_at_once)
        order = sorted(range(len(lengths)), key=lambda row: -lengths[row])
        batches = [order[at : at + size] for at in range(0, len(order), size)]
        seconds = (self.times.passes.seconds(*passes_of(batch, lengths, size)) for batch in batches)
        return self.times.forward_share * math.fsum(seconds)


def measure_passes(
    recipe: Recipe,
    ready: Prepared,
    trainable: Trainable,
    steps: Sequence[Sequence[Batch]],
    lengths: Sequence[int],
    folder: Path,
) -> Passes:
    """Train on some batches of a run: on those of a `ProbeOrder`, with as many rows at once as memory lets."""
    by_tokens = recipe.training.batch_tokens is not None
    batches = [batch for step in steps for batch in step]
    joins = joins_rows(ready.base.model.config.get_text_config(), recipe.speed)
    order = ProbeOrder.of(batches, lengths, by_tokens, joins)
    most_rows = max(len(batch) for batch in batches)
    device = ready.base.compute.device
    ladder = Ladder(len(order.longest), most_rows, device_memory(device), device)
    stopwatch = Stopwatch(device)
    asked = _probe_recipe(recipe, most_rows, len(order.batches()))
    trainer = build_trainer(asked, ready.base, trainable, ready.train, [], folder=folder, callbacks=[ladder, stopwatch])
    ladder.trainer = trainer
    loader = DataLoader(
        trainer.train_dataset,
        batch_sampler=InOrder(order.batches()),
        collate_fn=stopwatch.counting(trainer.data_collator),
    )
    trainer.get_train_dataloader = lambda: trainer.accelerator.prepare(loader)  # type: ignore[method-assign]
    stopwatch.split(trainer, after=1)
    before = peak_memory(device)
    memory = memory_probe(device)
    memory.start()
    trainer.train()
    not_run = _of_shapes_not_run(order, ladder)
    training_peak = memory.stop().peak_bytes + not_run
    return Passes(
        times=_times(order, stopwatch.splits, lengths, trainer.rows_at_once, by_tokens),
        rows_at_once=trainer.rows_at_once,
        longest=(len(order.longest), widest(order.longest, lengths)),
        by_tokens=by_tokens,
        peak_bytes=max(before.num_bytes, training_peak),
        training_peak_bytes=training_peak,
        not_run_bytes=not_run,
        total_bytes=ladder.total_bytes,
        how=before.how,
    )


def _of_shapes_not_run(order: ProbeOrder, ladder: Ladder) -> int:
    """Bytes that the run's other shapes will leave in memory, as those that were run have left."""
    left = ladder.by_step[-1] - ladder.by_step[order.num_first - 1]
    return round(left * (order.num_shapes / len(order.some) - 1))


def _times(
    order: ProbeOrder, splits: Sequence[StepSplit], lengths: Sequence[int], rows: int, by_tokens: bool
) -> StepTimes:
    """From what each step took.

    Args:
        splits: of all steps but the first.
        rows: of a pass.
    """
    # The last step was run only for its memory.
    splits = splits[:-1]
    start = order.num_first - 1
    long, short = splits[start - NUM_TIMED : start], splits[-NUM_TIMED:]
    measured = (
        (*passes_of(order.typical, lengths, rows), _pass_seconds(short)),
        (*passes_of(order.longest, lengths, rows), _pass_seconds(long)),
    )
    times = PassTimes.per_position_of(*measured) if by_tokens else PassTimes.of(*measured)
    first_of_shape = [
        _pass_seconds([split]) - times.seconds(*passes_of(batch, lengths, rows))
        for batch, split in zip(order.some, splits[start : start + len(order.some)], strict=True)
    ]
    return StepTimes(
        passes=times,
        forward_share=median(split.forward / (split.forward + split.backward) for split in long),
        optimizer_seconds=median(split.optimizer for split in (*long, *short)),
        new_shape_seconds=max(median(first_of_shape), 0.0),
    )


@dataclass
class Ladder(TrainerCallback):
    """Gives each step as many rows at once as the memory of those before it lets hope for, one row first.

    Attributes:
        longest_rows: of the longest batch, which comes first; once it has been run whole, every batch is.
        most_rows: of any batch.
        peaks: (rows, peak bytes) of the steps so far; the first is done twice, the optimizer's moments are made in it.
        by_step: peak bytes after each step.
    """

    longest_rows: int
    most_rows: int
    total_bytes: int
    device: str
    peaks: list[tuple[int, int]] = field(default_factory=list)
    trainer: CompletionTrainer | None = None
    by_step: list[int] = field(default_factory=list)
    asked: int = 1

    def __post_init__(self) -> None:
        self.hoped_rows = self.longest_rows

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        assert self.trainer is not None
        self.asked = next_rows(self.peaks, self.hoped_rows, self.total_bytes) or self.peaks[-1][0]
        self.trainer.rows_at_once = self.most_rows if self.asked == self.longest_rows else self.asked

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        assert self.trainer is not None
        rows = min(self.trainer.rows_at_once, self.longest_rows)
        if rows < self.asked:
            self.hoped_rows = rows  # memory ran out, and the trainer took fewer
        self.by_step.append(peak_memory(self.device).num_bytes)
        if len(self.by_step) > 1 and (not self.peaks or rows > self.peaks[-1][0]):
            self.peaks.append((rows, self.by_step[-1]))


def _pass_seconds(splits: Sequence[StepSplit]) -> float:
    return median(split.data + split.forward + split.backward for split in splits)


def _probe_recipe(recipe: Recipe, batch_size: int, num_steps: int) -> Recipe:
    """The recipe's passes without anything else; the weights that they leave are of no use and hardly move."""
    values = exact_values(recipe)
    values["training"] |= {
        "batch_size": batch_size,
        "batch_tokens": None,
        "accumulation": 1,
        "max_steps": num_steps,
        "learning_rate": 1e-9,
        "evaluate_every": "never",
        "save_every": "never",
        "keep_best": False,
        "early_stopping": None,
    }
    return Recipe.model_validate(values)
