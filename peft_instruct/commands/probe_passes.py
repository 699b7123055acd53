"""A few training passes of the longest batch of a run, of shapes in between and of the median one: time and memory."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from torch.utils.data import DataLoader, Sampler
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from peft_instruct.bench.memory import device_memory, memory_probe, peak_memory
from peft_instruct.bench.prediction import PassTimes, next_rows
from peft_instruct.bench.stopwatch import StepSplit, Stopwatch
from peft_instruct.commands.preparing import Prepared
from peft_instruct.evaluation.scores import evenly
from peft_instruct.model.adapters import Trainable
from peft_instruct.recipe import Recipe
from peft_instruct.recipe.writing import recipe_values
from peft_instruct.training.plan import Batch, passes_of
from peft_instruct.training.sft import build_trainer
from peft_instruct.training.trainer import CompletionTrainer

TIMED = 3
"""Steps of a kind whose median counts, after one that does not."""
ALIKE = 0.75
"""Of the positions of the largest batch by tokens; smaller ones are what was left over."""
MOST_SHAPES = 8
"""Shapes of batches that are run once each: kernels are compiled for a new one, and the memory of both stays."""


@dataclass(frozen=True)
class Passes:
    """What was measured, and what it says of a run.

    Attributes:
        rows_at_once: rows of a pass that memory has room for.
        longest: rows and tokens of the widest row of the longest batch.
        by_tokens: batches are of so many tokens (`training.batch_tokens`), not of so many rows.
        peak_bytes: of the process or the device, as `train` counts it at its end.
        training_peak_bytes: while training alone.
        forward_share: of a pass.
        optimizer_seconds: of a step, besides its passes.
        new_shape_seconds: what the first batch of a shape takes beyond the next ones: kernels are compiled for it.
    """

    times: PassTimes
    forward_share: float
    optimizer_seconds: float
    new_shape_seconds: float
    rows_at_once: int
    longest: tuple[int, int]
    by_tokens: bool
    peak_bytes: int
    training_peak_bytes: int
    total_bytes: int
    how: str

    def memory(self) -> dict[str, Any]:
        rows, widest = self.longest
        return {
            "peak_bytes": self.peak_bytes,
            "training_peak_bytes": self.training_peak_bytes,
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
            math.fsum(self.times.seconds(*each) for each in passes)
            + len(steps) * self.optimizer_seconds
            + len(set(passes)) * self.new_shape_seconds
        )

    def validation_seconds(self, lengths: Sequence[int], size: int) -> float:
        """Of one validation loss: passes without their backward half.

        Args:
            size: rows of a batch.
        """
        order = sorted(range(len(lengths)), key=lambda row: -lengths[row])
        batches = [order[at : at + size] for at in range(0, len(order), size)]
        return self.forward_share * math.fsum(self.times.seconds(*passes_of(batch, lengths, size)) for batch in batches)


def measure_passes(
    recipe: Recipe,
    ready: Prepared,
    trainable: Trainable,
    steps: Sequence[Sequence[Batch]],
    lengths: Sequence[int],
    folder: Path,
) -> Passes:
    """Train on some batches of a run.

    First on the longest, in growing parts of it as far as memory goes; then on one of each of up to MOST_SHAPES shapes
    of batches, on the median one, and on the longest again.
    """
    by_tokens = recipe.training.batch_tokens is not None
    batches = [batch for step in steps for batch in step]
    whole = _whole(batches, lengths, by_tokens)
    longest, typical = whole[-1], whole[len(whole) // 2]
    most_rows = max(len(batch) for batch in batches)
    ladder = Ladder(len(longest), most_rows, device_memory(ready.base.compute.device), ready.base.compute.device)
    num_long = ladder.most_sizes + TIMED
    shapes = {(len(batch), _positions(batch, lengths)): batch for batch in whole}
    some = evenly(list(shapes.values()), MOST_SHAPES)
    # The longest again at the end, upon what the others have left in memory.
    order = [*[longest] * num_long, *some, *[typical] * (1 + TIMED), longest]
    stopwatch = Stopwatch(ready.base.compute.device)
    asked = _probe_recipe(recipe, most_rows, len(order))
    trainer = build_trainer(asked, ready.base, trainable, ready.train, [], folder=folder, callbacks=[ladder, stopwatch])
    ladder.trainer = trainer
    loader = DataLoader(
        trainer.train_dataset, batch_sampler=InOrder(order), collate_fn=stopwatch.counting(trainer.data_collator)
    )
    trainer.get_train_dataloader = lambda: trainer.accelerator.prepare(loader)  # type: ignore[method-assign]
    stopwatch.split(trainer, after=1)
    before = peak_memory(ready.base.compute.device)
    memory = memory_probe(ready.base.compute.device)
    memory.start()
    trainer.train()
    found = memory.stop()
    rows = trainer.rows_at_once
    # The first step is in no split, and the last one only for its memory.
    splits = stopwatch.splits[:-1]
    long, short = splits[num_long - 1 - TIMED : num_long - 1], splits[-TIMED:]
    measured = (
        (*passes_of(typical, lengths, rows), _pass_seconds(short)),
        (*passes_of(longest, lengths, rows), _pass_seconds(long)),
    )
    times = PassTimes.per_position_of(*measured) if by_tokens else PassTimes.of(*measured)
    first_of_shape = [
        _pass_seconds([split]) - times.seconds(*passes_of(batch, lengths, rows))
        for batch, split in zip(some, splits[num_long - 1 :], strict=False)
    ]
    left_by_shapes = ladder.by_step[-1] - ladder.by_step[num_long - 1]
    training_peak = found.peak_bytes + round(left_by_shapes * (len(shapes) / len(some) - 1))
    return Passes(
        times=times,
        forward_share=median(split.forward / (split.forward + split.backward) for split in long),
        optimizer_seconds=median(split.optimizer for split in (*long, *short)),
        new_shape_seconds=max(median(first_of_shape), 0.0),
        rows_at_once=rows,
        longest=(len(longest), _widest(longest, lengths)),
        by_tokens=by_tokens,
        peak_bytes=max(before.num_bytes, training_peak),
        training_peak_bytes=training_peak,
        total_bytes=ladder.total_bytes,
        how=before.how,
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

    @property
    def most_sizes(self) -> int:
        """Steps until the whole batch has been run, at most."""
        return 2 + math.ceil(math.log2(self.longest_rows))

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


class InOrder(Sampler[list[int]]):
    """The batches as they are named."""

    def __init__(self, batches: Sequence[Batch]) -> None:
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[int]]:
        return map(list, self.batches)


def _whole(batches: Sequence[Batch], lengths: Sequence[int], by_tokens: bool) -> list[Batch]:
    """Those that are not what was left over, the one that needs the most memory last."""
    heaviest = max(batches, key=lambda batch: _positions(batch, lengths))
    if by_tokens:
        # All of nearly one size: attention decides, which grows with the length of a row.
        least = ALIKE * _positions(heaviest, lengths)
        alike = [batch for batch in batches if _positions(batch, lengths) >= least]
        return sorted(alike, key=lambda batch: _widest(batch, lengths))
    return sorted(
        (batch for batch in batches if len(batch) == len(heaviest)), key=lambda batch: _positions(batch, lengths)
    )


def _positions(batch: Batch, lengths: Sequence[int]) -> int:
    return passes_of(batch, lengths, len(batch))[1]


def _widest(batch: Batch, lengths: Sequence[int]) -> int:
    return max(lengths[row] for row in batch)


def _pass_seconds(splits: Sequence[StepSplit]) -> float:
    return median(split.data + split.forward + split.backward for split in splits)


def _probe_recipe(recipe: Recipe, batch_size: int, num_steps: int) -> Recipe:
    """The recipe's passes without anything else; the weights that they leave are of no use and hardly move."""
    values = recipe_values(recipe)
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
