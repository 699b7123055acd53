"""Which file a row is from, and what is said of a file that is not as it should be."""

from __future__ import annotations

from pathlib import Path

import pytest

from peft_instruct.data.prepare import read_instruction_data
from peft_instruct.data.sources import read_rows
from peft_instruct.data.splits import _source
from peft_instruct.data.types import PromptCompletion
from peft_instruct.errors import DatasetError
from peft_instruct.recipe.data_section import DataSection


def test_one_file_spelled_in_two_ways_is_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("rows.jsonl").write_text('{"instruction": "a", "output": "b"}\n' * 4)
    for other in ("./rows.jsonl", str(tmp_path / "rows.jsonl"), "*.jsonl", "."):
        section = DataSection(train=["rows.jsonl", other])
        with pytest.raises(DatasetError, match=r"is named by two sources"):
            read_instruction_data(section, 0)


def test_the_first_broken_line_hides_no_other(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_text('{"instruction": "a", "output": NaN}\n{"instruction": "a", "output": "b"}\n')
    with pytest.raises(DatasetError, match="NaN is not JSON"):
        read_rows(str(path))
    path.write_text('{"instruction": "a",\n "output": "b"}\n')
    with pytest.raises(DatasetError, match="one record, not a list"):
        read_rows(str(path))


def test_a_name_that_no_file_can_have_is_told() -> None:
    with pytest.raises(DatasetError, match="no such file"):
        read_rows("a" * 300 + ".json")


def test_the_source_of_a_row_is_its_file_whatever_that_is_called() -> None:
    origins = ["my row data/a.jsonl:5", "my row data/b.jsonl:5", "a/b:train row 7", "a.json:1 (row 3)"]
    assert [_source(PromptCompletion("", "", origin)) for origin in origins] == [
        "my row data/a.jsonl", "my row data/b.jsonl", "a/b:train", "a.json",
    ]  # fmt: skip


def test_semicolons_part_the_columns_where_no_comma_does(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("\ufeffinstruction;output\nHow much?;1,50\n", encoding="utf-8")
    (row,) = read_rows(str(path)).rows
    assert row.values == {"instruction": "How much?", "output": "1,50"}
