"""Files, `extends` and `--set` in; one validated recipe with the origin of each value out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from ruamel.yaml.error import YAMLError

from peft_instruct.errors import RecipeError
from peft_instruct.recipe.problems import problem_lines
from peft_instruct.recipe.schema import Recipe
from peft_instruct.recipe.shipped import find_recipe
from peft_instruct.recipe.source import KeyPath, Source, parse_scalar, read_source


@dataclass(frozen=True)
class Resolved:
    """A recipe and where each of its values came from.

    Attributes:
        recipe: the validated values.
        origins: `file:line:column` or `--set …` by key path; what is not in it is a default.
    """

    recipe: Recipe
    origins: dict[KeyPath, str]


def load_recipe(name: str, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe called `name` (a path, or a shipped recipe's name) with `key=value` overrides."""
    return read_recipe(name, overrides).recipe


def read_recipe(name: str, overrides: Sequence[str] = ()) -> Resolved:
    """Read, merge and validate a recipe.

    Raises:
        RecipeError: with every problem, each at its `file:line:column` (or its `--set`).
    """
    path = find_recipe(name)
    return _resolve(str(path), path.stem.replace("_", "-"), [*_with_bases(path, ())], overrides)


def recipe_for_rows(rows: str, overrides: Sequence[str] = ()) -> Recipe:
    """What a recipe would be that names no more than these rows: every default, the starter as base, and no row held
    out, of which there may be one alone.

    Raises:
        RecipeError: as `read_recipe` does, of the overrides.
    """
    values = {"model": {"base": "starter"}, "data": {"train": rows, "validation_fraction": 0.0}}
    return _resolve(rows, "rows", [Source(rows, values, {})], overrides).recipe


def _resolve(label: str, name: str, sources: Sequence[Source], overrides: Sequence[str]) -> Resolved:
    """The sources and the overrides merged, the last one winning, and validated."""
    given, problems = _override_sources(overrides)
    values: dict[str, Any] = {"name": name}
    origins: dict[KeyPath, str] = {}
    for source in [*sources, *given]:
        makes_way = [*_other_method(values, source.values), *_other_batch(values, source.values)]
        for replaced in [*makes_way, *_merge(values, source.values, ())]:
            origins = {path: origin for path, origin in origins.items() if path[: len(replaced)] != replaced}
        origins.update(source.places)

    def place_of(key_path: KeyPath) -> str:
        if key_path in origins:
            return origins[key_path]
        beneath = [origin for path, origin in origins.items() if key_path and path[: len(key_path)] == key_path]
        above = [origins[key_path[:n]] for n in range(len(key_path), 0, -1) if key_path[:n] in origins]
        return next(iter([*beneath, *above]), label)

    try:
        recipe = Recipe.model_validate(values)
    except ValidationError as error:
        raise RecipeError.of(label, [*problems, *problem_lines(error, Recipe, place_of)]) from error
    if problems:
        raise RecipeError.of(label, problems)
    return Resolved(recipe, origins)


def _with_bases(path: Path, seen: tuple[Path, ...]) -> Iterator[Source]:
    """The sources of a recipe file, the furthest base first."""
    here = path.resolve()
    source = read_source(path)
    if here in seen:
        raise RecipeError(f"{path}: extends itself through {' -> '.join(p.name for p in (*seen, here))}.")
    base = source.values.pop("extends", None)
    place = source.places.pop(("extends",), source.label)
    if base is not None:
        if not isinstance(base, str):
            raise RecipeError(f"{place}: extends: is {base!r}. expected the path of a recipe or a recipe's name.")
        beside = path.parent / base
        try:
            yield from _with_bases(beside if beside.is_file() else find_recipe(base), (*seen, here))
        except RecipeError as error:
            if "no such recipe" in str(error):
                raise RecipeError(f"{place}: extends: {error}") from error
            raise
    yield source


def _override_sources(overrides: Sequence[str]) -> tuple[list[Source], list[str]]:
    """A source for each `key=value`, and a problem for each that is none."""
    sources: list[Source] = []
    problems: list[str] = []
    for override in overrides:
        label = f"--set {override}"
        key, separator, text = override.partition("=")
        path: KeyPath = tuple(key.strip().split("."))
        if not separator or not all(path):
            problems.append(f"{label}: not an assignment. expected key=value, such as training.max_steps=30.")
            continue
        try:
            value = parse_scalar(text)
        except (YAMLError, ValueError):
            problems.append(f"{label}: the value is not YAML. Quote it.")
            continue
        tree: Any = value
        for part in reversed(path):
            tree = {part: tree}
        sources.append(Source(label, tree, {path: label}))
    return sources, problems


def _other_method(into: dict[str, Any], new: dict[str, Any]) -> list[KeyPath]:
    """Another `method.kind` starts the section anew: rank and the like say nothing of full training."""
    before, after = into.get("method"), new.get("method")
    if isinstance(before, dict) and isinstance(after, dict):
        kind = before.get("kind", "lora")
        if after.get("kind", kind) != kind:
            into["method"] = {}
            return [("method",)]
    return []


def _other_batch(into: dict[str, Any], new: dict[str, Any]) -> list[KeyPath]:
    """Batches by tokens take the place of batches by rows that an earlier source asks for, and the other way round."""
    before, after = into.get("training"), new.get("training")
    given = [key for key in ("batch_size", "batch_tokens") if isinstance(after, dict) and after.get(key) is not None]
    if not isinstance(before, dict) or len(given) != 1:
        return []
    other = "batch_size" if given[0] == "batch_tokens" else "batch_tokens"
    return [("training", other)] if before.pop(other, None) is not None else []


def _merge(into: dict[str, Any], new: dict[str, Any], path: KeyPath) -> list[KeyPath]:
    """Deep merge of mappings; anything else, lists included, is replaced, and its key path returned."""
    replaced: list[KeyPath] = []
    for key, value in new.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            replaced += _merge(into[key], value, (*path, key))
        else:
            into[key] = value
            replaced.append((*path, key))
    return replaced
