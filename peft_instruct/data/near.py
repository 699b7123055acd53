"""Rows that say nearly the same: candidates by MinHash (rensa), each confirmed by the exact similarity.

Two rows are near-duplicates when the Jaccard similarity of their words and neighbouring pairs of words, case and
punctuation aside, is at least `NEAR`. Pairs of words keep `dog bites man` apart from `man bites dog`; single words
keep a short row with one word changed together with its original.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

NEAR = 0.7
"""Least similarity of near-duplicates."""
NUM_PERMUTATIONS, NUM_BANDS = 128, 32
"""A pair of similarity s becomes a candidate with probability 1 - (1 - s^4)^32: 0.9998 at 0.7, one in a million is
missed at 0.77 (Leskovec, Rajaraman and Ullman, Mining of Massive Datasets, 3.4.2)."""
MOST_COMPARED = 1000
"""Candidates of a row that are compared exactly; only data of one template has more."""
_BATCH = 2048
_REMEMBERED = 20_000

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


def features(normal: str) -> frozenset[str]:
    """Words and neighbouring pairs of words of a text in normal form."""
    words = normal.split(" ")
    return frozenset([*words, *map(" ".join, pairwise(words))])


def near_duplicates(texts: Sequence[str]) -> NearDuplicates:
    """Every group of near-duplicates, as pairs that link it."""
    first_of: dict[str, int] = {}
    pairs: list[NearPair] = []
    for place, text in enumerate(texts):
        normal = normal_form(text)
        first = first_of.setdefault(normal, place)
        if first != place:
            pairs.append(NearPair(first, place, 1.0))
    different, num_capped = _linked(list(first_of))
    places = list(first_of.values())
    pairs += [NearPair(places[pair.first], places[pair.second], pair.similarity) for pair in different]
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


def _linked(normal: list[str]) -> tuple[list[NearPair], int]:
    """Links between different texts, and how many texts had more candidates than were compared."""
    import rensa

    index = rensa.RMinHashLSH(NEAR, NUM_PERMUTATIONS, NUM_BANDS)
    parents = Parents(len(normal))
    remembered = _Features(normal)
    pairs: list[NearPair] = []
    num_capped = 0
    for start in range(0, len(normal), _BATCH):
        sets = [list(remembered[place]) for place in range(start, min(start + _BATCH, len(normal)))]
        sketches = rensa.RMinHash.from_token_sets(sets, num_perm=NUM_PERMUTATIONS, seed=0)
        for place, sketch in enumerate(sketches, start):
            found = index.query(sketch)
            index.insert(place, sketch)
            if len(found) > MOST_COMPARED:
                num_capped += 1
                found = found[:: -(-len(found) // MOST_COMPARED)]
            pairs += _links(place, sorted(found), parents, remembered)
    return pairs, num_capped


def _links(place: int, candidates: list[int], parents: Parents, remembered: _Features) -> list[NearPair]:
    """The most similar earlier text, and every one that joins another group."""
    near = [NearPair(other, place, jaccard(remembered[other], remembered[place])) for other in candidates]
    near = [pair for pair in near if pair.similarity >= NEAR]
    closest = max(near, key=lambda pair: pair.similarity, default=None)
    kept = []
    for pair in near:
        joins = parents.root(pair.first) != parents.root(pair.second)
        parents.join(pair.first, pair.second)
        kept += [pair] if joins or pair is closest else []
    return kept


class _Features:
    """Features by place, the last ones remembered: those of fifty thousand rows would take half a gigabyte."""

    def __init__(self, normal: list[str]) -> None:
        self._normal = normal
        self._kept: OrderedDict[int, frozenset[str]] = OrderedDict()

    def __getitem__(self, place: int) -> frozenset[str]:
        found = self._kept.get(place)
        if found is None:
            found = self._kept[place] = features(self._normal[place])
            if len(self._kept) > _REMEMBERED:
                self._kept.popitem(last=False)
        return found


def jaccard(first: frozenset[str], second: frozenset[str]) -> float:
    shared = len(first & second)
    return shared / (len(first) + len(second) - shared)
