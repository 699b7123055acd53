"""How cost grows along the axis of a sweep: an exponent, and what it means in words.

A cost of c · x^e is a line of slope e where both axes are logarithmic; the slope is fitted by least squares. A cost
with a part that does not grow (the weights in a peak of memory) has a slope below the exponent of what grows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import linear_regression

from peft_instruct.bench.records import BenchRow, Growth
from peft_instruct.bench.sweep import FIELDS

PROPORTION = 0.05
"""An exponent this near to a whole number is called by it; repeated cells differ by as much."""


def exponent(values: Sequence[float], costs: Sequence[float]) -> float | None:
    """The slope of log(cost) over log(value); None with fewer than two different values.

    Raises:
        ValueError: a value or a cost is not above 0.
    """
    if len(set(values)) < 2:
        return None
    return linear_regression([math.log(value) for value in values], [math.log(cost) for cost in costs]).slope


FEWEST_POINTS = 3
"""That can contradict an exponent."""


def in_words(slope: float) -> str:
    """What an exponent says, without the number."""
    size, verb = abs(slope), "grows" if slope > 0 else "falls"
    if size <= PROPORTION:
        return "stays the same"
    if size < 1 - PROPORTION:
        return f"{verb} less than in proportion"
    if size <= 1 + PROPORTION:
        return f"{verb} in proportion"
    if abs(size - 2) <= PROPORTION:
        return f"{verb} with the square"
    return f"{verb} more than in proportion" if size < 2 else f"{verb} faster than the square"


def growths(rows: Sequence[BenchRow]) -> list[Growth]:
    """One for each device and precision and each axis that its rows are points of, in the rows' order."""
    return [_growth(members) for members in curves(rows)]


def curves(rows: Sequence[BenchRow]) -> list[list[BenchRow]]:
    """The measured points of each curve, smallest value first; methods in the order asked for."""
    found: dict[tuple[str, str, str], list[BenchRow]] = {}
    for row in rows:
        if row.cell.axis and row.measurement:
            found.setdefault((row.cell.device, row.cell.precision, row.cell.axis), []).append(row)
    for (_, _, axis), members in found.items():
        if axis != "method":
            members.sort(key=value_of)
    return list(found.values())


def value_of(row: BenchRow) -> int:
    value: int = getattr(row.cell, FIELDS[str(row.cell.axis)])
    return value


def growth_lines(growth: Growth) -> list[str]:
    """One axis in words: what holds for time, throughput and memory."""
    lines = [f"{growth.axis} on {growth.device} ({growth.around}), {len(growth.values)} points:"]
    for name, slope in named_exponents(growth):
        if slope is not None:
            lines.append(
                f"  {name} {in_words(slope)}: twice the {growth.axis} gives {2**slope:.2f} times as much "
                f"(exponent {slope:.2f})"
            )
    if len(lines) > 1 and len(growth.values) < FEWEST_POINTS:
        lines.append("  through two points every noise is a law: measure a third before relying on it")
    return lines if len(lines) > 1 else []


def named_exponents(growth: Growth) -> list[tuple[str, float | None]]:
    return [
        ("time per step", growth.seconds_exponent),
        ("tokens per second", growth.tokens_per_second_exponent),
        ("peak memory", growth.memory_exponent),
    ]


def _growth(members: Sequence[BenchRow]) -> Growth:
    cell, found = members[0].cell, [row.measurement for row in members if row.measurement]
    costs: list[list[float]] = [
        [one.step_seconds.median for one in found],
        [one.tokens_per_second.median for one in found],
        [one.memory.peak_bytes for one in found],
    ]
    is_number = cell.axis != "method"
    slopes = [exponent([value_of(row) for row in members], of_one) if is_number else None for of_one in costs]
    return Growth.model_validate(
        {
            "axis": cell.axis,
            "device": cell.device,
            "around": _around(members[0]),
            "values": [getattr(row.cell, FIELDS[str(cell.axis)]) for row in members],
            **dict(zip(("seconds_exponent", "tokens_per_second_exponent", "memory_exponent"), slopes, strict=True)),
        }
    )


def _around(row: BenchRow) -> str:
    """What is held while one axis varies."""
    cell = row.cell
    held = {
        "method": cell.method,
        "precision": cell.precision if cell.precision != "auto" else "",
        "rank": f"rank {cell.rank}" if cell.rank else "",
        "batch": f"batch {cell.batch_size}",
        "length": f"length {cell.max_length}",
    }
    # A rank is of some of the methods only.
    left_out = {"method": ("method", "rank")}.get(str(cell.axis), (cell.axis,))
    words = [text for axis, text in held.items() if axis not in left_out and text]
    return ", ".join([*words, *(["rows of exactly that length"] if cell.axis == "length" else [])])
