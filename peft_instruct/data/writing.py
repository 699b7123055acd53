"""Rows -> JSON Lines that our own reader takes again."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from peft_instruct.whole_file import whole_file

# What acts on a terminal and JSON leaves as it is, and halves of surrogate pairs, which have no bytes in UTF-8.
_ESCAPED = re.compile(r"[\x7f-\x9f\ud800-\udfff]")


def json_line(values: Mapping[str, Any]) -> str:
    """One line of JSON; of a parquet file, what JSON has no type for (a date) becomes text, and NaN null."""
    try:
        line = json.dumps(values, ensure_ascii=False, default=str, allow_nan=False)
    except ValueError:
        line = json.dumps(without_nan(values), ensure_ascii=False, default=str)
    return _ESCAPED.sub(lambda found: f"\\u{ord(found[0]):04x}", line) + "\n"


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """All or nothing: a full disk leaves no half of a file that looks like a whole one."""
    with whole_file(path) as file:
        file.writelines(map(json_line, rows))


def without_nan(value: Any) -> Any:
    """With null for every number that is none, and for the infinite ones: JSON has neither."""
    if isinstance(value, Mapping):
        return {key: without_nan(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
