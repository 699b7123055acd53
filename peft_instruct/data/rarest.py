"""Which texts share their rarest words and pairs of words: the only ones that can be near-duplicates.

Two near-duplicates x and y share k of the |x| - ceil(NEAR |x|) + k rarest features of x, and so of y (Chaudhuri, Ganti
and Kaushik, A Primitive Operator for Similarity Joins in Data Cleaning, 2006, for k = 1). Features that very many texts
have are left out where the others find every pair, and cut where they do not.
"""

# R texts, W words of all of them, F features of all of them, E features by which texts are looked up

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby, pairwise
from operator import itemgetter

import numpy as np

from peft_instruct.data.table import ranges

NEAR = 0.7
"""Least similarity of near-duplicates."""
MOST_COMPARED = 1000
"""Candidates of a row that are compared exactly, and earlier rows that a feature brings; only data of one template has
more."""
LEAST_SHARED = 4
_AT_ONCE = 1 << 20
"""Features, or pairs of texts, that are worked on at once: 8 MB an array."""
_WORD_BITS = 26
_COUNT_PLACE = 2 * _WORD_BITS + 1
"""A key is a word's number, the next word's and how often the two come; so many words do not fit into memory."""
_COUNT_STEPS = 50
_MOST_STEPS = (1 << (63 - _COUNT_PLACE)) - 1
"""What is left of the key, its sign aside: features that come more than 1.4 million times are equally common."""
_HASH_BITS = 22
_ROUNDING = 1e-9
"""0.7 * 30 is 21."""
_MIX = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True)
class Features:
    """Sets of words and neighbouring pairs of words.

    Attributes:
        keys: of every text, the rarest first, (F,) int64; a key's first bits say how often its feature comes.
        starts: where each text's begin, (R,) int64.
        sizes: how many each text has, (R,) int64.
    """

    keys: np.ndarray
    starts: np.ndarray
    sizes: np.ndarray

    @classmethod
    def of(cls, words_W: np.ndarray, ends: np.ndarray) -> Features:
        """Of texts as numbers of words, and where each of them ends, from 0 on, (R + 1,) int64."""
        keys = np.repeat(words_W.astype(np.int64), 2)
        keys[1:-1:2] |= (keys[2::2] + 1) << _WORD_BITS
        # Behind the last word of a text is no pair, but that word again, which a set has once.
        keys[2 * ends[1:] - 1] = words_W[ends[1:] - 1]
        _put_rarity(keys)
        for start, end in pairwise((2 * ends).tolist()):
            keys[start:end].sort()
        is_new = np.append(True, keys[1:] != keys[:-1])
        is_new[2 * ends[:-1]] = True
        sizes = np.add.reduceat(is_new, 2 * ends[:-1], dtype=np.int64)
        return cls(keys[is_new], np.cumsum(sizes) - sizes, sizes)

    def __getitem__(self, place: int) -> list[int]:
        start = self.starts[place]
        found: list[int] = self.keys[start : start + self.sizes[place]].tolist()
        return found

    @property
    def num_rarest(self) -> np.ndarray:
        """Of how many features of each text near-duplicates share `LEAST_SHARED`, (R,) int64."""
        return np.minimum(self.sizes, self.sizes - _least(self.sizes) + LEAST_SHARED)

    def rarest(self) -> tuple[np.ndarray, np.ndarray]:
        """Texts, ascending, and each one's rarest features, both (E,)."""
        texts_E = np.repeat(np.arange(len(self.sizes)), self.num_rarest)
        keys_E = self.keys[ranges(self.starts, self.num_rarest)]
        comes_again = keys_E >> _COUNT_PLACE > 0
        return texts_E[comes_again], keys_E[comes_again]


