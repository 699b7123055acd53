"""Rows that say nearly the same: every pair, but of rows with very many look-alikes (rarest.py), which are counted.

Two rows are near-duplicates when the Jaccard similarity of their words and neighbouring pairs of words, case and
punctuation aside, is at least `NEAR`. Pairs of words keep `dog bites man` apart from `man bites dog`; single words
keep a short row with one word changed together with its original.
"""

# R texts, W words of all of them

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise

import numpy as np

from peft_instruct.data.rarest import NEAR, Features, Lookup
from peft_instruct.data.table import ranges
from peft_instruct.data.words import Words, different, texts_of, utf8

# Scripts without spaces between words: each character is a word. Hiragana to Han, Thai to Burmese, Khmer.
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
_WORD = re.compile(f"[{_UNSPACED}]|[^\\W{_UNSPACED}]+")
_BREAK = "\0"
_WORD_OR_BREAK = re.compile(f"{_BREAK}|{_WORD.pattern}")


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


@dataclass(frozen=True)
class Spelled:
    """The normal forms of texts, their words as numbers.

    Attributes:
        words: of all texts, (W,) int32.
        starts, ends: where each text's begin and end, (R,) int64; of a blank one, in one place.
    """

    words: np.ndarray
    starts: np.ndarray
    ends: np.ndarray

    @classmethod
    def of(cls, texts: Sequence[str]) -> Spelled:
        pieces = Words.of(texts)
        # What a piece is made of is found once.
        made_of, lengths = _words_in(texts_of(pieces.distinct))
        counts = lengths[pieces.numbers]
        ends = np.append(0, np.cumsum(counts))[pieces.ends]
        without = np.flatnonzero(np.diff(ends) == 0)
        signs = [texts[place].split() for place in without.tolist()]
        numbers = different(*utf8([*made_of, *chain.from_iterable(signs)])).indices.to_numpy()
        words = numbers[ranges((np.cumsum(lengths) - lengths)[pieces.numbers], counts)]
        added = np.zeros(len(texts), np.int64)
        added[without] = list(map(len, signs))
        words = np.insert(words, np.repeat(ends[:-1], added), numbers[len(made_of) :])
        ends[1:] += np.cumsum(added)
        return cls(words, ends[:-1], ends[1:])

    def every_other(self) -> Spelled:
        """The first text, the third, …"""
        return Spelled(self.words, self.starts[::2], self.ends[::2])

    def in_twos(self) -> Spelled:
        """The first text and the second as one, the third and the fourth, …"""
        return Spelled(self.words, self.starts[::2], self.ends[1::2])

    def firsts(self) -> np.ndarray:
        """For each text the place of the first one of the same words, (R,) int64."""
        counts = self.ends - self.starts
        words = self.words[ranges(self.starts, counts)]
        numbers = different(words, words.itemsize * np.append(0, np.cumsum(counts))).indices.to_numpy()
        is_first = np.diff(np.maximum.accumulate(numbers), prepend=-1) > 0
        return np.flatnonzero(is_first)[numbers]


def _words_in(pieces: Sequence[str]) -> tuple[list[str], np.ndarray]:
    """The words of all pieces, and how many each has, int64."""
    # In one go: most pieces are one word, and a call takes longer than to find it.
    found = _WORD_OR_BREAK.findall(_BREAK.join(pieces).casefold())
    breaks = [place for place, word in enumerate(found) if word == _BREAK]
    if len(breaks) + 1 != len(pieces):  # one holds what parts them
        words = [_WORD.findall(piece.casefold()) for piece in pieces]
        return list(chain.from_iterable(words)), np.fromiter(map(len, words), np.int64, len(words))
    counts = np.diff([-1, *breaks, len(found)]) - 1
    return [word for word in found if word != _BREAK], counts


def normal_form(text: str) -> str:
    """What two texts share that differ in case, punctuation and spacing alone."""
    return " ".join(_WORD.findall(text.casefold()) or text.split())


def similarity(first: str, second: str) -> float:
    """What near-duplicates have at least `NEAR` of, of two texts in their normal forms."""
    own, other = ({*words, *pairwise(words)} for words in (first.split(" "), second.split(" ")))
    return len(own & other) / len(own | other)


def near_duplicates(texts: Spelled) -> NearDuplicates:
    """Groups of near-duplicates, as pairs that link them."""
    firsts, counts = texts.firsts(), texts.ends - texts.starts
    pairs = [NearPair(first, place, 1.0) for place, first in enumerate(firsts.tolist()) if first != place]
    places = np.flatnonzero((firsts == np.arange(len(firsts))) & (counts > 0))
    if not len(places):
        return NearDuplicates(tuple(pairs), 0)
    words = texts.words[ranges(texts.starts[places], counts[places])]
    different, num_capped = _linked(Features.of(words, np.append(0, np.cumsum(counts[places]))))
    pairs += [NearPair(int(places[pair.first]), int(places[pair.second]), pair.similarity) for pair in different]
    return NearDuplicates(tuple(sorted(pairs, key=lambda pair: (pair.second, pair.first))), num_capped)


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
