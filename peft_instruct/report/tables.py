"""Tables for a terminal and for Markdown, from the same header and rows."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from peft_instruct.report.safe_text import safe_text

Rows = Sequence[Sequence[str]]

_NUMBER = r"[-+]?\d[\d,]*(\.\d+)?(e[-+]?\d+)?"
_FIGURE = re.compile(rf"{_NUMBER}(–{_NUMBER})? ?[%×]?|–|")
"""A number or a range of numbers; a dash or nothing stands for one that is not there."""
_MARKDOWN = re.compile(r"([\\`*_\[\]<>|~&])")


def text_table(header: Sequence[str], rows: Rows) -> str:
    """Aligned columns under a rule; columns of numbers stand on the right."""
    cells = _one_line_cells(header, rows)
    widths = [max(display_width(line[column]) for line in cells) for column in range(len(header))]
    right = [_is_numeric([line[column] for line in cells[1:]]) for column in range(len(header))]
    lines = [
        "  ".join(_padded(text, width, on_right) for text, width, on_right in zip(line, widths, right, strict=True))
        for line in cells
    ]
    lines.insert(1, "  ".join("─" * width for width in widths))
    return "\n".join(line.rstrip() for line in lines)


def markdown_table(header: Sequence[str], rows: Rows) -> str:
    """A GitHub-flavoured table; a cell is text, never markup."""
    cells = [[_MARKDOWN.sub(r"\\\1", text) for text in line] for line in _one_line_cells(header, rows)]
    right = [_is_numeric([line[column] for line in cells[1:]]) for column in range(len(header))]
    rule = ["---:" if on_right else "---" for on_right in right]
    return "\n".join(f"| {' | '.join(line)} |" for line in [cells[0], rule, *cells[1:]])


def display_width(text: str) -> int:
    """Columns that a terminal gives the text: two for wide characters, none for combining ones (UAX #11)."""
    return sum(_character_width(character) for character in text)


def _character_width(character: str) -> int:
    if unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def _one_line_cells(header: Sequence[str], rows: Rows) -> list[list[str]]:
    lines = [[safe_text(text, keep="") for text in line] for line in [header, *rows]]
    wrong = [number for number, line in enumerate(lines) if len(line) != len(header)]
    if wrong:
        raise ValueError(f"table line {wrong[0]} has {len(lines[wrong[0]])} cells for {len(header)} columns")
    return lines


def _padded(text: str, width: int, on_right: bool) -> str:
    space = " " * (width - display_width(text))
    return space + text if on_right else text + space


def _is_numeric(column: list[str]) -> bool:
    return any(any(c.isdigit() for c in text) for text in column) and all(_FIGURE.fullmatch(text) for text in column)
