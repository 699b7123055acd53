"""Rows that say nearly the same: every pair, but of rows with very many look-alikes (rarest.py), which are counted.

Two rows are near-duplicates when the Jaccard similarity of their words and neighbouring pairs of words, case and
punctuation aside, is at least `NEAR`. Pairs of words keep `dog bites man` apart from `man bites dog`; single words
keep a short row with one word changed together with its original.
"""

# R texts, P pieces of them, W words of all of them

from __future__ import annotations

import re
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise

import numpy as np

from peft_instruct.data.rarest import NEAR, Features, Lookup
from peft_instruct.data.table import ranges
from peft_instruct.data.words import Words

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
        num_capped: texts that may have more look-alikes than were compared.
    """

    pairs: tuple[NearPair, ...]
    num_capped: int


def normal_form(text: str) -> str:
    """What two texts share that differ in case, punctuation and spacing alone."""
    return " ".join(_WORD.findall(text.casefold())) or text.strip()


def similarity(first: str, second: str) -> float:
    """What near-duplicates have at least `NEAR` of, of two texts in their normal forms."""
    own, other = ({*words, *pairwise(words)} for words in (first.split(" "), second.split(" ")))
    return len(own & other) / len(own | other)


def near_duplicates(texts: Sequence[str]) -> NearDuplicates:
    """Groups of near-duplicates, as pairs that link them."""
    if not texts:
        return NearDuplicates((), 0)
    words, ends = _spelled(texts)
    firsts = _firsts(words, ends)
    pairs = [NearPair(first, place, 1.0) for place, first in enumerate(firsts) if first != place]
    places = np.flatnonzero(firsts == np.arange(len(texts)))
    counts = np.diff(ends)[places]
    different, num_capped = _linked(Features.of(words[ranges(ends[places], counts)], np.append(0, np.cumsum(counts))))
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
    without = np.flatnonzero(np.diff(ends) == 0)
    signs = [numbers(texts[place].strip().split(" ")) for place in without.tolist()]
    added = np.zeros_like(ends)
    added[without + 1] = list(map(len, signs))
    words = np.insert(words, np.repeat(ends[:-1], added[1:]), list(chain.from_iterable(signs)))
    return words, ends + np.cumsum(added)


def _firsts(words: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """For each text the place of the first one of the same words, (R,)."""
    first_of: dict[bytes, int] = {}
    spelled = (words[start:end].tobytes() for start, end in pairwise(ends.tolist()))
    return np.array([first_of.setdefault(each, place) for place, each in enumerate(spelled)], np.int64)


def _linked(features: Features) -> tuple[list[NearPair], int]:
    """Links between different texts, and how many texts may have more look-alikes than were compared."""
    parents = Parents(len(features.sizes))
    pairs: list[NearPair] = []
    lookup = Lookup.of(features)
    capped = set(np.flatnonzero(lookup.is_capped).tolist())
    for place, candidates, are_all in lookup.candidates():
        if not are_all:
            capped.add(place)
        pairs += _links(place, candidates, parents, features)
    return pairs, len(capped)


def _links(place: int, candidates: list[int], parents: Parents, features: Features) -> list[NearPair]:
    """The most similar earlier text, and every one that joins another group."""
    own = set(features[place])
    near = []
    for other in candidates:
        theirs = features[other]
        num_shared = len(own.intersection(theirs))
        alike = num_shared / (len(own) + len(theirs) - num_shared)
        if alike >= NEAR:
            near.append(NearPair(other, place, alike))
    closest = max(near, key=lambda pair: pair.similarity, default=None)
    kept = []
    for pair in near:
        joins = parents.root(pair.first) != parents.root(pair.second)
        parents.join(pair.first, pair.second)
        kept += [pair] if joins or pair is closest else []
    return kept