@dataclass(frozen=True)
class Lookup:
    """The earlier texts that each of a text's rarest features brings.

    Attributes:
        sizes: how many features each text has, (R,) int64.
        texts: whose feature it is, ascending, (E,) int64.
        having: texts by feature, those of one feature ascending, (E,) int64.
        ends: before which place of `having` those that a feature brings end, (E,) int64.
        counts: how many they are, (E,) int64.
        num_cut: how many features of each text more than `MOST_COMPARED` earlier ones have, (R,) int64.
        last_keys, num_behind: where each text's rarest features end, and how many are behind them, (R,) int64.
    """

    sizes: np.ndarray
    texts: np.ndarray
    having: np.ndarray
    ends: np.ndarray
    counts: np.ndarray
    num_cut: np.ndarray
    last_keys: np.ndarray
    num_behind: np.ndarray

    @classmethod
    def of(cls, features: Features) -> Lookup:
        texts_E, keys_E = features.rarest()
        by_key = np.argsort(keys_E, kind="stable")
        begins = np.append(True, np.diff(keys_E[by_key]) > 0)[: len(by_key)]
        ends = np.empty_like(by_key)
        ends[by_key] = np.arange(len(by_key))
        counts = ends - np.flatnonzero(begins)[np.cumsum(begins) - 1][ends]
        is_cut = counts > MOST_COMPARED
        num_cut = np.bincount(texts_E[is_cut], minlength=len(features.sizes))
        num_rarest = features.num_rarest
        last_keys = features.keys[features.starts + num_rarest - 1]
        num_behind = features.sizes - num_rarest
        found = cls(features.sizes, texts_E, texts_E[by_key], ends, counts, num_cut, last_keys, num_behind)
        # Where the other features find every near-duplicate, these bring no text.
        counts[is_cut] = np.where(found.is_capped[texts_E[is_cut]], MOST_COMPARED, 0)
        return found

    @property
    def is_capped(self) -> np.ndarray:
        """Whether a near-duplicate of each text may share none but features that are cut, (R,) bool."""
        return self.num_cut >= np.minimum(_least(self.sizes), LEAST_SHARED)

    def candidates(self) -> Iterator[tuple[int, list[int], bool]]:
        """Texts with earlier ones, ascending, that may be near-duplicates of them, and whether these are all it found.

        If not, they are the `MOST_COMPARED` that share the most features.
        """
        num_texts = len(self.sizes)
        for some in self._batches():
            together = num_texts * np.repeat(self.texts[some], self.counts[some])
            together += self.having[ranges(self.ends[some] - self.counts[some], self.counts[some])]
            pairs, num_shared = np.unique(together, return_counts=True)
            seconds, firsts = np.divmod(pairs, num_texts)
            two_sizes = self.sizes[seconds], self.sizes[firsts]
            are_alike = np.minimum(*two_sizes) >= NEAR * np.maximum(*two_sizes)
            are_near = are_alike & (num_shared >= self._least_shared(firsts, seconds))
            near = np.flatnonzero(are_near)
            near = near[np.lexsort((-num_shared[near], seconds[near]))]
            of_seconds = zip(seconds[near].tolist(), firsts[near].tolist(), strict=True)
            for second, found in groupby(of_seconds, key=itemgetter(0)):
                earlier = [first for _, first in found]
                yield second, sorted(earlier[:MOST_COMPARED]), len(earlier) <= MOST_COMPARED

    def _least_shared(self, firsts: np.ndarray, seconds: np.ndarray) -> np.ndarray:
        """How many of their rarest features pairs of texts share at least if they are near-duplicates.

        Where the rarest features of one text end before those of the other, what is shared is among the rarest of both
        or behind those of the one (Xiao et al., Efficient Similarity Joins for Near Duplicate Detection, 2008).
        """
        end_first = np.where(self.last_keys[firsts] < self.last_keys[seconds], firsts, seconds)
        least = np.ceil(NEAR / (1 + NEAR) * (self.sizes[firsts] + self.sizes[seconds]) - _ROUNDING)
        return least - self.num_behind[end_first] - self.num_cut[seconds]

    def _batches(self) -> Iterator[slice]:
        """Features of whole texts that bring `_AT_ONCE` texts together at most, or of one text."""
        starts = np.searchsorted(self.texts, np.arange(len(self.sizes) + 1))
        num_before = np.append(0, np.cumsum(self.counts))[starts]
        first = 0
        while first < len(self.sizes):
            fitting = int(np.searchsorted(num_before, num_before[first] + _AT_ONCE, side="right")) - 1
            last = max(fitting, first + 1)
            yield slice(starts[first], starts[last])
            first = last


def _put_rarity(keys: np.ndarray) -> None:
    """How often each key comes, in steps, in front of its own bits."""
    # Counted by hash: how rare a feature is need only be the same in every text.
    num_bits = min(len(keys).bit_length() + 2, _HASH_BITS)
    parts = [keys[start : start + _AT_ONCE] for start in range(0, len(keys), _AT_ONCE)]

    def hashes(part: np.ndarray) -> np.ndarray:
        return ((part.view(np.uint64) * _MIX) >> np.uint64(64 - num_bits)).view(np.int64)

    counts = np.zeros(1 << num_bits, np.int64)
    for part in parts:
        np.add.at(counts, hashes(part), 1)
    steps = (_COUNT_STEPS * np.log2(np.maximum(np.arange(counts.max(initial=0) + 1), 1))).astype(np.int64)
    steps = np.minimum(steps, _MOST_STEPS) << _COUNT_PLACE
    for part in parts:
        part |= steps[counts[hashes(part)]]


def _least(sizes: np.ndarray) -> np.ndarray:
    """How many features a text of that size shares with a near-duplicate at least."""
    return np.ceil(NEAR * sizes - _ROUNDING).astype(np.int64)
