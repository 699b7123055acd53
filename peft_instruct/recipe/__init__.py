"""What to do: a typed, strict recipe, read from YAML with the place of every value. Imports no torch."""

from peft_instruct.recipe.reader import Resolved, load_recipe, read_recipe
from peft_instruct.recipe.schema import Recipe

__all__ = ["Recipe", "Resolved", "load_recipe", "read_recipe"]
