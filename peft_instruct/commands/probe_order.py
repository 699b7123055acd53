"""Which batches of a run a dry run trains on, and in which order."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch.utils.data import Sampler

from peft_instruct.bench.prediction import most_sizes
from peft_instruct.evaluation.scores import evenly
from peft_instruct.model.joined_rows import MULTIPLE
from peft_instruct.training.plan import Batch, passes_of

NUM_TIMED = 3
"""Steps of a kind whose median counts, after one that does not."""
ALIKE = 0.75
"""Of the positions of the largest batch by tokens; smaller ones are what was left over."""
MOST_SHAPES = 8
"""Shapes of batches that are run once each: kernels are compiled for a new one, and the memory of both stays."""


@dataclass(frozen=True)
class ProbeOrder:
    """The batches of a run that a probe runs, one a step.

    Attributes:
        longest: the one that needs the most memory. It comes first, in growing parts as far as memory goes, and once
            more at the end, upon what the others have left in memory.
        typical: the median one, after the others.
        some: one each of up to MOST_SHAPES shapes, after the longest.
        num_shapes: of the whole run.
        num_first: steps that the first runs of the longest take.
    """

    longest: Batch
    typical: Batch
    some: Sequence[Batch]
    num_shapes: int
    num_first: int

    @classmethod
    def of(cls, batches: Sequence[Batch], lengths: Sequence[int], by_tokens: bool, joins: bool) -> ProbeOrder:
        """`joins`: rows follow one another without padding, so that their tokens are the shape."""
        whole = _whole(batches, lengths, by_tokens)
        shapes = {_shape(batch, lengths, joins): batch for batch in whole}
        longest, typical = whole[-1], whole[len(whole) // 2]
        return cls(
            longest,
            typical,
            evenly(list(shapes.values()), MOST_SHAPES),
            len(shapes),
            most_sizes(len(longest)) + NUM_TIMED,
        )

    def batches(self) -> list[Batch]:
        return [*[self.longest] * self.num_first, *self.some, *[self.typical] * (1 + NUM_TIMED), self.longest]


class InOrder(Sampler[list[int]]):
    """The batches as they are named."""

    def __init__(self, batches: Sequence[Batch]) -> None:
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[int]]:
        return map(list, self.batches)


def _positions(batch: Batch, lengths: Sequence[int]) -> int:
    return passes_of(batch, lengths, len(batch))[1]


def _shape(batch: Batch, lengths: Sequence[int], joins: bool) -> tuple[int, ...]:
    if joins:
        return (math.ceil(sum(lengths[row] for row in batch) / MULTIPLE),)
    return len(batch), _positions(batch, lengths)


def widest(batch: Batch, lengths: Sequence[int]) -> int:
    return max(lengths[row] for row in batch)


def _whole(batches: Sequence[Batch], lengths: Sequence[int], by_tokens: bool) -> list[Batch]:
    """Those that are not what was left over, the one that needs the most memory last."""
    heaviest = max(batches, key=lambda batch: _positions(batch, lengths))
    if by_tokens:
        # All of nearly one size: attention decides, which grows with the length of a row.
        least = ALIKE * _positions(heaviest, lengths)
        alike = [batch for batch in batches if _positions(batch, lengths) >= least]
        return sorted(alike, key=lambda batch: widest(batch, lengths))
    return sorted(
        (batch for batch in batches if len(batch) == len(heaviest)), key=lambda batch: _positions(batch, lengths)
    )
