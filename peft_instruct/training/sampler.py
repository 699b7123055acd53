"""The order of rows: shuffled, in batches of like lengths, the same wherever a seed and an epoch are asked for."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

from torch.utils.data import Sampler

MOST_STEPS_PER_WINDOW = 50
LEAST_WINDOWS = 8
"""Rows are sorted by length inside windows of this many steps, and an epoch has at least so many windows: of few rows,
always the same would meet in a step, and where length goes with the kind of task the loss suffers (measured)."""


class LengthBucketSampler(Sampler[int]):
    """Row numbers in which the rows of one optimizer step have nearly one length.

    The order depends on (seed, epoch) alone: a resumed run skips the batches it has seen and goes on with the very
    rows that were next (transformers' group_by_length draws from the global random state and does not).

    Args:
        lengths: of all rows, in tokens.
        rows_per_step: of one optimizer step, all forward passes and processes together: halving the micro-batch does
            not change the order.
    """

    def __init__(self, lengths: Sequence[int], rows_per_step: int, *, seed: int) -> None:
        self.lengths = lengths
        self.rows_per_step = rows_per_step
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Called by accelerate's dataloader before each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        stream = random.Random(f"{self.seed}:{self.epoch}")
        order = list(range(len(self.lengths)))
        stream.shuffle(order)
        # What fills no step comes last, as batches are cut from this order one after the other.
        num_whole = len(order) - len(order) % self.rows_per_step
        num_steps = num_whole // self.rows_per_step
        rows_per_window = self.rows_per_step * max(1, min(MOST_STEPS_PER_WINDOW, num_steps // LEAST_WINDOWS))
        steps = []
        for start in range(0, num_whole, rows_per_window):
            window = order[start : min(start + rows_per_window, num_whole)]
            window.sort(key=self.lengths.__getitem__)
            steps += [window[at : at + self.rows_per_step] for at in range(0, len(window), self.rows_per_step)]
        stream.shuffle(steps)
        for rows in steps:
            yield from rows
        yield from order[num_whole:]
