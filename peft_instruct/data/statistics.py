"""Figures of tokenised rows: their lengths, and how much of a batch is padding."""

from __future__ import annotations

import bisect
import random
from collections import Counter
from collections.abc import Iterable, Sequence

PERCENTILES = (0, 5, 25, 50, 75, 95, 99, 100)
NUM_BINS = 16
PREFIX_WORDS = 3


def percentiles(lengths: Sequence[int]) -> dict[str, int]:
    """The nearest-rank percentiles: the least length that this share of the rows does not exceed."""
    ordered = sorted(lengths)
    return {f"p{share}": ordered[max(-(-share * len(ordered) // 100) - 1, 0)] for share in PERCENTILES}


def histogram(lengths: Sequence[int], num_bins: int = NUM_BINS) -> list[tuple[int, int, int]]:
    """(first, last, rows) of bins of equal width from the shortest to the longest; together they hold every row."""
    low, high = min(lengths), max(lengths)
    width = -(-(high - low + 1) // num_bins)
    counts = Counter((length - low) // width for length in lengths)
    return [(low + n * width, low + (n + 1) * width - 1, counts[n]) for n in range(max(counts) + 1)]


def padded_fill(lengths: Sequence[int], batch_size: int) -> float:
    """Real tokens of all positions, where each batch is padded to its longest row, in the given order."""
    batches = [lengths[start : start + batch_size] for start in range(0, len(lengths), batch_size)]
    return sum(lengths) / sum(max(batch) * len(batch) for batch in batches)


def shuffled_fill(lengths: Sequence[int], batch_size: int, seed: int = 0) -> float:
    order = list(lengths)
    random.Random(seed).shuffle(order)
    return padded_fill(order, batch_size)


def bucketed_fill(lengths: Sequence[int], batch_size: int) -> float:
    """With rows of like length together, the longest first: with full batches, the most that any order can reach."""
    return padded_fill(sorted(lengths, reverse=True), batch_size)


def packed_fill(lengths: Iterable[int], length: int) -> float:
    """With rows packed into sequences of `length` by best fit, the longest first; a longer row is cut to it."""
    room: list[int] = []
    num_tokens = num_sequences = 0
    for needed in sorted((min(row, length) for row in lengths), reverse=True):
        num_tokens += needed
        at = bisect.bisect_left(room, needed)
        if at < len(room):
            left = room.pop(at) - needed
        else:
            num_sequences += 1
            left = length - needed
        if left:
            bisect.insort(room, left)
    return num_tokens / (num_sequences * length)


def top_prefixes(texts: Iterable[str], count: int = 10) -> list[tuple[str, int]]:
    """The commonest first words, case aside."""
    return Counter(" ".join(text.lower().split()[:PREFIX_WORDS]) for text in texts if text.strip()).most_common(count)
