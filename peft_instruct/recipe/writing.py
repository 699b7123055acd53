"""A resolved recipe out: as YAML for the adapter folder, with origins for `recipe explain`, as JSON Schema."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from io import StringIO
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.scalarstring import DoubleQuotedScalarString

from peft_instruct.recipe.reader import Resolved
from peft_instruct.recipe.schema import Recipe
from peft_instruct.recipe.source import KeyPath
from peft_instruct.secrets import hide_in, hide_secrets

MOST_SHOWN = 60


def recipe_values(recipe: Recipe) -> dict[str, Any]:
    """Every value of a recipe, to be shown and kept: what a secret of the environment stands in has it hidden."""
    values: dict[str, Any] = hide_in(exact_values(recipe))
    return values


def exact_values(recipe: Recipe) -> dict[str, Any]:
    """Every value, such that `Recipe.model_validate` gives the same recipe again; for our own processes alone."""
    values: dict[str, Any] = recipe.model_dump(mode="json")
    if recipe.method.kind == "full":
        values["method"] = {"kind": "full"}
    if recipe.training.batch_tokens is not None:
        del values["training"]["batch_size"]
    return values


def recipe_yaml(recipe: Recipe) -> str:
    """The resolved recipe as YAML that `peft-instruct train` takes."""
    out = StringIO()
    writer = YAML()
    writer.width = 1 << 20  # a folded line may not read back as it was
    writer.dump(_quoted(recipe_values(recipe)), out)
    return out.getvalue()


def recipe_hash(recipe: Recipe) -> str:
    """SHA-256 of the resolved values, independent of the order of keys."""
    return hashlib.sha256(json.dumps(recipe_values(recipe), sort_keys=True).encode()).hexdigest()


def differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """(key, before, now) of every leaf that differs, sections as `a.b`."""
    for key in dict.fromkeys([*then, *now]):
        before, after = then.get(key), now.get(key)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            yield from ((f"{key}.{inner}", a, b) for inner, a, b in differences(before, after))
        elif before != after:
            yield key, before, after


def change(key: str, before: Any, now: Any) -> str:
    """`key: before -> now` in one line; a long value is cut."""
    return f"{key}: {_shown(before)} -> {_shown(now)}"


def explain(resolved: Resolved) -> list[tuple[str, str, str]]:
    """(key, value, origin) of every value, in the order of the schema."""
    rows = []
    for path, value in _leaves(recipe_values(resolved.recipe), ()):
        origin = next(
            (resolved.origins[path[:n]] for n in range(len(path), 0, -1) if path[:n] in resolved.origins),
            "default",
        )
        # A section that a file opens says nothing of the keys that the file leaves out.
        if path not in resolved.origins and not any(isinstance(part, int) for part in path):
            origin = "default"
        rows.append((".".join(map(str, path)), json.dumps(value, ensure_ascii=False), hide_secrets(origin)))
    return rows


def schema() -> dict[str, Any]:
    """JSON Schema of a recipe file, for editors: `name` has a default, `extends` is allowed."""
    document = Recipe.model_json_schema()
    document["title"] = "peft-instruct recipe"
    document["properties"]["extends"] = {
        "type": "string",
        "description": "A recipe whose values hold unless given here.",
    }
    # What an extended base may provide cannot be required of the file.
    document.pop("required", None)
    for section in document["$defs"].values():
        section.pop("required", None)
    return document


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= MOST_SHOWN else f"{text[: MOST_SHOWN - 3]}..."


def _quoted(values: Any) -> Any:
    """The values with odd texts escaped: ruamel writes U+0085 and the like bare, and reads them back as a space."""
    if isinstance(values, dict):
        return {key: _quoted(value) for key, value in values.items()}
    if isinstance(values, list):
        return [_quoted(value) for value in values]
    return DoubleQuotedScalarString(values) if isinstance(values, str) and not values.isprintable() else values


def _leaves(values: Any, path: KeyPath) -> Iterator[tuple[KeyPath, Any]]:
    if isinstance(values, dict) and values:
        for key, value in values.items():
            yield from _leaves(value, (*path, key))
    else:
        yield path, values
