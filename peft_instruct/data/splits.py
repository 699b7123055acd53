"""One list of rows -> training, validation and test rows, with near-duplicates on one side."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from peft_instruct.data.near import NearPair, Spelled, groups_of, near_duplicates
from peft_instruct.data.types import Prompt, PromptCompletion
from peft_instruct.errors import DatasetError

_NUMBERED = re.compile(r"(.*) row \d+", re.DOTALL)
"""The origin of a row that has no line: a hub data set's, a table's."""


@dataclass(frozen=True)
class Split:
    """The rows of each side, in the seeded order, and what a reader of the log should know."""

    train: list[PromptCompletion]
    validation: list[PromptCompletion]
    test: list[PromptCompletion]
    notes: tuple[str, ...] = ()


def split_rows(rows: Sequence[PromptCompletion], num_validation: int, num_test: int, *, seed: int, by: str) -> Split:
    """Set rows aside for validation and test.

    Args:
        by: `rows` cuts the shuffled rows; `groups` does so too, but moves near-duplicates and rows of one prompt
            together, each source giving its share. Where there are none, both give the same split.

    Raises:
        DatasetError: the groups are so large that a side would stay empty.
    """
    order = list(range(len(rows)))
    # The order of `random.shuffle(rows)`: a split by rows is that of earlier versions.
    random.Random(seed).shuffle(order)
    num_train = len(rows) - num_validation - num_test
    sides = [order[num_train : num_train + num_validation], order[num_train + num_validation :]]
    notes: tuple[str, ...] = ()
    if by == "groups" and num_train < len(rows):
        groups, num_capped = _groups(rows)
        leaking = _num_leaking(order, groups, num_train, num_validation)
        if leaking or len({_source(row) for row in rows}) > 1:
            sides = _by_groups(rows, order, groups, num_train, (num_validation, num_test))
        notes = (_note(groups, leaking, num_capped, sides),)
    held_out = {place for side in sides for place in side}
    train = [rows[place] for place in order if place not in held_out]
    validation, test = ([rows[place] for place in side] for side in sides)
    return Split(train, validation, test, notes)


def _groups(rows: Sequence[PromptCompletion]) -> tuple[list[int], int]:
    """The group of each row: near-duplicates, and rows that ask the same whatever they answer."""
    asked = list(map(_asked, rows))
    spelled = Spelled.of([text for ask, row in zip(asked, rows, strict=True) for text in (ask, row.completion)])
    found = near_duplicates(spelled.in_twos())
    firsts = enumerate(spelled.every_other().firsts().tolist())
    alike = [NearPair(first, place, 1.0) for place, first in firsts if first != place and asked[place]]
    pairs = [*found.pairs, *alike]
    return groups_of(len(rows), pairs), found.num_capped


def _asked(row: PromptCompletion) -> str:
    """What was said before the completion, without the template's words, which all rows share."""
    if not isinstance(row.prompt, Prompt):
        return row.asked or row.prompt
    return "\n".join([span.text for span in row.prompt.spans if span.kind not in ("template", "token")])


def _source(row: PromptCompletion) -> str:
    """The file or hub id of a row: its origin without the line."""
    numbered = _NUMBERED.fullmatch(row.origin)
    return numbered[1] if numbered else row.origin.rpartition(":")[0]


def _num_leaking(order: list[int], groups: list[int], num_train: int, num_validation: int) -> int:
    """Held-out rows that a split by rows would part from a row of their group."""
    side = np.zeros(len(order), np.int64)
    side[order[num_train:]] = 1
    side[order[num_train + num_validation :]] = 2
    first, last = np.full_like(side, 2), np.zeros_like(side)
    np.minimum.at(first, groups, side)
    np.maximum.at(last, groups, side)
    return int(((side > 0) & (first != last)[groups]).sum())


def _by_groups(
    rows: Sequence[PromptCompletion], order: list[int], groups: list[int], num_train: int, wanted: tuple[int, int]
) -> list[list[int]]:
    """Places for validation and for test: whole groups, as many rows of each source as its share."""
    members: dict[int, list[int]] = {}
    # From where the split by rows would begin, so that a row without a double stays where it was.
    for place in [*order[num_train:], *order[:num_train]]:
        members.setdefault(groups[place], []).append(place)
    sources = [_source(row) for row in rows]
    sides: list[list[int]] = []
    taken: set[int] = set()
    for name, num_wanted in zip(("validation", "test"), wanted, strict=True):
        room = _quotas(Counter(sources), num_wanted)
        side: list[int] = []
        for group, places in members.items():
            needed = Counter(sources[place] for place in places)
            if group not in taken and all(room[source] >= count for source, count in needed.items()):
                room -= needed
                taken.add(group)
                side += places
        if num_wanted and not side:
            raise DatasetError(
                f"data.split: groups: no group of near-duplicates is as small as the {num_wanted} rows for {name} "
                f"({len(members)} groups in {len(rows)} rows). Set data.split: rows, or name a file for {name}."
            )
        sides.append(side)
    if len(taken) == len(members):
        raise DatasetError(
            f"data.split: groups: the {len(rows)} rows are {len(members)} groups of near-duplicates, none is left for "
            "training. Add rows, or set data.split: rows."
        )
    return sides


def _quotas(sizes: Counter[str], wanted: int) -> Counter[str]:
    """`wanted` parted in proportion to the sizes, by largest remainder."""
    total = sum(sizes.values())
    quotas = Counter({source: wanted * size // total for source, size in sizes.items()})
    by_remainder = sorted(sizes, key=lambda source: -(wanted * sizes[source] % total))
    quotas.update(by_remainder[: wanted - sum(quotas.values())])
    return quotas


def _note(groups: list[int], leaking: int, num_capped: int, sides: list[list[int]]) -> str:
    doubles = [count for count in Counter(groups).values() if count > 1]
    note = f"split: {len(sides[0])} rows for validation, {len(sides[1])} for test; " + (
        f"{sum(doubles)} rows in {len(doubles)} groups of near-duplicates stay together; a split by rows would have "
        f"leaked {leaking} rows"
        if doubles
        else "no near-duplicates"
    )
    return note + (f"; {num_capped} rows look like so many others that not all were compared" if num_capped else "")
