"""The JSON Schema that editors get says what the reader says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from peft_instruct.recipe.shipped import shipped_recipes
from peft_instruct.recipe.writing import schema


@pytest.mark.parametrize("path", shipped_recipes(), ids=lambda path: path.stem)
def test_the_json_schema_accepts_the_shipped_recipes(path: Path) -> None:
    from ruamel.yaml import YAML

    document = schema()
    assert _against(YAML(typ="safe", pure=True).load(path), document, document) == []


@pytest.mark.parametrize(
    "values",
    [
        {"modle": {}},
        {"model": {"base": 3}},
        {"training": {"epochs": 0}},
        {"training": {"device": "gpu"}},
        {"samples": {"instructions": [1]}},
        {"training": {"keep_best": "yes"}},
        {"data": {"template": {"promt": "x"}}},
        {"extends": 3},
    ],
)
def test_the_json_schema_refuses_what_the_reader_refuses(values: dict[str, Any]) -> None:
    document = schema()
    assert _against(values, document, document)


def test_the_json_schema_explains_every_key_that_its_name_does_not() -> None:
    document = schema()
    silent = {
        f"{section}.{key}"
        for section, content in document["$defs"].items()
        for key, value in content["properties"].items()
        if section != "Columns" and "description" not in value and "$ref" not in str(value)
    }
    assert {key.rpartition(".")[2] for key in silent} <= {
        "adam_beta1", "adam_beta2", "adam_epsilon",
        "batch_size", "max_new_tokens", "repetition_penalty", "top_p",
    }  # fmt: skip


TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
    "array": (list,),
    "object": (dict,),
}
NO_CHECK = {"title", "description", "default", "$defs", "pattern"}


def _against(value: Any, rule: dict[str, Any], document: dict[str, Any]) -> list[str]:
    """What JSON Schema finds wrong, for the keywords that our schema uses; another keyword is a KeyError."""
    checks = {
        "$ref": lambda r: _against(value, document["$defs"][r.rpartition("/")[2]], document),
        "anyOf": lambda rs: [] if any(not _against(value, r, document) for r in rs) else [f"{value!r}: no branch"],
        "type": lambda t: (
            []
            if isinstance(value, TYPES[t]) and (t == "boolean" or not isinstance(value, bool))
            else [f"{value!r}: {t}"]
        ),
        "enum": lambda words: [] if value in words else [f"{value!r}: {words}"],
        "const": lambda word: [] if value == word else [f"{value!r}: {word}"],
        "minimum": lambda n: [] if not isinstance(value, float | int) or value >= n else [f"{value} < {n}"],
        "exclusiveMinimum": lambda n: [] if not isinstance(value, float | int) or value > n else [f"{value} <= {n}"],
        "maximum": lambda n: [] if not isinstance(value, float | int) or value <= n else [f"{value} > {n}"],
        "exclusiveMaximum": lambda n: [] if not isinstance(value, float | int) or value < n else [f"{value} >= {n}"],
        "minLength": lambda n: [] if not isinstance(value, str) or len(value) >= n else [f"{value!r}: short"],
        "minItems": lambda n: [] if not isinstance(value, list) or len(value) >= n else [f"{value!r}: few"],
        "items": lambda r: (
            [p for item in value for p in _against(item, r, document)] if isinstance(value, list) else []
        ),
        "properties": lambda rules: (
            [p for key, r in rules.items() if key in value for p in _against(value[key], r, document)]
            if isinstance(value, dict)
            else []
        ),
        "additionalProperties": lambda allowed: (
            []
            if allowed or not isinstance(value, dict)
            else [f"{key}: unknown" for key in value if key not in rule["properties"]]
        ),
    }
    return [problem for word, content in rule.items() if word not in NO_CHECK for problem in checks[word](content)]
