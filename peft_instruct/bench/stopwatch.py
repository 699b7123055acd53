"""Times the steps of a trainer and counts the tokens that were in them."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from peft_instruct.bench.flops import TokenCounts
from peft_instruct.data.types import IGNORED_LABEL
from peft_instruct.model.device import synchronize

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


class Stopwatch(TrainerCallback):
    """Reads the clock when the device has finished a step; tokens are counted where rows become batches.

    Give `counting(trainer.data_collator)` to the trainer in the collator's place. Batches come out of a DataLoader in
    the order they were collated, a batch or so ahead of their step, so a queue puts each with its step.
    """

    def __init__(self, device: str, clock: Callable[[], float] = time.perf_counter) -> None:
        self.device = device
        self.clock = clock
        self.steps: list[Step] = []
        self._collated: deque[TokenCounts] = deque()
        self._num_batches = 0
        self._last_end: float | None = None

    def counting(self, collator: Collator) -> Collator:
        """The collator, with each batch counted; rows need `input_ids` and `labels`."""

        def collate(rows: Sequence[dict[str, Any]]) -> Any:
            batch = collator(rows)
            self._collated.append(count_tokens(rows, batch["input_ids"].numel()))
            return batch

        return collate

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
        counts = sum((self._collated.popleft() for _ in range(self._num_batches)), TokenCounts())
        self.steps.append(Step(now - self._last_end, counts))
        self._last_end = now


def count_tokens(rows: Sequence[dict[str, Any]], num_positions: int) -> TokenCounts:
    """Counts of one batch, from its rows before padding."""
    lengths = [len(row["input_ids"]) for row in rows]
    learned = sum(label != IGNORED_LABEL for row in rows for label in row["labels"][1:])
    pairs = sum(length * (length + 1) // 2 for length in lengths)
    return TokenCounts(sum(lengths), int(learned), num_positions, pairs)
