"""`recipe list | show | explain | validate`: recipes without a model; torch is never imported."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from peft_instruct.errors import RecipeError
from peft_instruct.recipe import load_recipe, read_recipe
from peft_instruct.recipe.shipped import find_recipe, shipped_recipes
from peft_instruct.recipe.source import read_text
from peft_instruct.recipe.writing import explain

WIDEST = 44
"""Characters up to which a cell widens its column; a longer one, a path say, moves the rest of its own line alone."""


@dataclass(frozen=True)
class Table:
    """Rows with named columns."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def record(self) -> dict[str, Any]:
        return {"rows": [dict(zip(self.columns, row, strict=True)) for row in self.rows]}

    def text(self) -> str:
        cells = [[row[column] for row in self.rows] for column in range(len(self.columns))]
        widths = [max((len(cell) for cell in column if len(cell) <= WIDEST), default=0) for column in cells]
        return "\n".join(
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in self.rows
        )


def list_recipes() -> Table:
    """Name and description of every shipped recipe."""
    rows = tuple((path.stem, load_recipe(str(path)).description) for path in shipped_recipes())
    return Table(("name", "description"), rows)


def show_recipe(name: str) -> str:
    """The text of a recipe file, comments and all."""
    return read_text(find_recipe(name))


def explain_recipe(name: str, overrides: Sequence[str] = ()) -> Table:
    """Key, value and origin of everything that a recipe says or leaves to its defaults."""
    return Table(("key", "value", "origin"), tuple(explain(read_recipe(name, overrides))))


def validate_recipes(names: Sequence[str], overrides: Sequence[str] = ()) -> Table:
    """Check every named recipe.

    Raises:
        RecipeError: the problems of all of them.
    """
    problems = []
    valid = []
    for name in names:
        try:
            load_recipe(name, overrides)
            valid.append((name, "valid"))
        except RecipeError as error:
            problems.append(str(error))
    if problems:
        raise RecipeError("\n".join(problems))
    return Table(("recipe", "state"), tuple(valid))
