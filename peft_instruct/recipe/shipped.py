"""What ships with the package, and how a recipe or an adapter is found by name."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from pathlib import Path

from peft_instruct.errors import AdapterError, RecipeError

PACKAGE = Path(__file__).resolve().parent.parent


def shipped_folder(name: str) -> Path:
    """A folder that ships with the package: inside it in a wheel, beside it in a checkout."""
    inside = PACKAGE / "_shipped" / name
    return inside if inside.is_dir() else PACKAGE.parent / name


def find_adapter(name: str, say: Callable[[str], None] = lambda line: None) -> Path:
    """The folder of an adapter: a path, or else a shipped adapter of that name (`adapters/quickstart-lora`), and this
    is said: a run of one's own with that name may not have come to its end.

    Raises:
        AdapterError: neither.
    """
    path = Path(name)
    shipped = PACKAGE / "starter" / "adapters" / path.name
    if not path.exists() and path.parent in (Path("."), Path("adapters")) and shipped.is_dir():
        say(f"{name}: not here; the adapter of that name that comes with peft-instruct is taken")
        return shipped
    if not path.is_dir():
        raise AdapterError(f"{name}: no such folder. expected one that `peft-instruct train` or `merge` wrote.")
    return path


def shipped_recipes() -> list[Path]:
    return sorted(shipped_folder("recipes").glob("*.yaml"))


def find_recipe(name: str) -> Path:
    """The file of a recipe: a path, or the name of a shipped recipe, with or without `.yaml`.

    Raises:
        RecipeError: neither; says which names are near.
    """
    path = Path(name)
    if path.is_file():
        return path
    shipped = {file.stem: file for file in shipped_recipes()}
    # `recipes/gpt2_lora.yaml` means the shipped recipe where there is no such folder, as after `pip install`.
    if path.parent in (Path("."), Path("recipes")) and path.name.removesuffix(".yaml") in shipped:
        return shipped[path.name.removesuffix(".yaml")]
    near = difflib.get_close_matches(path.stem, shipped, n=1)
    hint = f"Did you mean `{near[0]}`?" if near else "`peft-instruct recipe list` names the shipped ones."
    raise RecipeError(f"{name}: no such recipe. {hint}")
