"""YAML in, plain values and the place of each of them out."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.composer import Composer
from ruamel.yaml.constructor import ConstructorError, RoundTripConstructor
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from peft_instruct.errors import RecipeError, first_line

MOST_BYTES = 1 << 20
# Aliases are shared references until they are walked: nine levels of them are a billion nodes.
MOST_NODES = 10_000
DEEPEST = 32
_TOO_MUCH = f"more than {MOST_NODES} values (aliases count every time) or more than {DEEPEST} levels. A recipe has few."

_lone_surrogate = re.compile("[\ud800-\udfff]")

KeyPath = tuple[str | int, ...]


@dataclass
class Source:
    """The values of one recipe file (or of the `--set` options) and where each key stands."""

    label: str
    values: dict[str, Any]
    places: dict[KeyPath, str] = field(default_factory=dict)


def read_text(path: Path) -> str:
    """The text of a recipe file.

    Raises:
        RecipeError: not readable, not UTF-8, or larger than a recipe ever is.
    """
    try:
        if path.stat().st_size > MOST_BYTES:
            raise RecipeError(f"{path}: larger than {MOST_BYTES} bytes. A recipe is a page of YAML.")
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise RecipeError(f"{path}: cannot be read ({error.strerror}).") from error
    except UnicodeDecodeError as error:
        raise RecipeError(f"{path}: not UTF-8 (byte {error.start}). Save it as UTF-8.") from error


def read_source(path: Path) -> Source:
    """The plain values of a YAML mapping with `file:line:column` of each key.

    Raises:
        RecipeError: not readable, not YAML, a duplicate key, not a mapping, or larger than the caps above.
    """
    text = read_text(path)
    label = str(path)
    try:
        loaded = _load(text, label)
    except MarkedYAMLError as error:
        raise RecipeError(f"{_mark(label, error)}: not valid YAML: {_yaml_problem(error)}.") from error
    except (YAMLError, ValueError, RecursionError) as error:
        raise RecipeError(f"{label}: not valid YAML: {first_line(error)}.") from error
    if not isinstance(loaded, dict):
        found = "is empty" if loaded is None else "is a list" if isinstance(loaded, list) else "is a single value"
        raise RecipeError(f"{label}:1:1: {found}. expected a mapping with `model:` and `data:`.")
    source = Source(label, {})
    source.values = _Walk(source).plain(loaded, (), 0)
    return source


def parse_scalar(text: str) -> Any:
    """The value that `text` has as a YAML scalar or flow collection: `1e-4` is a number, `no` a string."""
    holder = Source("--set", {})
    return _Walk(holder).plain(_load(text, holder.label), (), 0)


def _load(text: str, label: str) -> Any:
    reader = YAML(typ="rt")
    reader.Composer = _ShallowComposer
    reader.Constructor = _MarkingConstructor
    try:
        return reader.load(StringIO(text))
    except _TooDeepError as error:
        raise RecipeError(f"{label}: {_TOO_MUCH}") from error
    except (AttributeError, LookupError, TypeError) as error:
        # ruamel 0.18 on `!!omap x` or a bare `!!float`; fuzzing found these.
        raise YAMLError("a tag that does not hold for its value") from error


class _TooDeepError(Exception):
    pass


class _ShallowComposer(Composer):
    """Gives up where it is too deep; ruamel's own takes seconds to find the end of Python's stack."""

    depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        self.depth += 1
        if self.depth > DEEPEST:
            raise _TooDeepError
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


class _MarkingConstructor(RoundTripConstructor):
    """Tells the place of a scalar that is no value of its kind: `2024-13-45`, `!!int x`, 5000 digits."""

    def construct_object(self, node: Any, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except ValueError as error:
            raise ConstructorError(None, None, str(error).partition(";")[0], node.start_mark) from error


class _Walk:
    """One pass over ruamel's tree that makes plain values and notes places."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.num_nodes = 0

    def plain(self, node: Any, path: KeyPath, depth: int) -> Any:
        self.num_nodes += 1
        if self.num_nodes > MOST_NODES or depth > DEEPEST:
            raise RecipeError(f"{self.source.label}: {_TOO_MUCH}")
        if isinstance(node, dict):
            values = {}
            for key, value in node.items():
                here = (*path, str(key))
                self._note(here, node, key)
                values[str(key)] = self.plain(value, here, depth + 1)
            return values
        if isinstance(node, list):
            values_here = []
            for index, value in enumerate(node):
                inside = (*path, index)
                self._note(inside, node, index)
                values_here.append(self.plain(value, inside, depth + 1))
            return values_here
        scalar = _plain_scalar(node)
        if isinstance(scalar, str) and _lone_surrogate.search(scalar):
            place = self.source.places.get(path, self.source.label)
            raise RecipeError(f"{place}: holds half of a surrogate pair, which is no character.")
        return scalar

    def _note(self, path: KeyPath, parent: Any, key: Any) -> None:
        # ruamel marks no place for what a tag (`!!omap`) or a merge (`<<: *other`) brings in: its parent's holds.
        mark = (parent.lc.data or {}).get(key) if hasattr(parent, "lc") else None
        if mark is not None:
            self.source.places[path] = f"{self.source.label}:{mark[0] + 1}:{mark[1] + 1}"


def _plain_scalar(node: Any) -> Any:
    for plain in (bool, int, float, str):
        if isinstance(node, plain):
            return plain(node)
    if node is None:
        return None
    # Timestamps, tagged and binary values: kept as the text that stands in the file, which the schema then judges.
    return str(getattr(node, "value", node))


def _mark(label: str, error: MarkedYAMLError) -> str:
    mark = error.problem_mark or error.context_mark
    return label if mark is None else f"{label}:{mark.line + 1}:{mark.column + 1}"


def _yaml_problem(error: MarkedYAMLError) -> str:
    key = re.match(r'found duplicate key "(.*?)"', error.problem or "")
    return f"the key `{key.group(1)}` stands twice" if key else (error.problem or "syntax")
