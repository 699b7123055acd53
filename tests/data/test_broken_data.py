"""Every broken data file is told whole: each problem at its file and line, as a DatasetError (exit code 3)."""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from peft_instruct.data.prepare import read_source
from peft_instruct.errors import DatasetError
from peft_instruct.recipe.data_section import DataSection

GOOD = '{"instruction": "Say hi.", "input": "", "output": "Hi."}'
TABLE = Path(__file__).with_name("broken_rows.txt")


@dataclass(frozen=True)
class Broken:
    """A broken file.

    Attributes:
        content: text, bytes, or what writes the file (parquet, folders).
        expected: the beginning of each line of the message, `F` for the file.
        section: other keys of the data section.
    """

    name: str
    file: str
    content: str | bytes | Callable[[Path], Any]
    expected: tuple[str, ...]
    section: dict[str, Any] = field(default_factory=dict)

    def write(self, folder: Path) -> Path:
        path = folder / self.file
        if callable(self.content):
            self.content(path)
        else:
            path.write_bytes(self.content if isinstance(self.content, bytes) else self.content.encode())
        return path


def _parquet(**columns: Any) -> Callable[[Path], Any]:
    def write(path: Path) -> None:
        import pyarrow
        import pyarrow.parquet

        pyarrow.parquet.write_table(pyarrow.table(columns), path)

    return write


def _table() -> Iterator[Broken]:
    for block in TABLE.read_text(encoding="utf-8").split("\n## ")[1:]:
        name, about, *lines = block.rstrip("\n").split("\n")
        file, _, section = about.removeprefix("= ").partition(" ")
        content = [line for line in lines if not line.startswith("> ")]
        expected = tuple(line[2:] for line in lines if line.startswith("> "))
        yield Broken(name, file, "\n".join(content) + "\n", expected, json.loads(section or "{}"))


DEEP = '{"instruction": ' + "[" * 100_000 + "]" * 100_000 + "}"
NUMBERS = "".join(f'{{"instruction": "a", "output": {number}}}\n' for number in range(25))
NOT_TEXT = (
    Broken("an empty file", "f.json", "", ("F: no rows. expected at least one record.",)),
    Broken("an empty jsonl file", "f.jsonl", "", ("F: no rows.",)),
    Broken("an empty csv file", "f.csv", "", ("F: no rows.",)),
    Broken("an empty parquet file", "f.parquet", b"", ("F: not a parquet file",)),
    Broken("white space", "f.json", " \n\n", ("F: no rows.",)),
    Broken("a byte order mark alone", "f.json", "\ufeff", ("F: no rows.",)),
    Broken("100,000 levels", "f.json", f"[{DEEP}]", ("F:1:2: ",)),
    Broken("100,000 levels in jsonl", "f.jsonl", f"{GOOD}\n{DEEP}\n", ("F:2:1: ",)),
    Broken("25 problems", "f.jsonl", NUMBERS, (*(f"F:{n}: 'output' is int" for n in range(1, 21)), "... and 5 more")),
    Broken("UTF-16", "f.json", f"[{GOOD}]".encode("utf-16"), ("F:1: not UTF-8 (byte 0).",)),
    Broken("UTF-16 without a mark", "f.jsonl", GOOD.encode("utf-16-le"), ("F:1:2: ",)),
    Broken("UTF-16 csv", "f.csv", "instruction,output\na,b\n".encode("utf-16"), ("F:1: not UTF-8 (byte 0).",)),
    Broken("latin-1", "f.json", '[\n{"instruction": "café"}]'.encode("latin-1"), ("F:2: not UTF-8 (byte 22).",)),
    Broken("latin-1 jsonl", "f.jsonl", f'{GOOD}\n{{"output": "é"}}'.encode("latin-1"), ("F:2: not UTF-8",)),
    Broken("latin-1 csv", "f.csv", "instruction,output\na,b\ncafé,d\n".encode("latin-1"), ("F:3: not UTF-8",)),
    Broken("zeros", "f.json", b"\x00" * 10, ("F:1:1: ",)),
    Broken("parquet cut short", "f.parquet", b"PAR1\x00\x00\x00\x00PAR1", ("F: not a parquet file",)),
    Broken("parquet without rows", "f.parquet", _parquet(instruction=[], output=[]), ("F: no rows.",)),
    Broken(
        "parquet with null and numbers",
        "f.parquet",
        _parquet(instruction=["a", None], output=[3, 4]),
        ("F:1: 'output' is int '3'.", "F:2: 'instruction' is null.", "F:2: 'output' is int '4'."),
    ),
    Broken(
        "parquet with dates",
        "f.parquet",
        _parquet(instruction=["a"], output=[datetime.date(2024, 1, 1)]),
        ("F:1: 'output' is date '2024-01-01'.",),
    ),
    Broken("parquet with bytes", "f.parquet", _parquet(instruction=["a"], output=[b"b"]), ("F:1: 'output' is bytes",)),
    Broken(
        "parquet with other columns",
        "f.parquet",
        _parquet(a=["b"]),
        ("F: cannot read the rows as auto; the columns are 'a'.",),
    ),
    Broken("a folder named as a file", "f.json", Path.mkdir, ("F: cannot be read (Is a directory).",)),
    Broken("a folder", "rows", Path.mkdir, ("F: a folder without a file of rows in it.",)),
    Broken(
        "no such file",
        "f.json",
        lambda path: None,
        ("F: no such file. expected a .json, .jsonl, .csv, .tsv, .parquet or .txt",),
    ),
)
BROKEN = (*_table(), *NOT_TEXT)


def test_the_table_has_every_name_once() -> None:
    assert len({broken.name for broken in BROKEN}) == len(BROKEN) >= 25


@pytest.mark.parametrize("broken", BROKEN, ids=[broken.name for broken in BROKEN])
def test_every_problem_is_told_at_its_line(broken: Broken, tmp_path: Path) -> None:
    path = broken.write(tmp_path)
    section = DataSection.model_validate({"train": str(path), **broken.section})
    with pytest.raises(DatasetError) as caught:
        read_source(str(path), section)
    message = str(caught.value)
    lines = message.split("\n")
    if len(lines) > 1:
        assert lines[0].startswith(f"{path}: "), "the head counts the problems"
        lines = [line.removeprefix("  ") for line in lines[1:]]
    assert len(lines) == len(broken.expected), message
    for line, expected in zip(lines, broken.expected, strict=True):
        assert line.replace(str(path), "F").startswith(expected), message
        assert line.endswith((".", "more")), message
    assert caught.value.exit_code == 3
