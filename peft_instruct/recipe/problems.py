"""pydantic's findings, told as `place: path: what. Did you mean …?`"""

from __future__ import annotations

import difflib
import types
from collections.abc import Callable, Iterator
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError

from peft_instruct.recipe.source import KeyPath

PlaceOf = Callable[[KeyPath], str]


def problem_lines(error: ValidationError, model: type[BaseModel], place_of: PlaceOf) -> list[str]:
    """One line per wrong key, in the order of the places."""
    by_path: dict[KeyPath, list[Any]] = {}
    for finding in error.errors(include_url=False):
        by_path.setdefault(_key_path(finding["loc"], model), []).append(finding)
    lines = []
    for path, findings in by_path.items():
        if findings[0]["type"] in ("literal_error", "string_type") and any(
            p[: len(path)] == path for p in by_path if p != path
        ):
            continue  # the value is of the other branch of the union, which is told by itself
        for where, text in _tell(path, findings, model):
            name = ".".join(map(str, where))
            lines.append((place_of(where), f"{name}: {text}" if name else text))
    return [f"{place}: {text}" for place, text in sorted(lines, key=lambda pair: _by_line(pair[0]))]


def _tell(path: KeyPath, findings: list[Any], model: type[BaseModel]) -> Iterator[tuple[KeyPath, str]]:
    # A mapping that fails a check of its own was meant as a mapping, whatever words the key also takes.
    first = next((finding for finding in findings if finding["type"] == "value_error"), findings[0])
    if first["type"] == "extra_forbidden":
        yield path, "unknown key." + _suggestion(str(path[-1]), list(_fields_at(model, path[:-1])))
    elif first["type"] == "missing":
        yield path, "missing. It has no default."
    elif first["type"] == "value_error":
        # Our own validators raise one line per problem; a line may name a key of its own.
        for line in str(first["ctx"]["error"]).split("\n"):
            key, separator, text = line.partition(": ")
            relative = tuple(key.split("."))
            known = separator and relative[0] in _fields_at(model, path)
            yield ((*path, *relative), _sentence(text)) if known else (path, _sentence(line))
    else:
        wants = list(dict.fromkeys(_expectation(finding) for finding in findings))
        value = first["input"]
        literals = [c for f in findings for c in f.get("ctx", {}).get("expected", "").replace("'", "").split(" or ")]
        choices = [choice for part in literals for choice in part.split(", ") if choice]
        hint = _suggestion(value, choices, only_close=True) if isinstance(value, str) else ""
        yield path, f"{_show(value)}. expected {' or '.join(wants)}.{hint}"


def _expectation(finding: Any) -> str:
    text = finding["msg"]
    if "dictionary or instance" in text:
        return "a mapping of keys"
    if finding["type"] == "string_pattern_mismatch":
        return f"text that matches {finding['ctx']['pattern']}"
    if finding["type"] == "too_short":
        return "a list of at least one"
    for prefix in ("Input should be a valid ", "Input should be ", "String should have "):
        if text.startswith(prefix):
            rest = text.removeprefix(prefix)
            return {"dictionary": "a mapping of keys", "string": "text", "list": "a list"}.get(
                rest,
                {"integer": "a whole number", "number": "a number", "boolean": "true or false"}.get(rest, rest),
            )
    return str(text)


def _show(value: Any) -> str:
    if isinstance(value, dict):
        return "is a mapping"
    if value is None:
        return "is empty"
    shown = repr(value)
    return "is " + (shown if len(shown) <= 60 else shown[:57] + "...")


def _sentence(text: str) -> str:
    return text if text.endswith((".", "?")) else text + "."


def _suggestion(word: str, known: list[str], only_close: bool = False) -> str:
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.7 if only_close else 0.6)
    if close:
        return f" Did you mean `{close[0]}`?"
    return "" if only_close or not known else f" Known here: {', '.join(known)}."


def _key_path(loc: tuple[Any, ...], model: type[BaseModel]) -> KeyPath:
    """The keys of `loc`, without the names that pydantic adds for the branches of a union."""
    path: list[str | int] = []
    branch_at = -1
    for part in loc:
        inside = _annotation_at(model, tuple(path))
        # In a list only a position is a key, beneath a leaf nothing is.
        if isinstance(part, int) or inside is not None:
            known = _fields_of(inside)
            # A branch is named once, and only where there are several; a key of the user may be called `int` too.
            if branch_at < len(path) and isinstance(part, str) and part not in known and _names_a_branch(part, inside):
                branch_at = len(path)
                continue
            path.append(part)
    return tuple(path)


def _names_a_branch(part: str, annotation: Any) -> bool:
    if isinstance(annotation, type):
        return False
    classes = {c.__name__ for c in _classes(annotation)}
    return (
        part in classes or "[" in part or part in ("int", "float", "str", "bool", "constrained-int", "constrained-str")
    )


def _fields_at(model: type[BaseModel], path: KeyPath) -> tuple[str, ...]:
    return _fields_of(_annotation_at(model, path))


def _fields_of(annotation: Any) -> tuple[str, ...]:
    return tuple(name for c in _classes(annotation) for name in c.model_fields)


def _annotation_at(model: type[BaseModel], path: KeyPath) -> Any:
    """The annotation of the value at `path`; None beneath a leaf."""
    annotation: Any = model
    for part in path:
        if isinstance(part, int):  # what holds for a list's place holds for the list
            continue
        fields = [c.model_fields[part].annotation for c in _classes(annotation) if part in c.model_fields]
        annotation = fields[0] if fields else None
    return annotation


def _classes(annotation: Any) -> Iterator[type[BaseModel]]:
    """The section classes that an annotation admits."""
    if isinstance(annotation, type) and not isinstance(annotation, types.GenericAlias):
        if issubclass(annotation, BaseModel):
            yield annotation
    elif get_origin(annotation) is not None:
        for argument in get_args(annotation):
            yield from _classes(argument)


def _by_line(place: str) -> tuple[str, int, int]:
    head, _, column = place.rpartition(":")
    label, _, line = head.rpartition(":")
    return (label, int(line), int(column)) if line.isdecimal() and column.isdecimal() else (place, 0, 0)
