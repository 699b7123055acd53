"""Rows that say nearly the same: every pair, found by its rarest words and confirmed by the exact similarity.

Two rows are near-duplicates when the Jaccard similarity of their words and neighbouring pairs of words, case and
punctuation aside, is at least `NEAR`. Pairs of words keep `dog bites man` apart from `man bites dog`; single words
keep a short row with one word changed together with its original.

Two such rows x and y share k of the |x| - ceil(NEAR |x|) + k rarest features of x, and so of y (Chaudhuri, Ganti and
Kaushik, A Primitive Operator for Similarity Joins in Data Cleaning, 2006, for k = 1): only rows that do are compared.
"""

# R texts, P pieces of them, W words of all of them, F features of all of them, E features by which texts are looked up

from __future__ import annotations

import re
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, groupby, pairwise

import numpy as np

from peft_instruct.data.table import ranges
from peft_instruct.data.words import Words

NEAR = 0.7
"""Least similarity of near-duplicates."""
MOST_COMPARED = 1000
"""Candidates of a row that are compared exactly; only data of one template has more."""
LEAST_SHARED = 4
_BATCH = 512
_WORD_BITS = 26
_COUNT_PLACE = 2 * _WORD_BITS + 1
"""A key is a word's number, the next word's and how often the two come; so many words do not fit into memory."""
_COUNT_STEPS = 50
_HASH_BITS = 22
_MIX = np.uint64(0x9E3779B97F4A7C15)

# Scripts without spaces between words: each character is a word. Hiragana to Han, Thai to Burmese, Khmer.
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
_WORD = re.compile(f"[{_UNSPACED}]|[^\\W{_UNSPACED}]+")


@dataclass(frozen=True)
class NearPair:
    """Places of two texts, the earlier one first, and their similarity."""

    first: int
    second: int
    similarity: float


@dataclass(frozen=True)
class NearDuplicates:
    """What links texts to groups.

    Attributes:
        pairs: of each text the most similar earlier one, and enough to connect every group; ordered by `second`.
        num_capped: texts with more look-alikes than were compared.
    """

    pairs: tuple[NearPair, ...]
    num_capped: int


def normal_form(text: str) -> str:
    """What two texts share that differ in case, punctuation and spacing alone."""
    return " ".join(_WORD.findall(text.casefold())) or text.strip()


def near_duplicates(texts: Sequence[str]) -> NearDuplicates:
    """Every group of near-duplicates, as pairs that link it."""
    if not texts:
        return NearDuplicates((), 0)
    words, ends = _spelled(texts)
    firsts = _firsts(words, ends)
    pairs = [NearPair(first, place, 1.0) for place, first in enumerate(firsts) if first != place]
    places = np.flatnonzero(firsts == np.arange(len(texts)))
    counts = np.diff(ends)[places]
    different, num_capped = _linked(_Features.of(words[ranges(ends[places], counts)], np.append(0, np.cumsum(counts))))
    pairs += [NearPair(int(places[pair.first]), int(places[pair.second]), pair.similarity) for pair in different]
    return NearDuplicates(tuple(sorted(pairs, key=lambda pair: (pair.second, pair.first))), num_capped)


def first_alike(texts: Sequence[str]) -> list[int]:
    """For each text the place of the first one of the same normal form."""
    found: list[int] = _firsts(*_spelled(texts)).tolist()
    return found


def groups_of(num_texts: int, pairs: Iterable[NearPair]) -> list[int]:
    """The group of each text, named by the place of its first member."""
    parents = Parents(num_texts)
    for pair in pairs:
        parents.join(pair.first, pair.second)
    return [parents.root(place) for place in range(num_texts)]


class Parents:
    """Union-find; the root of a group is its first member."""

    def __init__(self, count: int) -> None:
        self._parents = list(range(count))

    def root(self, place: int) -> int:
        parents = self._parents
        while parents[place] != place:
            parents[place] = parents[parents[place]]
            place = parents[place]
        return place

    def join(self, first: int, second: int) -> None:
        low, high = sorted((self.root(first), self.root(second)))
        self._parents[high] = low


