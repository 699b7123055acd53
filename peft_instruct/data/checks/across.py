"""Problems of rows together: doubles, contradictions, and rows that stand on both sides of a split."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from peft_instruct.data.checks.catalogue import Finding
from peft_instruct.data.checks.parts import RowParts
from peft_instruct.data.near import Spelled, near_duplicates, normal_form, similarity
from peft_instruct.data.rarest import NEAR

TOLD_AS_NEAR = 0.85
"""Least similarity that is told. Splits keep rows together from `rarest.NEAR` on, where parting them would be the
mistake; here a false finding is, and between the two stand questions of one form about different things."""
LEAST_REPEATED, LEAST_REPEATED_LENGTH = 5, 40
"""Prompts that share one answer, and its characters."""
LEAST_CONSTANT_ROWS = 20


# Signs of a sentence; `5.3` and `53` are two numbers, `C` and `C++` two languages, and `8 + 0` is not `8 - 0`.
_PUNCTUATION = re.compile("(?<!\\d)[.,:!]|[.,:](?!\\d)|[;?\"'´`“”‘’„«»¿¡…。，、；：？！]")


def as_said(text: str) -> str:
    """What two texts share that differ in case, spacing and the punctuation of a sentence alone."""
    return " ".join(_PUNCTUATION.sub(" ", text.casefold()).split()) or " ".join(text.split())


def check_across(rows: Sequence[RowParts], held_out: Sequence[RowParts] = ()) -> Iterator[Finding]:
    """Every problem of the rows with each other and with the held-out rows, told at the later place."""
    told: set[str] = set()
    asked_first: dict[str, tuple[RowParts, str]] = {}
    answers: dict[str, list[RowParts]] = {}
    keys_first: dict[tuple[str, str], RowParts] = {}
    for row in rows:
        asked, answer = as_said(row.asked), as_said(row.answer or row.all_text)
        if not answer:
            continue
        if row.asked:
            answers.setdefault(answer, []).append(row)
        first = keys_first.setdefault((asked, answer), row)
        asking, other = asked_first.setdefault(asked, (row, answer)) if asked else (row, answer)
        if first is not row:
            told.add(row.origin)
            yield Finding("duplicate", row.origin, "", f"as {first.origin}")
        elif other != answer and similarity(*map(normal_form, (asking.answer, row.answer))) < NEAR:
            told.add(row.origin)
            yield Finding("contradiction", row.origin, "", f"{asking.origin} answers {asking.answer[:60]!r}")
    yield from _one_answer(rows, answers)
    overlapping = list(_overlap(held_out, asked_first, rows))
    yield from overlapping
    yield from _near(rows, held_out, told | {finding.origin for finding in overlapping})


def _one_answer(rows: Sequence[RowParts], answers: dict[str, list[RowParts]]) -> Iterator[Finding]:
    for answer, users in answers.items():
        num_prompts = len({as_said(row.asked) for row in users})
        if num_prompts > len(rows) / 2 and len(rows) >= LEAST_CONSTANT_ROWS:
            detail = f"{len(users)} of {len(rows)} rows answer {answer[:40]!r}"
            yield Finding("constant-answer", users[0].origin, "", detail)
        elif num_prompts >= LEAST_REPEATED and len(answer) >= LEAST_REPEATED_LENGTH:
            for row in users:
                yield Finding("repeated-answer", row.origin, "", f"{len(users)} times: {row.answer[:60]!r}")


def _overlap(
    held_out: Sequence[RowParts], asked_first: dict[str, tuple[RowParts, str]], rows: Sequence[RowParts]
) -> Iterator[Finding]:
    places = {as_said(row.asked or row.all_text): row.origin for row in reversed(held_out)}
    if places:
        for row in rows:
            place = places.get(as_said(row.asked or row.all_text))
            if place is not None:
                yield Finding("train-evaluation-overlap", row.origin, "", f"as {place}")


def _near(rows: Sequence[RowParts], held_out: Sequence[RowParts], told: set[str]) -> Iterator[Finding]:
    everything = [*held_out, *rows]
    best: dict[int, tuple[float, int]] = {}
    for pair in near_duplicates(Spelled.of([f"{row.asked}\n{row.answer or row.all_text}" for row in everything])).pairs:
        if pair.second >= len(held_out):
            # Next to a held-out row is worse than next to another.
            leaks = pair.first < len(held_out)
            best[pair.second] = max(best.get(pair.second, (0.0, 0)), (pair.similarity + leaks, pair.first))
    for second, (weight, first) in best.items():
        alike = weight - 1 if first < len(held_out) else weight
        row = everything[second]
        if alike >= TOLD_AS_NEAR and row.origin not in told:
            code = "near-overlap" if first < len(held_out) else "near-duplicate"
            yield Finding(code, row.origin, "", f"{alike:.0%} as {everything[first].origin}")
