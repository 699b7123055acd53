"""What stands in a file is what is learned: types, scripts, places, splits and notes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from peft_instruct.data.prepare import read_instruction_data, read_source
from peft_instruct.data.sources import is_hub_id, read_rows
from peft_instruct.data.templates import AS_IS
from peft_instruct.data.types import PromptCompletion
from peft_instruct.errors import DatasetError
from peft_instruct.recipe.data_section import DataSection


def _section(path: Path | str, **values: Any) -> DataSection:
    return DataSection.model_validate({"train": str(path), "template": "plain", **values})


def _read(path: Path, content: str | bytes, **values: Any) -> list[PromptCompletion]:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_source(str(path), _section(path, **values))[0]


def _pairs(rows: list[PromptCompletion]) -> list[tuple[str, str]]:
    return [(row.prompt, row.completion) for row in rows]


ROWS = [
    {"instruction": "When?", "input": "", "output": "2024-01-01"},
    {"instruction": "Which agent?", "input": "Bond", "output": "007"},
    {"instruction": "NA", "input": "null", "output": "None"},
    {"instruction": "true", "input": "1e5", "output": "-0.0"},
    {"instruction": "名前は？", "input": "“quoted”", "output": "東京 🙂 – naïve\ttab"},
    {"instruction": "Two\nlines", "input": "a,b;c", "output": 'He said "no".\r\nThen left.'},
]
EXPECTED = [
    ("When?\n", "2024-01-01"),
    ("Which agent?\nBond\n", "007"),
    ("NA\nnull\n", "None"),
    ("true\n1e5\n", "-0.0"),
    ("名前は？\n“quoted”\n", "東京 🙂 – naïve\ttab"),
    ("Two\nlines\na,b;c\n", 'He said "no".\r\nThen left.'),
]


def _csv(rows: list[dict[str, str]]) -> str:
    import csv
    import io

    out = io.StringIO(newline="")
    # Quoted throughout: the module itself leaves a lone carriage return bare, and then reads it as a line's end.
    writer = csv.DictWriter(out, ["instruction", "input", "output"], lineterminator="\n", quoting=csv.QUOTE_ALL)
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def _parquet_bytes(rows: list[dict[str, Any]]) -> bytes:
    import io

    import pyarrow
    import pyarrow.parquet

    out = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), out)
    return out.getvalue()


FORMS = {
    "list.json": json.dumps(ROWS, ensure_ascii=False, indent=2),
    "line.json": json.dumps(ROWS),
    "lines.json": "\n".join(json.dumps(row) for row in ROWS),
    "lines.jsonl": "\n".join(json.dumps(row) for row in ROWS) + "\n",
    "list.jsonl": json.dumps(ROWS, indent=1),
    "blank_lines.jsonl": "\n\n".join(json.dumps(row) for row in ROWS) + "\n \n",
    "windows.jsonl": "\r\n".join(json.dumps(row) for row in ROWS) + "\r\n",
    "windows.json": json.dumps(ROWS, indent=1).replace("\n", "\r\n"),
    "mark.json": "\ufeff" + json.dumps(ROWS),
    "mark.jsonl": "\ufeff" + "\n".join(json.dumps(row) for row in ROWS),
    "table.csv": _csv(ROWS),
    "mark.csv": "\ufeff" + _csv(ROWS),
    "columns.parquet": _parquet_bytes(ROWS),
}


@pytest.mark.parametrize("name", FORMS)
def test_every_form_of_the_same_rows_gives_the_same_texts(name: str, tmp_path: Path) -> None:
    """Dates stay text, `007` keeps its zeros, `NA`, `null`, `None` and `true` are words."""
    assert _pairs(_read(tmp_path / name, FORMS[name])) == EXPECTED


@pytest.mark.parametrize(
    ("name", "content", "places"),
    [
        ("f.json", '[\n\n{"instruction": "a", "output": "b"}, {"instruction": "c",\n"output": "d"},\n\n'
         '{"instruction": "e", "output": "f"}]', ["3 (row 1)", "3 (row 2)", "6 (row 3)"]),
        ("f.jsonl", '{"instruction": "a", "output": "b"}\n\n{"instruction": "c", "output": "d"}', ["1", "3"]),
        ("f.csv", 'instruction,output\n"a\nb\nc",d\n\ne,f\n', ["2", "6"]),
        ("f.csv", 'instruction,output\r\na,"b\r\nc"\r\nd,e\r\n', ["2", "4"]),
        ("f.parquet", _parquet_bytes([{"instruction": "a", "output": "b"}] * 2), ["1", "2"]),
    ],
)  # fmt: skip
def test_the_origin_of_a_row_is_the_line_where_it_begins(
    name: str, content: str | bytes, places: list[str], tmp_path: Path
) -> None:
    rows = _read(tmp_path / name, content)
    assert [row.origin for row in rows] == [f"{tmp_path / name}:{place}" for place in places]


def test_a_row_of_ten_megabytes_is_read_whole(tmp_path: Path) -> None:
    text = "wörd " * 2_000_000
    for name in ("f.jsonl", "f.csv"):
        row = {"instruction": "Say it.", "input": "", "output": text}
        content = _csv([row]) if name.endswith("csv") else json.dumps(row)
        assert _pairs(_read(tmp_path / name, content)) == [("Say it.\n", text)]


def test_columns_that_are_not_used_are_named(tmp_path: Path) -> None:
    path = tmp_path / "f.json"
    path.write_text(json.dumps([{"instruction": "a", "input": "", "output": "b", "text": "all of it", "id": 3}]))
    rows, _, notes = read_source(str(path), _section(path))
    assert _pairs(rows) == [("a\n", "b")]
    assert f"{path}: columns not used: text, id" in notes
    assert f"{path}: 1 rows, format alpaca ('instruction' and 'output', by its column names)" in notes


def test_a_column_that_only_later_rows_have_is_used(tmp_path: Path) -> None:
    rows = [{"instruction": "a", "output": "b"}, {"instruction": "c", "input": "d", "output": "e"}]
    assert _pairs(_read(tmp_path / "f.json", json.dumps(rows))) == [("a\n", "b"), ("c\nd\n", "e")]


def test_empty_rows_are_left_out_counted_and_named(tmp_path: Path) -> None:
    path = tmp_path / "f.jsonl"
    lines = ['{"instruction": "a", "output": ""}', '{"instruction": "b", "output": "c"}']
    path.write_text("\n".join(lines))
    rows, _, notes = read_source(str(path), _section(path))
    assert _pairs(rows) == [("b\n", "c")]
    assert notes[-1] == f"{path}: 1 rows left out as empty: {path}:1: 'output' is empty."


def test_columns_of_other_names_are_read_where_the_recipe_names_them(tmp_path: Path) -> None:
    content = json.dumps([{"question": "a", "context": "b", "answer": "c"}])
    columns = {"instruction": "question", "input": "context", "output": "answer"}
    assert _pairs(_read(tmp_path / "f.json", content, columns=columns)) == [("a\nb\n", "c")]


def test_response_stands_for_output(tmp_path: Path) -> None:
    assert _pairs(_read(tmp_path / "f.json", '[{"instruction": "a", "response": "b"}]')) == [("a\n", "b")]


def test_prompt_and_completion_are_taken_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "f.json"
    path.write_text('[{"prompt": " p {input}\\n", "completion": " c "}]')
    rows, template, notes = read_source(str(path), _section(path))
    assert _pairs(rows) == [(" p {input}\n", " c ")]
    assert template.name == "as_is"
    assert any("data.template is not applied" in note for note in notes)


def test_text_is_learned_from_its_first_token(tmp_path: Path) -> None:
    path = tmp_path / "f.json"
    path.write_text('[{"text": "Once upon a time."}]')
    section = DataSection(train=str(path), format="text")
    assert _pairs(read_source(str(path), section)[0]) == [("", "Once upon a time.")]


def test_accepted_answers_and_groups_travel_with_the_row(tmp_path: Path) -> None:
    content = json.dumps([{"instruction": "a", "output": "b", "accepted": ["b", "B"], "group": "letters"}])
    (row,) = _read(tmp_path / "f.json", content)
    assert (row.accepted, row.group) == (("b", "B"), "letters")


def _numbered(path: Path, count: int) -> Path:
    path.write_text(json.dumps([{"instruction": f"i{n}", "output": f"o{n}"} for n in range(count)]))
    return path


def test_the_split_is_the_seeds_and_loses_no_row(tmp_path: Path) -> None:
    path = _numbered(tmp_path / "f.json", 40)
    section = _section(path, validation_fraction=0.1, test_fraction=0.25)
    data = read_instruction_data(section, seed=3)
    assert [len(data.train), len(data.validation), len(data.test)] == [26, 4, 10]
    everything = [row.completion for row in (*data.train, *data.validation, *data.test)]
    assert sorted(everything) == sorted(f"o{n}" for n in range(40))
    again = read_instruction_data(section, seed=3)
    assert again == data
    other = read_instruction_data(section, seed=4)
    assert [row.completion for row in other.validation] != [row.completion for row in data.validation]
    assert other.fingerprint != data.fingerprint


def test_the_chapters_split_of_85_10_5(tmp_path: Path) -> None:
    path = _numbered(tmp_path / "f.json", 1100)
    data = read_instruction_data(_section(path, validation_fraction=0.05, test_fraction=0.10), seed=0)
    assert [len(data.train), len(data.test), len(data.validation)] == [935, 110, 55]


def test_the_limit_takes_from_training_alone(tmp_path: Path) -> None:
    path = _numbered(tmp_path / "f.json", 40)
    whole = read_instruction_data(_section(path, validation_fraction=0.1), seed=3)
    limited = read_instruction_data(_section(path, validation_fraction=0.1, limit=5), seed=3)
    assert limited.train == whole.train[:5]
    assert limited.validation == whole.validation


def test_validation_rows_of_their_own_are_not_split_off(tmp_path: Path) -> None:
    train, held_out = _numbered(tmp_path / "f.json", 10), _numbered(tmp_path / "v.json", 3)
    data = read_instruction_data(_section(train, validation=str(held_out)), seed=0)
    assert [len(data.train), len(data.validation), len(data.test)] == [10, 3, 0]
    assert {row.origin.split(":")[0] for row in data.validation} == {str(held_out)}


@pytest.mark.parametrize("side", ["validation", "test"])
def test_what_held_out_files_lose_is_told_too(tmp_path: Path, side: str) -> None:
    (tmp_path / "rows.jsonl").write_text('{"instruction": "a", "output": "b"}\n{"instruction": "c", "output": "d"}\n')
    held_out = tmp_path / "held_out.jsonl"
    held_out.write_text('{"instruction": "a", "output": ""}\n{"instruction": "e", "output": "f"}\n')
    section = DataSection(train=str(tmp_path / "rows.jsonl"), validation_fraction=0, **{side: str(held_out)})
    data = read_instruction_data(section, 0)
    assert len(getattr(data, side)) == 1
    assert any(f"{held_out}: 1 rows left out as empty: {held_out}:1" in note for note in data.notes)


def test_held_out_rows_are_rendered_by_the_template_that_was_learned(tmp_path: Path) -> None:
    """Of rows that are prompts already, which `generate` asks as they are, none was."""
    (tmp_path / "rows.jsonl").write_text('{"prompt": "Once", "completion": " upon"}\n')
    (tmp_path / "test.jsonl").write_text('{"instruction": "Say.", "output": "so"}\n')
    section = DataSection(train=str(tmp_path / "rows.jsonl"), test=str(tmp_path / "test.jsonl"), validation_fraction=0)
    data = read_instruction_data(section, 0)
    assert data.template is AS_IS and data.test[0].prompt == AS_IS.prompt("Say.")


def test_a_split_that_leaves_no_training_row_is_an_error(tmp_path: Path) -> None:
    path = _numbered(tmp_path / "f.json", 1)
    with pytest.raises(DatasetError, match="1 rows leave none for training after 1 for validation"):
        read_instruction_data(_section(path), seed=0)


@pytest.mark.parametrize("change", ["text", "order", "template", "split"])
def test_the_fingerprint_sees_every_change(change: str, tmp_path: Path) -> None:
    rows = [{"instruction": f"i{n}", "output": f"o{n}"} for n in range(6)]
    path = tmp_path / "f.json"
    path.write_text(json.dumps(rows))
    before = read_instruction_data(_section(path, validation_fraction=0.2), seed=0).fingerprint
    if change == "text":
        rows[2]["output"] += "."
    if change == "order":
        rows.reverse()
    path.write_text(json.dumps(rows))
    template = "alpaca" if change == "template" else "plain"
    fraction = 0.4 if change == "split" else 0.2
    after = read_instruction_data(_section(path, validation_fraction=fraction, template=template), seed=0).fingerprint
    assert after != before
    path.write_text(json.dumps(rows, indent=3))
    spaced = read_instruction_data(_section(path, validation_fraction=fraction, template=template), seed=0).fingerprint
    assert spaced == after, "white space of the file is not data"


@pytest.mark.parametrize("name", ["tatsu-lab/alpaca", "squad", "owner/name:test", "a.b/c-d_e"])
def test_a_hub_id_is_known_by_its_shape(name: str) -> None:
    assert is_hub_id(name)


@pytest.mark.parametrize(
    "name", ["rows.json", "a/b/c", "../rows", "/abs/rows", "starter:train", "a b", "x.parquet", ""]
)
def test_a_file_name_is_no_hub_id(name: str) -> None:
    assert not is_hub_id(name)


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
RECORDS = st.lists(st.dictionaries(TEXT, TEXT, min_size=1, max_size=3), min_size=1, max_size=4)
QUICKLY = settings(
    max_examples=60,
    deadline=None,
    phases=(Phase.explicit, Phase.generate, Phase.shrink),
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@QUICKLY
@given(
    rows=st.lists(st.dictionaries(TEXT, TEXT, min_size=1, max_size=3), min_size=1, max_size=4), indent=st.integers(0, 2)
)
def test_any_text_comes_out_of_json_as_it_went_in(tmp_path: Path, rows: list[dict[str, str]], indent: int) -> None:
    for name, content in (
        ("f.json", json.dumps(rows, ensure_ascii=False, indent=indent or None)),
        ("f.jsonl", "\n".join(json.dumps(row, ensure_ascii=False) for row in rows)),
    ):
        path = tmp_path / name
        path.write_bytes(content.encode())
        assert [row.values for row in read_rows(str(path)).rows] == rows


@QUICKLY
@given(rows=st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=4))
def test_any_text_comes_out_of_csv_as_it_went_in(tmp_path: Path, rows: list[tuple[str, str]]) -> None:
    path = tmp_path / "f.csv"
    fields = [{"instruction": a, "input": "", "output": b} for a, b in rows]
    path.write_bytes(_csv(fields).encode())
    assert [row.values for row in read_rows(str(path)).rows] == fields
