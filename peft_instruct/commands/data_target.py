"""What `data preview`, `data stats` and `data check` are about: a recipe, or rows alone."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from peft_instruct.data.sources import STARTER, is_hub_id
from peft_instruct.recipe import Recipe, load_recipe
from peft_instruct.recipe.reader import recipe_for_rows

RECIPE_KINDS = (".yaml", ".yml", "")


def is_rows(target: str) -> bool:
    """Whether a target names rows and not a recipe: a file of another kind, a folder, `starter:…` or `owner/name`."""
    path = Path(target)
    if target.startswith(STARTER) or os.path.isdir(target):
        return True
    return path.suffix not in RECIPE_KINDS or (not path.exists() and "/" in target and is_hub_id(target))


def recipe_of(target: str, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe that the target is, or one that has every default and these rows; the starter is its base.

    Raises:
        RecipeError: no such recipe, or a wrong value in it.
    """
    return recipe_for_rows(target, overrides) if is_rows(target) else load_recipe(target, overrides)
