"""Files of prompts in, files of completions out. Imports no torch: a broken file is told before a model is loaded."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from peft_instruct.data.sources import is_hub_id, read_rows
from peft_instruct.data.templates import Template
from peft_instruct.data.types import Row
from peft_instruct.errors import DatasetError, RecipeError

if TYPE_CHECKING:
    from peft_instruct.inference.complete import Generation

KEPT_PREFIX = "given_"
"""A column of the file that has the name of one of ours is kept under this prefix."""


@dataclass(frozen=True)
class PromptRow:
    """A row of the file and the prompt that it comes to."""

    values: dict[str, Any]
    prompt: str
    origin: str


def read_prompts(source: str, template: Template) -> list[PromptRow]:
    """Rows with `instruction` (and `input`), rendered by the template, or with `prompt`, taken as it is.

    Raises:
        DatasetError: no such file, or broken rows, every one named by file and line.
    """
    if is_hub_id(source):
        raise DatasetError(f"{source}: no such file. expected a .jsonl, .json, .csv or .parquet file of prompts.")
    problems: list[str] = []
    rows = []
    for row in read_rows(source).rows:
        found = _problems_of(row)
        problems += found
        if not found:
            rows.append(PromptRow(row.values, _prompt(row.values, template), row.origin))
    if problems:
        raise DatasetError.of(source, problems)
    return rows


def _prompt(values: dict[str, Any], template: Template) -> str:
    if "prompt" in values:
        return str(values["prompt"])
    return template.prompt(values["instruction"], values.get("input") or "")


def _problems_of(row: Row) -> list[str]:
    named = [name for name in ("instruction", "prompt") if name in row.values]
    if len(named) != 1:
        found = " and ".join(map(repr, named)) or f"columns {', '.join(map(repr, row.values)) or 'none'}"
        return [f"{row.origin}: {found}. expected one of instruction and prompt."]
    problems = []
    value, given_input = row.values[named[0]], row.values.get("input")
    if not isinstance(value, str) or not value.strip():
        problems.append(f"{row.origin}: {named[0]!r} is {_shown(value)}. expected text.")
    if named[0] == "instruction" and not (given_input is None or isinstance(given_input, str)):
        problems.append(f"{row.origin}: 'input' is {_shown(given_input)}. expected text, or none.")
    return problems


def completed_row(values: dict[str, Any], tuned: Generation, base: Generation | None) -> dict[str, Any]:
    """A row of the output: the row of the input with what was generated for it."""
    added: dict[str, Any] = {
        "completion": tuned.completion,
        "stopped": tuned.stopped,
        "num_tokens": tuned.num_tokens,
    }
    if base is not None:
        added |= {"base_completion": base.completion, "base_stopped": base.stopped, "base_num_tokens": base.num_tokens}
    if tuned.num_cut:
        added["num_prompt_tokens_cut"] = tuned.num_cut
    return {**{f"{KEPT_PREFIX}{name}" if name in added else name: value for name, value in values.items()}, **added}


def json_line(values: dict[str, Any]) -> str:
    """One line of JSON; what JSON has no type for (a date of a parquet file) becomes text."""
    return json.dumps(values, ensure_ascii=False, default=str) + "\n"


@contextmanager
def finished_file(path: Path) -> Iterator[TextIO]:
    """A file that appears under its name only when the block is done; opened at once, so that a bad path is told early.

    Raises:
        RecipeError: a folder, or it cannot be written there.
    """
    if path.is_dir():
        raise RecipeError(f"--out {path}: is a folder. expected the name of a file.")
    partial = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        stream = partial.open("w", encoding="utf-8", newline="\n")
    except OSError as error:
        raise RecipeError(f"--out {path}: cannot be written ({error.strerror}). Name another file.") from error
    try:
        with stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _shown(value: Any) -> str:
    if value is None:
        return "null"
    return repr(value) if isinstance(value, str) else f"{type(value).__name__} {str(value)[:40]!r}"
