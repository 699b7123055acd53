"""What to do: a typed, strict recipe, read from YAML with the place of every value. Imports no torch."""

import os

# pydantic would look through every installed package for plugins: a tenth of the time that `recipe validate` takes.
os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")

from peft_instruct.recipe.reader import Resolved, load_recipe, read_recipe
from peft_instruct.recipe.schema import Recipe

__all__ = ["Recipe", "Resolved", "load_recipe", "read_recipe"]