def _spelled(texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """The words of the normal form of every text as numbers, (W,) int64, and where each text's end, (R + 1,) from 0."""
    pieces = Words.of(texts)
    vocabulary: dict[str, int] = {}

    def numbers(words: Iterable[str]) -> list[int]:
        return [vocabulary.setdefault(word, len(vocabulary)) for word in words]

    of_pieces, starts = array("q"), array("q", [0])
    for piece in pieces.distinct:
        of_pieces.extend(numbers(_WORD.findall(piece.casefold())))
        starts.append(len(of_pieces))
    counts_P = np.diff(starts)[pieces.numbers]
    words = np.array(of_pieces, np.int64)[ranges(np.array(starts)[pieces.numbers], counts_P)]
    ends = np.append(0, np.cumsum(counts_P))[pieces.ends]
    without = np.flatnonzero(np.diff(ends) == 0).tolist()
    signs = [numbers(texts[place].strip().split(" ")) for place in without]
    words = np.insert(words, np.repeat(ends[without], list(map(len, signs))), list(chain.from_iterable(signs)))
    for place, those in zip(without, signs, strict=True):
        ends[place + 1 :] += len(those)
    return words, ends


def _firsts(words: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """For each text the place of the first one of the same words, (R,)."""
    first_of: dict[bytes, int] = {}
    spelled = (words[start:end].tobytes() for start, end in pairwise(ends.tolist()))
    return np.array([first_of.setdefault(each, place) for place, each in enumerate(spelled)], np.int64)


@dataclass(frozen=True)
class _Features:
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
    def of(cls, words_W: np.ndarray, ends: np.ndarray) -> _Features:
        """Of texts as numbers of words, and where each of them ends, from 0 on, (R + 1,) int64."""
        keys = np.repeat(words_W, 2)
        keys[1:-1:2] |= (words_W[1:] + 1) << _WORD_BITS
        # Behind the last word of a text is no pair, but that word again, which a set has once.
        keys[2 * ends[1:] - 1] = words_W[ends[1:] - 1]
        # Counted by hash: how rare a feature is need only be the same in every text.
        hashes = ((keys.view(np.uint64) * _MIX) >> np.uint64(64 - _HASH_BITS)).view(np.int64)
        counts = np.bincount(hashes)[hashes]
        steps = (_COUNT_STEPS * np.log2(np.arange(1, counts.max() + 1))).astype(np.int64)
        keys |= steps[counts - 1] << _COUNT_PLACE
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

    def candidates(self) -> Iterator[tuple[int, list[int], bool]]:
        """Texts with the earlier ones, ascending, that may be near-duplicates of them, and whether there are more."""
        num_texts = len(self.sizes)
        texts_E, keys_E = self._rarest()
        by_key = np.argsort(keys_E, kind="stable")
        having = texts_E[by_key]
        begins = np.append(True, np.diff(keys_E[by_key]) > 0)[: len(by_key)]
        own = np.empty_like(by_key)
        own[by_key] = np.arange(len(by_key))
        num_earlier = own - np.flatnonzero(begins)[np.cumsum(begins) - 1][own]
        counts = np.minimum(num_earlier, MOST_COMPARED)
        for first in range(0, num_texts, _BATCH):
            some = slice(*np.searchsorted(texts_E, (first, first + _BATCH)))
            together = num_texts * np.repeat(texts_E[some], counts[some])
            together += having[ranges(own[some] - counts[some], counts[some])]
            pairs, num_shared = np.unique(together, return_counts=True)
            sizes = np.sort([self.sizes[pairs // num_texts], self.sizes[pairs % num_texts]], axis=0)
            near = (sizes[0] >= NEAR * sizes[1]) & (num_shared >= np.minimum(_least(sizes[1]), LEAST_SHARED))
            capped = set(texts_E[some][num_earlier[some] > MOST_COMPARED].tolist())
            for second, found in groupby(pairs[near].tolist(), key=lambda pair: pair // num_texts):
                yield second, [pair % num_texts for pair in found], second in capped

    def _rarest(self) -> tuple[np.ndarray, np.ndarray]:
        """Texts, ascending, and each one's features of which near-duplicates share `LEAST_SHARED`, both (E,)."""
        counts = np.minimum(self.sizes, self.sizes - _least(self.sizes) + LEAST_SHARED)
        texts_E = np.repeat(np.arange(len(self.sizes)), counts)
        keys_E = self.keys[ranges(self.starts, counts)]
        comes_again = keys_E >> _COUNT_PLACE > 0
        return texts_E[comes_again], keys_E[comes_again]


def _least(sizes: np.ndarray) -> np.ndarray:
    """How many features a text of that size shares with a near-duplicate at least."""
    return np.ceil(NEAR * sizes - 1e-9).astype(np.int64)  # 0.7 * 30 is 21


def _linked(features: _Features) -> tuple[list[NearPair], int]:
    """Links between different texts, and how many texts had more candidates than were compared."""
    parents = Parents(len(features.sizes))
    pairs: list[NearPair] = []
    num_capped = 0
    for place, candidates, is_capped in features.candidates():
        num_capped += is_capped or len(candidates) > MOST_COMPARED
        compared = candidates[:: -(-len(candidates) // MOST_COMPARED)]
        pairs += _links(place, compared, parents, features)
    return pairs, num_capped


def _links(place: int, candidates: list[int], parents: Parents, features: _Features) -> list[NearPair]:
    """The most similar earlier text, and every one that joins another group."""
    own = set(features[place])
    near = []
    for other in candidates:
        theirs = features[other]
        num_shared = len(own.intersection(theirs))
        similarity = num_shared / (len(own) + len(theirs) - num_shared)
        if similarity >= NEAR:
            near.append(NearPair(other, place, similarity))
    closest = max(near, key=lambda pair: pair.similarity, default=None)
    kept = []
    for pair in near:
        joins = parents.root(pair.first) != parents.root(pair.second)
        parents.join(pair.first, pair.second)
        kept += [pair] if joins or pair is closest else []
    return kept
