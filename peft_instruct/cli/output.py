"""What a command prints: its result on stdout, its progress on stderr, nothing that acts on a terminal."""

from __future__ import annotations

import errno
import json
import os
import shutil
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol

import click

from peft_instruct.data.writing import without_nan
from peft_instruct.report.safe_text import safe_text
from peft_instruct.secrets import hide_secrets

if TYPE_CHECKING:
    from peft_instruct.commands.data_preview import Preview


class Result(Protocol):
    """What every command returns."""

    def record(self) -> dict[str, Any]: ...
    def text(self) -> str: ...


def shown(text: str, keep: str = "\n\t") -> str:
    """What is said about a run: without secrets, and without what acts on a terminal."""
    return safe_text(hide_secrets(text), keep)


class Progress:
    """Lines on stderr; on a terminal the last one may be rewritten in place."""

    def __init__(self) -> None:
        self.is_live = False

    def say(self, line: str) -> None:
        self._write(("\r\x1b[2K" if self.is_live else "") + shown(line) + "\n")
        self.is_live = False

    def live(self, line: str) -> None:
        # A line that wraps could not be taken back.
        fitting = shown(line, keep="")[: shutil.get_terminal_size().columns - 1]
        self._write(f"\r\x1b[2K{fitting}")
        self.is_live = True

    def _write(self, text: str) -> None:
        # A terminal that was closed, or a reader that has gone, ends no run.
        with suppress(OSError):
            click.echo(text, err=True, nl=False)


def say(line: str) -> None:
    """A line of progress of a command that has no live line."""
    click.echo(shown(line), err=True)


def _document(record: dict[str, Any]) -> str:
    try:
        return json.dumps(record, indent=2, default=str, allow_nan=False)
    except ValueError:
        return json.dumps(without_nan(record), indent=2, default=str)


def show(result: Result, as_json: bool) -> None:
    # What models and data say acts on no terminal: escapes are shown, JSON is ASCII. What JSON has no type for (a date
    # of a parquet file) becomes text, a number that is none null.
    try:
        click.echo(_document(result.record()) if as_json else safe_text(result.text()))
    except OSError as error:
        if error.errno not in (errno.EPIPE, errno.EIO):
            raise
        # The reader has gone; what it did not want to read is not to fail again when Python ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


STYLES: dict[str, dict[str, Any]] = {
    "prompt": {"dim": True},
    "learned": {"bold": True, "fg": "green"},
    "stop": {"reverse": True, "fg": "red"},
}


def show_pieces(preview: Preview) -> None:
    """Rows in colours; only the escapes of the styles reach the terminal, those of the rows are made visible."""
    for row in preview.rows:
        click.echo(safe_text(row.heading(), keep=""))
        click.echo("".join(click.style(safe_text(piece.text), **STYLES[piece.kind]) for piece in row.pieces))
        for line in preview.id_lines(row) if preview.shows_ids else []:
            click.echo(line)
        click.echo()
    for line in preview.last_lines():
        click.echo(safe_text(line))


def stream(piece: str) -> None:
    """A piece of a completion as it is generated."""
    click.echo(safe_text(piece), nl=False)
