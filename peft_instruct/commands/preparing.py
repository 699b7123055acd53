"""What a run learns from: the rows, out of the cache where nothing changed."""

from __future__ import annotations

from collections.abc import Callable

from peft_instruct.data.cache import Cache
from peft_instruct.data.prepared import Preparation
from peft_instruct.environment import HubState
from peft_instruct.model.location import Location, locate, weight_fingerprint
from peft_instruct.model.tokenizer import template_in
from peft_instruct.recipe import Recipe

Say = Callable[[str], None]


def tokenizer_location(recipe: Recipe, hub: HubState) -> Location | None:
    """Of a tokenizer that is not the base's own."""
    other = recipe.model.tokenizer
    return locate(other, "main", hub, "model.tokenizer") if other else None


def preparation_of(recipe: Recipe, location: Location, tokenizer: Location | None, say: Say) -> Preparation:
    """The recipe's rows, yet to be read.

    Raises:
        ModelError, RecipeError: the tokenizer's own template is asked for and cannot be used.
    """
    template = template_in((tokenizer or location).folder, recipe.data.template)
    return Preparation(recipe.data, recipe.training.seed, Cache.of_user(recipe.speed.cache), template, say)


def base_fingerprint(recipe: Recipe, location: Location) -> str:
    """SHA-256 of the base's weight files; empty where they are not what training begins with."""
    return weight_fingerprint(location) if recipe.model.init == "pretrained" else ""
