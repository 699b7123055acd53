"""Sweeps: one axis after another is varied around a point, all else held where it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

from peft_instruct.bench.cells import METHODS, rank_of
from peft_instruct.bench.records import Axis, Cell
from peft_instruct.errors import RecipeError
from peft_instruct.recipe import Recipe

AXES: tuple[Axis, ...] = get_args(Axis)
FIELDS = {"length": "max_length", "batch": "batch_size", "rank": "rank", "method": "method"}
# Around the recipe's own value, and never beyond its length, for which its base has positions.
FACTORS = {"length": (1 / 8, 1 / 4, 1 / 2, 1), "batch": (1 / 4, 1 / 2, 1, 2), "rank": (1 / 4, 1 / 2, 1, 2, 4)}
USUAL_METHODS = ("lora", "dora", "full")


@dataclass(frozen=True)
class Sweep:
    """One axis and the values asked for; none takes values around the point's own."""

    axis: Axis
    values: tuple[int | str, ...] = ()


def read_sweeps(words: Sequence[str]) -> list[Sweep]:
    """`length=64,128` and `rank` as sweeps.

    Raises:
        RecipeError: an axis, a value or a method that is not known, an axis named twice; all are told.
    """
    problems: list[str] = []
    sweeps: list[Sweep] = []
    for word in words:
        name, equals, text = (part.strip() for part in word.partition("="))
        axis = next((each for each in AXES if each == name), None)
        values = [value.strip() for value in text.split(",") if value.strip()]
        if axis is None:
            problems.append(f"--sweep {word}: {name!r} is not one of {', '.join(AXES)}.")
        elif any(sweep.axis == axis for sweep in sweeps):
            problems.append(f"--sweep {word}: {axis} is swept already. Name all of its values at once.")
        elif equals and not values:
            problems.append(f"--sweep {word}: no value. expected {axis}=A,B, or {axis} alone for usual ones.")
        else:
            problems += [f"--sweep {word}: {wrong}" for wrong in _wrong(axis, values)]
            read = values if axis == "method" else [int(value) for value in values if value.isdecimal()]
            sweeps.append(Sweep(axis, tuple(dict.fromkeys(read))))
    if problems:
        raise RecipeError.of("bench", problems)
    return sweeps


def swept(recipe: Recipe, points: Sequence[Cell], sweeps: Sequence[Sweep]) -> list[Cell]:
    """The cells of each sweep around each point (one for each device and precision).

    Raises:
        RecipeError: the points are several of one device and precision, or a rank of full training is swept.
    """
    if len({(point.device, point.precision) for point in points}) < len(points):
        raise RecipeError(
            "bench: --sweep goes around one point, but --methods, --batch-sizes or --lengths names several. Name one "
            "value of each, or leave it out."
        )
    if any(sweep.axis == "rank" and point.rank is None for sweep in sweeps for point in points):
        raise RecipeError("bench: --sweep rank: full training has no rank. Name --methods lora, or sweep another axis.")
    return [_at(recipe, point, sweep.axis, value) for point in points for sweep in sweeps
            for value in (sweep.values or _usual(point, sweep.axis))]  # fmt: skip


def _wrong(axis: Axis, values: Sequence[str]) -> list[str]:
    if axis == "method":
        return [f"{value!r} is not one of {', '.join(METHODS)}." for value in values if value not in METHODS]
    least = 2 if axis == "length" else 1  # nothing predicts the first token
    return [
        f"{value!r} is no whole number from {least}." for value in values
        if not value.isdecimal() or int(value) < least
    ]  # fmt: skip


def _usual(point: Cell, axis: Axis) -> list[int | str]:
    if axis == "method":
        return list(dict.fromkeys((point.method, *USUAL_METHODS)))
    own = getattr(point, FIELDS[axis])
    return sorted({max(1, round(own * factor)) for factor in FACTORS[axis]})


def _at(recipe: Recipe, point: Cell, axis: Axis, value: int | str) -> Cell:
    changed: dict[str, object] = {FIELDS[axis]: value, "axis": axis}
    if axis == "method":
        changed["rank"] = rank_of(recipe, str(value))
    return point.model_copy(update=changed)
