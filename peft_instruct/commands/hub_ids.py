"""What a command needs from the hub, known before anything heavy is imported."""

from __future__ import annotations

from pathlib import Path

from peft_instruct.adapter.storage import MANIFEST, MOST_MANIFEST_BYTES
from peft_instruct.data.sources import is_hub_id
from peft_instruct.model.location import is_hub_model
from peft_instruct.model.screening import read_json
from peft_instruct.recipe import Recipe


def hub_ids_of(recipe: Recipe) -> list[str]:
    """The models and data sets of a recipe that are neither files nor folders here."""
    models = [recipe.model.base, *([recipe.model.tokenizer] if recipe.model.tokenizer else [])]
    return [m for m in models if is_hub_model(m)] + [s for s in recipe.data.all_names() if is_hub_id(s)]


def hub_ids_of_adapter(folder: Path, base: str | None = None, needs_base: bool = True) -> list[str]:
    """The base that an adapter folder names, where it is a hub id; a damaged folder is told of later.

    Args:
        needs_base: also a whole model is to be compared with its base.
    """
    if base is not None:
        return [base] if is_hub_model(base) else []
    try:
        manifest = read_json(folder / MANIFEST, MOST_MANIFEST_BYTES)
        is_wanted = needs_base or manifest["kind"] == "lora"
        return [manifest["base"]["id"]] if is_wanted and manifest["base"]["revision"] else []
    except (OSError, ValueError, KeyError, TypeError):
        return []
