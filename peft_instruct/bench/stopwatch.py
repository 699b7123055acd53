"""Times the steps of a trainer and counts the tokens that were in them."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from transformers import PreTrainedModel, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from peft_instruct.bench.flops import TokenCounts
from peft_instruct.data.types import IGNORED_LABEL
from peft_instruct.model.device import synchronize
from peft_instruct.model.joined_rows import JoinedRows

Collator = Callable[[Sequence[dict[str, Any]]], Any]


@dataclass(frozen=True)
class Step:
    """One optimizer step.

    Attributes:
        seconds: from the end of the step before to the end of this one, so that fetching and collating the rows is
            in it, as it is in a user's run; the first step counts from its own beginning.
    """

    seconds: float
    counts: TokenCounts


@dataclass(frozen=True)
class StepSplit:
    """Where the seconds of one optimizer step went; together they are the step.

    Attributes:
        data: fetching and collating rows, and what the trainer does between steps.
        forward: from a batch to its loss.
        optimizer: clipping, the update, the schedule, and what callbacks do.
    """

    data: float
    forward: float
    backward: float
    optimizer: float


class Stopwatch(TrainerCallback):
    """Reads the clock when the device has finished a step; tokens are counted where rows become batches.

    Give `counting(trainer.data_collator)` to the trainer in the collator's place. Batches come out of a DataLoader in
    the order they were collated, a batch or so ahead of their step, so a queue puts each with its step.

    Attributes:
        splits: of the steps that `split` asked for.
    """

    def __init__(self, device: str, clock: Callable[[], float] = time.perf_counter) -> None:
        self.device = device
        self.clock = clock
        self.steps: list[Step] = []
        self.splits: list[StepSplit] = []
        self._split_after: int | None = None
        self._marks: dict[str, float] = {}
        self._mark: float | None = None
        self._collated: deque[TokenCounts] = deque()
        # Rows and positions of each pass, and where rows are joined, how.
        self._given: deque[tuple[int, int, JoinedRows | None]] = deque()
        self._num_batches = 0
        self._last_end: float | None = None

    def counting(self, collator: Collator) -> Collator:
        """The collator, with each batch counted; rows need `input_ids` and `labels`."""

        def collate(rows: Sequence[dict[str, Any]]) -> Any:
            batch = collator(rows)
            self._collated.append(count_tokens(rows, batch["input_ids"].numel()))
            return batch

        return collate

    def watch(self, model: Any) -> None:
        """See what a model is given: fewer tokens than the batch holds where its rows share a preamble."""
        whole = next(module for module in model.modules() if isinstance(module, PreTrainedModel))

        def see(module: Any, args: Any, kwargs: dict[str, Any]) -> None:
            ids, joined = kwargs.get("input_ids", *args[:1]), kwargs.get("joined_rows")
            self._given.append((*ids.shape, joined))

        whole.base_model.register_forward_pre_hook(see, with_kwargs=True)

    def split(self, trainer: Any, after: int) -> None:
        """Look into the steps of a trainer after the first `after`, which are not to be disturbed.

        A device is waited for between the parts, so these steps may take longer than the others.
        """
        self._split_after = after
        step, backward = trainer.training_step, trainer.accelerator.backward

        def training_step(*args: Any, **kwargs: Any) -> Any:
            self._part_ends("data")
            loss = step(*args, **kwargs)
            self._part_ends("backward")
            return loss

        def timed_backward(*args: Any, **kwargs: Any) -> None:
            self._part_ends("forward")
            backward(*args, **kwargs)
            self._part_ends("backward")  # of this pass; a step may have several

        trainer.training_step, trainer.accelerator.backward = training_step, timed_backward

    def _part_ends(self, part: str) -> None:
        if self._mark is not None:
            synchronize(self.device)
            now = self.clock()
            self._marks[part] = self._marks.get(part, 0.0) + now - self._mark
            self._mark = now

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._num_batches = 1
        if self._last_end is None:
            synchronize(self.device)
            self._last_end = self.clock()

    def on_substep_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._num_batches += 1

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        synchronize(self.device)
        now = self.clock()
        assert self._last_end is not None
        counts = sum((self._next_batch() for _ in range(self._num_batches)), TokenCounts())
        self.steps.append(Step(now - self._last_end, counts))
        if self._mark is not None:
            self.splits.append(StepSplit(**self._marks, optimizer=now - self._mark))
        if self._split_after is not None and len(self.steps) >= self._split_after:
            self._mark, self._marks = now, {}
        self._last_end = now

    def _next_batch(self) -> TokenCounts:
        counts = self._collated.popleft()
        if not self._given:
            return counts
        rows, width, joined = self._given.popleft()
        if joined is not None:
            spared = [(len(kind.rows) - 1, kind.num_shared) for kind in joined.kinds]
        elif rows * width == counts.num_positions:
            return counts
        else:
            # The preamble of one row, then what each row has of its own.
            spared = [(self._given.popleft()[0] - 1, width)]
        return replace(
            counts,
            num_spared=sum(others * shared for others, shared in spared),
            num_spared_pairs=sum(others * shared * (shared + 1) // 2 for others, shared in spared),
        )


def count_tokens(rows: Sequence[dict[str, Any]], num_positions: int) -> TokenCounts:
    """Counts of one batch, from its rows before padding."""
    lengths = [len(row["input_ids"]) for row in rows]
    learned = sum(label != IGNORED_LABEL for row in rows for label in row["labels"][1:])
    pairs = sum(length * (length + 1) // 2 for length in lengths)
    return TokenCounts(sum(lengths), int(learned), num_positions, pairs)
