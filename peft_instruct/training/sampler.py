"""The order of rows: shuffled, in batches of like lengths, the same wherever a seed and an epoch are asked for.

The largest step of the first epoch comes first: what does not fit into memory is known at once, and what that step
frees is most of what the others need. A step that needs more than all before it waits for pages which the system has
to empty first: in a virtual machine that took a tenth of the first 20 steps of GPT-2 124M.
"""

from __future__ import annotations

import random
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate, islice, product
from typing import TypeVar

from torch.utils.data import Sampler

MOST_STEPS_PER_WINDOW = 50
LEAST_WINDOWS = 8
"""Rows are sorted by length inside windows of this many steps, and an epoch has at least so many windows: of few rows,
always the same would meet in a step, and where length goes with the kind of task the loss suffers (measured)."""

Step = TypeVar("Step")


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
        if self.epoch == 0:
            _largest_first(steps, lambda rows: self.lengths[rows[-1]])
        for rows in steps:
            yield from rows
        yield from order[num_whole:]


class TokenBudgetSampler(Sampler[list[int]]):
    """Batches of rows of like length, each of at most `budget` tokens with its padding, or of one longer row.

    The Trainer must know the number of steps before it begins, so every epoch has the same number of batches: rows are
    sorted, groups of neighbours are dealt to windows, a row of each group to a window, in an order that (seed, epoch)
    decide; and every window is cut where the longest rows of the groups would fill a batch, at the same positions in
    all windows and epochs.

    Args:
        lengths: of all rows, in tokens.
        budget: tokens of one forward pass, rows times the width of the batch.
        padded_to: the width of a batch is a multiple of this.
        batches_per_step: of one process.
        num_processes: that take turns; their batches of one pass are neighbours in length.
    """

    def __init__(
        self,
        lengths: Sequence[int],
        budget: int,
        *,
        seed: int,
        padded_to: int = 1,
        batches_per_step: int = 1,
        num_processes: int = 1,
    ) -> None:
        self.lengths, self.seed, self.num_processes = lengths, seed, num_processes
        self.epoch = 0
        widths = sorted(length + -length % padded_to for length in lengths)
        num_steps = sum(widths) // (budget * batches_per_step * num_processes)
        num_windows = num_steps // max(1, min(MOST_STEPS_PER_WINDOW, num_steps // LEAST_WINDOWS))
        self.num_windows = min(max(1, num_windows), len(widths))
        # The first group, of the shortest rows, may be too small to give one to every window.
        num_short = len(widths) % self.num_windows
        self.group_sizes = [num_short] * bool(num_short) + [self.num_windows] * (len(widths) // self.num_windows)
        bounds = [widths[end - 1] for end in accumulate(self.group_sizes)]
        fewest = len(_cuts(bounds, budget))
        # Of the budgets that give so few batches the least: no batch is much smaller than the others.
        balanced = bisect_left(range(budget), True, key=lambda tokens: len(_cuts(bounds, tokens)) <= fewest)
        self.cuts = _cuts(bounds, balanced)
        num_absent = self.num_windows - num_short if num_short and len(self.cuts[0]) == 1 else 0
        self.num_batches = self.num_windows * len(self.cuts) - num_absent

    def set_epoch(self, epoch: int) -> None:
        """Called by accelerate's dataloader, and by the Trainer, before each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.num_batches

    def __iter__(self) -> Iterator[list[int]]:
        stream = random.Random(f"{self.seed}:{self.epoch}")
        order = list(range(len(self.lengths)))
        stream.shuffle(order)
        order.sort(key=self.lengths.__getitem__)
        rows = iter(order)
        # [position][window]; None where the group had no row for a window.
        dealt: list[list[int | None]] = []
        for size in self.group_sizes:
            group = [*islice(rows, size), *[None] * (self.num_windows - size)]
            stream.shuffle(group)
            dealt.append(group)
        places = product(self.cuts, range(self.num_windows))
        found = ([dealt[position][window] for position in cut] for cut, window in places)
        batches = [[row for row in batch if row is not None] for batch in found]
        batches = [batch for batch in batches if batch]
        # What gives no batch to some process comes last: the shortest rows.
        num_left = len(batches) % self.num_processes
        turns = [batches[at : at + self.num_processes] for at in range(num_left, len(batches), self.num_processes)]
        stream.shuffle(turns)
        if self.epoch == 0:
            _largest_first(turns, lambda turn: max(len(batch) * self.lengths[batch[-1]] for batch in turn))
        for turn in turns:
            yield from turn
        yield from batches[:num_left]


def _largest_first(steps: list[Step], size: Callable[[Step], int]) -> None:
    """Changes places with the first one; within a step rows rise in length."""
    if steps:
        largest = max(range(len(steps)), key=lambda at: size(steps[at]))
        steps[0], steps[largest] = steps[largest], steps[0]


def _cuts(widths: Sequence[int], budget: int) -> list[range]:
    """Places cut one after the other into as few ranges as keep (number of places x greatest width) in the budget.

    Args:
        widths: by place, rising; a place that is wider than the budget is a range of its own.
    """
    cuts, start = [], 0
    for end in range(1, len(widths) + 1):
        if end == len(widths) or (end + 1 - start) * widths[end] > budget:
            cuts.append(range(start, end))
            start = end
    return cuts
