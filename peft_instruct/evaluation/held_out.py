"""Which rows an adapter is measured on: those that its own training held out, or another file's."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from peft_instruct.data.cache import Cache
from peft_instruct.data.prepare import read_source
from peft_instruct.data.prepared import Preparation
from peft_instruct.data.sources import STARTER, files_of, is_hub_id
from peft_instruct.data.types import PromptCompletion
from peft_instruct.errors import AdapterError, DatasetError
from peft_instruct.recipe import Recipe, load_recipe
from peft_instruct.recipe.data_section import Columns, DataSection

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
        section, template = _section_of(data, recipe), manifest.prompt_template()
        try:
            found, _, notes = read_source(data, section, template)
        except DatasetError as error:
            # The names are of the training's files; others may have the usual ones.
            usual = section.model_copy(update={"columns": Columns()})
            if usual == section:
                raise
            try:
                found, _, notes = read_source(data, usual, template)
            except DatasetError:
                raise error from None  # what is wrong with rows of the names that were asked for
        return data, found, notes
    assert recipe is not None  # recipe_of
    learned_from = recipe.data.train_name()
    for source in recipe.data.all_names():
        if not is_hub_id(source) and not source.startswith(STARTER) and not files_of(source):
            raise DatasetError(
                f"{source}: not found from {Path.cwd().name}/; recipe.yaml names it as seen from where `train` ran. "
                "Run there, or use --data FILE."
            )
    cache = Cache.of_user(recipe.speed.cache)
    split = Preparation(recipe.data, recipe.training.seed, cache, manifest.prompt_template()).data()
    name, found = ("test", split.test) if split.test else ("validation", split.validation)
    if not found:
        raise DatasetError(f"{learned_from}: the recipe holds no test or validation rows out. Use --data FILE.")
    given = recipe.data.test if name == "test" else recipe.data.validation
    notes = list(split.notes)
    if split.fingerprint != manifest.data_fingerprint:
        if not given:
            raise DatasetError(
                f"{learned_from}: not the rows of the training any more (their fingerprint differs), so the held-"
                "out rows of then cannot be told from the learned ones. Restore the file, or use --data FILE."
            )
        notes.append(
            f"{', '.join(recipe.data.all_names())}: not all the rows of the training any more; {given} is measured as "
            "it is"
        )
    return given or f"the {name} rows split off {learned_from}", found, notes


def _section_of(data: str, recipe: Recipe | None) -> DataSection:
    """How another file is read: by the columns of the recipe or all sources; as whole text where that was learned."""
    if recipe is None:
        return DataSection(train=data)
    forms = {source.format or recipe.data.format for source in recipe.data.sources()}
    form = "text" if forms == {"text"} else "auto"
    revision = recipe.data.revision if data in recipe.data.all_names() else "main"
    given = {"train": data, "format": form, "revision": revision, "columns": columns_of(recipe)}
    return recipe.data.model_copy(update=given)


def columns_of(recipe: Recipe) -> Columns:
    """The column names of a recipe, or those that all of its sources have."""
    columns = [source.columns or recipe.data.columns for source in recipe.data.sources()]
    return columns[0] if all(each == columns[0] for each in columns) else recipe.data.columns
