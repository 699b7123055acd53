"""`data check`: what it finds beside what `train` refuses, and the copies that it makes."""

from __future__ import annotations

import json
import math
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from test_data_commands import invoke
from tiny import tiny_rows

from peft_instruct.commands.data_check import data_check
from peft_instruct.commands.data_stats import data_stats
from peft_instruct.data.prepare import read_source
from peft_instruct.errors import DatasetError
from peft_instruct.recipe.data_section import DataSection


def test_check_tells_train_rows_among_the_evaluation_rows(tmp_path: Path) -> None:
    rows = tiny_rows()
    train, other = tmp_path / "train.json", tmp_path / "held_out.json"
    train.write_text(json.dumps(rows, indent=1), encoding="utf-8")
    other.write_text(json.dumps([{**rows[3], "output": "Something else."}]), encoding="utf-8")
    found = data_check(str(train), against=[str(other)]).findings
    assert [(f.code, f.origin.split(" ")[0]) for f in found] == [("train-evaluation-overlap", f"{train}:17")]
    assert str(other) in found[0].detail


def test_check_of_a_recipe_tells_what_is_too_long(tiny_recipe: Path) -> None:
    def overlong(limit: int) -> int:
        return sum(
            finding.code == "overlong"
            for finding in data_check(str(tiny_recipe), [f"data.max_length={limit}"]).findings
        )

    lengths = data_stats(str(tiny_recipe)).lengths["row"]
    limit = lengths["p50"]
    assert 0 < overlong(limit) == data_stats(str(tiny_recipe), [f"data.max_length={limit}"]).over <= 32
    assert overlong(lengths["p100"]) == 0


def test_a_row_is_looked_at_once_whatever_the_weight_of_its_source(tiny_recipe: Path, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in tiny_rows()[:8]))
    asked = ["data.max_length=9", "data.limit=3", "data.split=rows"]
    for weight in ("weight: 3", "weight: 0.2", "rows: 2"):
        of_weight = [f"data.train=[{{source: {path}, {weight}}}]", *asked]
        codes = [finding.code for finding in data_check(str(tiny_recipe), of_weight).findings]
        assert codes.count("overlong") == data_stats(str(tiny_recipe), of_weight).num_rows == 8


def test_check_says_where_lengths_were_not_looked_at(tiny_recipe: Path, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in [*tiny_rows()[:4], {"instruction": "a", "output": 3}]))
    assert not data_check(str(tiny_recipe), [f"data.train={path}"]).lengths_checked


def test_check_tells_what_train_refuses_beside_what_it_found(tiny_recipe: Path, tmp_path: Path) -> None:
    rows = [*tiny_rows()[:3], {"instruction": "Say.", "output": ""}]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    result = data_check(str(tiny_recipe), [f"data.train={path}", "data.empty=error"])
    assert [finding.code for finding in result.findings] == ["empty-answer"]
    assert result.has_errors and f"{path}:4" in result.refusal and "`train` refuses the rows" in result.text()


@pytest.mark.parametrize(("name", "value"), [("accepted", True), ("accepted", [1]), ("group", 3)])
def test_check_finds_every_column_that_train_refuses(tmp_path: Path, name: str, value: Any) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({**row, name: value}) + "\n" for row in tiny_rows()[:2]))
    assert [finding.code for finding in data_check(str(path)).findings] == ["not-text"] * 2
    with pytest.raises(DatasetError, match=f"'{name}' is "):
        read_source(str(path), DataSection(train=str(path)))


def test_a_message_of_several_texts_is_one_as_training_has_it(tmp_path: Path) -> None:
    parts = [{"type": "text", "text": "Who is"}, {"type": "text", "text": " there?"}]
    path = tmp_path / "rows.jsonl"
    talk = [{"role": "user", "content": parts}, {"role": "assistant", "content": "A friend\u200b."}]
    path.write_text(json.dumps({"messages": talk}) + "\n")
    result = data_check(str(path), fix=True)
    assert not result.has_errors and result.cleaned[0].num_cleaned == 1
    rows, _, _ = read_source(str(result.cleaned[0].cleaned), DataSection(train=str(path)))
    assert [(row.asked, row.completion) for row in rows] == [("Who is there?", "A friend.")]


def test_a_cleaned_copy_of_parquet_holds_its_other_columns_as_json_can(tmp_path: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    when = datetime(2026, 1, 2, tzinfo=timezone.utc)
    rows = [{**row, "when": when, "score": math.nan, "more": [{"a": math.inf}]} for row in tiny_rows()[:2]]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "rows.parquet")
    cleaned = data_check(str(tmp_path / "rows.parquet"), fix=True).cleaned[0].cleaned
    again = [json.loads(line) for line in cleaned.read_text().splitlines()]
    assert [(row["score"], row["more"], row["when"]) for row in again] == [(None, [{"a": None}], str(when))] * 2
    assert len(read_source(str(cleaned), DataSection(train=str(cleaned)))[0]) == 2
    assert {path.name for path in tmp_path.iterdir()} == {"rows.parquet", cleaned.name, "rows.changes.jsonl"}


@pytest.mark.parametrize(
    ("name", "text", "place"),
    [
        ("rows.json", '[{"instruction": "a", "output": "b"}\n{"instruction": "c", "output": "d"}]', 2),
        ("rows.json", '[{"instruction": "a", "output": "b"},\n{"instruction: "c", "output": "d"}]', 2),
        ("rows.csv", 'instruction,output\na,b\nc,"d\ne,f\n', 3),
    ],
)
def test_no_copy_is_made_of_a_file_that_cannot_be_read_to_its_end(
    tmp_path: Path, name: str, text: str, place: int
) -> None:
    (tmp_path / name).write_text(text)
    found = data_check(str(tmp_path / name)).findings
    assert [finding.code for finding in found] == ["broken-record"] and "Nothing behind it" in found[0].detail
    with pytest.raises(DatasetError, match=f"{name}:{place}:.*Mend it there first"):
        data_check(str(tmp_path / name), fix=True)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_of_a_list_the_records_behind_one_that_is_no_json_are_read(tmp_path: Path) -> None:
    path, rows = tmp_path / "rows.json", [{**row, "score": 1.0} for row in tiny_rows()[:4]]
    rows[1]["score"] = math.nan
    twice = json.dumps(rows[2]).replace('"score"', '"output": "x", "score"')
    path.write_text(f"[{json.dumps(rows[0])},\n{json.dumps(rows[1])},\n{twice},\n{json.dumps(rows[3])}]")
    result = data_check(str(path), fix=True)
    broken = [finding.detail for finding in result.findings if finding.code == "broken-record"]
    assert broken == ["NaN is not JSON.", "the key 'output' stands twice in one record."]
    assert [json.loads(line) for line in result.cleaned[0].cleaned.read_text().splitlines()] == [rows[0], rows[3]]


def test_whole_texts_may_have_any_group(tiny_recipe: Path, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"text": "Some words of a book.", "group": 3}))
    asked = [f"data.train={path}", "data.format=text", "data.validation_fraction=0"]
    assert not data_check(str(tiny_recipe), asked).has_errors


def test_a_place_for_cleaned_rows_without_the_wish_for_them_is_refused(tmp_path: Path) -> None:
    assert "--out goes with --fix" in str(invoke("check", "starter:validation", "--out", tmp_path).exception)
