"""Which rows an adapter is measured on: those that its own training held out, or another file's."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from peft_instruct.data.prepare import read_instruction_data, read_source
from peft_instruct.data.sources import STARTER, is_hub_id
from peft_instruct.data.templates import Template
from peft_instruct.data.types import PromptCompletion
from peft_instruct.errors import AdapterError, DatasetError
from peft_instruct.recipe import Recipe, load_recipe
from peft_instruct.recipe.schema import CustomTemplate, DataSection

if TYPE_CHECKING:  # it imports torch
    from peft_instruct.adapter.manifest import AdapterManifest


def recipe_of(path: Path, data: str | None) -> Recipe | None:
    """The resolved recipe in the folder; a folder without one can be measured on `data` only.

    Raises:
        AdapterError: neither a recipe nor `data`.
    """
    if (path / "recipe.yaml").is_file():
        return load_recipe(str(path / "recipe.yaml"))
    if data is None and (path / "manifest.json").is_file():
        raise AdapterError(f"{path}: no recipe.yaml, so its held-out rows are not known. Name rows with --data FILE.")
    return None


def held_out_rows(
    recipe: Recipe | None, manifest: AdapterManifest, data: str | None
) -> tuple[str, list[PromptCompletion], list[str]]:
    """What is measured on: a name for it, the rows, and notes.

    Raises:
        DatasetError: no held-out rows, or the split cannot be made again.
    """
    if data is not None:
        found, _, notes = read_source(data, _section_of(data, recipe, manifest.prompt_template()))
        return data, found, notes
    assert recipe is not None  # recipe_of
    for source in (recipe.data.train, recipe.data.validation, recipe.data.test):
        if source and not is_hub_id(source) and not source.startswith(STARTER) and not Path(source).exists():
            raise DatasetError(
                f"{source}: not found from {Path.cwd().name}/; recipe.yaml names it as seen from where `train` ran. "
                "Run there, or use --data FILE."
            )
    split = read_instruction_data(recipe.data, recipe.training.seed)
    name, found = ("test", split.test) if split.test else ("validation", split.validation)
    if not found:
        raise DatasetError(f"{recipe.data.train}: the recipe holds no test or validation rows out. Use --data FILE.")
    given = recipe.data.test if name == "test" else recipe.data.validation
    notes = list(split.notes)
    if split.fingerprint != manifest.data_fingerprint:
        if not given:
            raise DatasetError(
                f"{recipe.data.train}: not the rows of the training any more (their fingerprint differs), so the held-"
                "out rows of then cannot be told from the learned ones. Restore the file, or use --data FILE."
            )
        notes.append(f"{recipe.data.train}: not the rows of the training any more; {given} is measured on all the same")
    return given or f"the {name} rows split off {recipe.data.train}", found, notes


def _section_of(data: str, recipe: Recipe | None, template: Template) -> DataSection:
    """How another file is read: the adapter's template whatever the recipe says, the recipe's column names."""
    rendered = CustomTemplate(prompt=template.with_input, prompt_without_input=template.without_input)
    if recipe is None:
        return DataSection(train=data, template=rendered)
    form = "text" if recipe.data.format == "text" else "auto"
    revision = recipe.data.revision if data == recipe.data.train else "main"
    return recipe.data.model_copy(update={"train": data, "template": rendered, "format": form, "revision": revision})
