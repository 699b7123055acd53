"""The grid of a bench: which cells there are, and the recipe that each of them runs."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import product
from typing import Any

from pydantic import ValidationError

from peft_instruct.bench.records import Cell
from peft_instruct.errors import RecipeError
from peft_instruct.recipe import Recipe
from peft_instruct.recipe.problems import problem_lines
from peft_instruct.recipe.writing import exact_values

DEVICES = ("cuda", "mps", "cpu")
PRECISIONS = ("auto", "fp32", "bf16", "fp16")

# name -> (method.kind, method.dora, model.quantization)
METHODS = {
    "lora": ("lora", False, "none"),
    "dora": ("lora", True, "none"),
    "full": ("full", False, "none"),
    "qlora": ("lora", False, "nf4"),
    "qdora": ("lora", True, "nf4"),
    "lora-int8": ("lora", False, "int8"),
    "dora-int8": ("lora", True, "int8"),
}


def method_of(recipe: Recipe) -> str:
    """The name of a recipe's own method; `rslora` only changes a factor, so it has no name of its own."""
    own = (recipe.method.kind, recipe.method.dora, recipe.model.quantization)
    return next(name for name, words in METHODS.items() if words == own)


def plan(
    recipe: Recipe,
    *,
    devices: Iterable[str] | None = None,
    methods: Iterable[str] | None = None,
    precisions: Iterable[str] | None = None,
    batch_sizes: Iterable[int] | None = None,
    lengths: Iterable[int] | None = None,
) -> list[Cell]:
    """Every combination of what is named; None takes all devices, and the recipe's own value of the rest.

    Raises:
        RecipeError: a word that is not known, a number below 1, or nothing to measure.
    """
    values: dict[str, list[Any]] = {
        "devices": list(DEVICES if devices is None else devices),
        "methods": [method_of(recipe)] if methods is None else list(methods),
        "precisions": [recipe.training.precision] if precisions is None else list(precisions),
        "batch_sizes": [recipe.training.batch_size] if batch_sizes is None else list(batch_sizes),
        "lengths": [recipe.data.max_length] if lengths is None else list(lengths),
    }
    known = {"devices": DEVICES, "methods": tuple(METHODS), "precisions": PRECISIONS}
    problems = [f"{name}: nothing is named. Leave it out, or name at least one." for name in values if not values[name]]
    for name, words in known.items():
        problems += [
            f"{name}: {word!r} is not one of {', '.join(words)}." for word in values[name] if word not in words
        ]
    for name in ("batch_sizes", "lengths"):
        problems += [f"{name}: {number} is less than 1." for number in values[name] if number < 1]
    if problems:
        raise RecipeError.of("bench", problems)
    grid = product(*(dict.fromkeys(words) for words in values.values()))
    return [
        Cell(
            device=device,
            method=method,
            precision=precision,
            batch_size=batch_size,
            max_length=length,
            rank=rank_of(recipe, method),
        )
        for device, method, precision, batch_size, length in grid
    ]


def rank_of(recipe: Recipe, method: str) -> int | None:
    """The rank that a method takes from the recipe; full training has none."""
    return None if METHODS[method][0] == "full" else recipe.method.rank


def cell_recipe(recipe: Recipe, cell: Cell, num_steps: int) -> Recipe:
    """The recipe that a cell trains: its own words, `num_steps` steps, and nothing beside training.

    Raises:
        RecipeError: the recipe cannot be trained that way (an adapter on random weights, say).
    """
    values = exact_values(recipe)
    kind, dora, quantization = METHODS[cell.method]
    values["model"]["quantization"] = quantization
    if kind == "full":
        values["method"] = {"kind": "full"}
    else:
        values["method"] |= {"kind": "lora", "dora": dora} | ({"rank": cell.rank} if cell.rank else {})
    if cell.axis != "length":  # there whole rows are joined and cut, so that every row is as long as the cell says
        values["data"]["max_length"] = cell.max_length
    values["training"] |= {
        "device": cell.device,
        "precision": cell.precision,
        "batch_size": cell.batch_size,
        "batch_tokens": None,  # a cell says its rows
        "max_steps": num_steps,
        "evaluate_every": "never",
        "save_every": "never",
        "keep_best": False,
        "early_stopping": None,
    }
    values["samples"] |= {"instructions": [], "count": 0}
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        raise RecipeError.of(str(cell), problem_lines(error, Recipe, lambda _: recipe.name)) from error
