"""`data preview`: rows exactly as the model sees them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from peft_instruct.commands.data_target import recipe_of
from peft_instruct.commands.out_file import check_not_read
from peft_instruct.data.pieces import Piece, pieces_of
from peft_instruct.data.types import LengthReport, PromptCompletion, Tokens
from peft_instruct.errors import DatasetError

# `file:line`, `file:line (row N)`, `owner/name row N`
_PLACE = re.compile(r"(?::| row )(?P<line>\d+)(?: \(row (?P<row>\d+)\))?$")
MARKS = {"prompt": ("", ""), "learned": ("⟦", "⟧"), "stop": ("⟦", "⟧")}
"""Around the pieces where there are no colours."""


@dataclass(frozen=True)
class ShownRow:
    origin: str
    num_tokens: int
    num_learned: int
    pieces: tuple[Piece, ...]

    def heading(self) -> str:
        return f"── {self.origin}: {self.num_tokens} tokens, {self.num_learned} learned"


@dataclass(frozen=True)
class Preview:
    """Rows as the model sees them.

    Attributes:
        notes: how they were read, and what the length limit did to them.
        shows_ids: whether the text names the token ids.
    """

    rows: tuple[ShownRow, ...]
    notes: tuple[str, ...]
    tokenizer: str
    shows_ids: bool

    def record(self) -> dict[str, Any]:
        return asdict(self)

    def text(self) -> str:
        """For logs: what is learned stands in ⟦brackets⟧, the stop token in brackets of its own."""
        lines = []
        for row in self.rows:
            marked = (f"{MARKS[piece.kind][0]}{piece.text}{MARKS[piece.kind][1]}" for piece in row.pieces)
            lines += [row.heading(), "".join(marked), *(self.id_lines(row) if self.shows_ids else []), ""]
        return "\n".join([*lines, *self.last_lines()])

    def id_lines(self, row: ShownRow) -> list[str]:
        return [f"{piece.kind:<8} {' '.join(map(str, piece.ids))}" for piece in row.pieces]

    def last_lines(self) -> list[str]:
        return [*self.notes, f"tokens of {self.tokenizer}; ⟦learned⟧, the rest is only read"]


def data_preview(
    target: str,
    overrides: Sequence[str] = (),
    *,
    num_rows: int = 3,
    line: int | None = None,
    html: Path | None = None,
    shows_ids: bool = False,
) -> Preview:
    """The first training rows of a recipe or a file, or those of one line, tokenised as `train` does.

    Args:
        html: also write them as a page.

    Raises:
        PeftInstructError: the rows, the recipe or the tokenizer cannot be read, or no row is at that line.
    """
    from peft_instruct.commands.data_lengths import rows_and_tokenizer
    from peft_instruct.data.tokens import model_rows

    recipe = recipe_of(target, overrides)
    section = recipe.data
    if html is not None:
        check_not_read(html, [target, *section.all_names()], "--html")
    data, tokenizer = rows_and_tokenizer(recipe)
    rows = data.train[:num_rows]
    notes: tuple[str, ...] = ()
    if line is not None:
        found = _at_line(target, [*data.train, *data.validation, *data.test], line)
        # A whole file may stand in one line.
        rows = found[:num_rows]
        notes = (f"{len(found) - num_rows} more rows begin at line {line} (--rows)",) if len(found) > num_rows else ()
    tokens: Sequence[Tokens]
    try:
        tokens, report = model_rows(rows, tokenizer, section)
    except DatasetError:
        if section.overlong != "drop":
            raise
        # The rows asked for are those that training leaves out, and why is what the call is to tell.
        tokens, report = [], LengthReport(dropped=[row.origin for row in rows])
    shown = tuple(
        ShownRow(row.origin, len(row.input_ids), sum(label >= 0 for label in row.labels), pieces_of(row, tokenizer))
        for row in tokens
    )
    preview = Preview(shown, (*data.notes, *notes, *_notes(report, section.max_length)), recipe.model.base, shows_ids)
    if html is not None:
        html.write_text(_page(preview, target), encoding="utf-8")
    return preview


def _at_line(target: str, rows: Sequence[PromptCompletion], line: int) -> list[PromptCompletion]:
    """The rows that begin at a line, in their order there; of a hub data set, the row of that number.

    Raises:
        DatasetError: none does; the nearest line is named.
    """
    places = [(int(found["line"]), int(found["row"] or 0), row) for row in rows if (found := _PLACE.search(row.origin))]
    at_line = sorted(((number, row) for begin, number, row in places if begin == line), key=lambda pair: pair[0])
    if not at_line:
        nearest = min((begin for begin, _, _ in places), key=lambda begin: abs(begin - line))
        raise DatasetError(f"{target}: no row begins at line {line}; the nearest begins at {nearest}.")
    return [row for _, row in at_line]


def _notes(report: LengthReport, max_length: int) -> tuple[str, ...]:
    told = (
        (report.truncated, "the prompt is cut from its left"),
        (report.stopless, "the completion is cut and has no stop token"),
        (report.dropped, "left out"),
    )
    return tuple(f"data.max_length {max_length}: {what}: {', '.join(origins)}" for origins, what in told if origins)


def _page(preview: Preview, title: str) -> str:
    from peft_instruct.report.html import PreviewContent, render_preview

    return render_preview(
        PreviewContent(
            title=title,
            rows=[
                (row.heading(), [(piece.kind, piece.text, " ".join(map(str, piece.ids))) for piece in row.pieces])
                for row in preview.rows
            ],
            notes=preview.notes,
            shows_ids=preview.shows_ids,
        )
    )
