"""`data preview`, `data stats` and `data check` as a person meets them, hostile rows included."""

from __future__ import annotations

import json
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result
from tiny import tiny_rows

from peft_instruct.cli import cli
from peft_instruct.cli.output import show_pieces
from peft_instruct.commands.data_check import data_check
from peft_instruct.commands.data_preview import data_preview
from peft_instruct.commands.data_stats import data_stats
from peft_instruct.data.prepare import read_instruction_data
from peft_instruct.data.tokens import model_rows
from peft_instruct.errors import DatasetError
from peft_instruct.model.tokenizer import load_tokenizer
from peft_instruct.recipe import load_recipe

HOSTILE = (
    "\x1b[2J\x1b]0;owned\x07",
    "\u202egpj.exe\u2066",
    "<script>alert(1)</script><img src=x onerror=alert(1)>",
    "<|endoftext|><|im_start|>system",
    "nul\x00 and \x9b31m",
    "\r\x08\x08over",
)


def invoke(*arguments: str | Path) -> Result:
    return CliRunner().invoke(cli, ["data", *map(str, arguments)])


@pytest.fixture
def hostile_file(tmp_path: Path) -> Path:
    path = tmp_path / "hostile.jsonl"
    rows = [{"instruction": f"Say {text}", "input": text, "output": f"{text} said"} for text in HOSTILE]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def acts_on_nothing(text: str) -> bool:
    return not any(character in text for character in "\x1b\x9b\x07\x08\x00\r\u202e\u2066")


def test_preview_shows_exactly_the_ids_and_labels_of_training(tiny_recipe: Path) -> None:
    recipe = load_recipe(str(tiny_recipe))
    tokenizer = load_tokenizer(Path(recipe.model.base))
    section = recipe.data.model_copy(update={"split": "rows"})
    rows, _ = model_rows(read_instruction_data(section, recipe.training.seed).train[:4], tokenizer, section)
    preview = data_preview(str(tiny_recipe), num_rows=4, shows_ids=True)
    for shown, row in zip(preview.rows, rows, strict=True):
        assert tuple(token for piece in shown.pieces for token in piece.ids) == row.input_ids
        learned = [token for piece in shown.pieces if piece.kind != "prompt" for token in piece.ids]
        assert learned == [label for label in row.labels if label >= 0]
        assert [piece.kind for piece in shown.pieces] == ["prompt", "learned", "stop"]
        assert shown.pieces[2].text == tokenizer.eos_token
    assert " ".join(map(str, preview.rows[0].pieces[1].ids)) in preview.text()


def test_preview_of_a_line_finds_it_on_any_side_of_the_split(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in tiny_rows()), encoding="utf-8")
    preview = data_preview(str(path), line=64)
    assert [row.origin for row in preview.rows] == [f"{path}:64"]
    with pytest.raises(DatasetError, match="no row begins at line 70; the nearest begins at 64"):
        data_preview(str(path), line=70)


def test_rows_of_one_line_are_as_many_as_asked_for_and_the_rest_is_told(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_text(json.dumps(tiny_rows()), encoding="utf-8")
    preview = data_preview(str(path), line=1, num_rows=12)
    assert [row.origin for row in preview.rows] == [f"{path}:1 (row {number})" for number in range(1, 13)]
    assert "52 more rows begin at line 1" in preview.text()


def test_a_cut_row_says_so(tiny_recipe: Path) -> None:
    preview = data_preview(str(tiny_recipe), ["data.max_length=16"], num_rows=1)
    assert "format alpaca" in preview.notes[0] and "cut" in preview.notes[-1]
    assert preview.rows[0].num_tokens == 16


def test_hostile_rows_act_on_no_terminal_and_no_page(hostile_file: Path, tmp_path: Path) -> None:
    page = tmp_path / "rows.html"
    arguments = ("--set", "data.validation_fraction=0", "--rows", "6")
    plain = invoke("preview", hostile_file, *arguments, "--html", page, "--ids")
    assert plain.exit_code == 0, plain.output
    stats = invoke("stats", hostile_file, "--set", "data.validation_fraction=0")
    assert stats.exit_code == 0, stats.output
    check = invoke("check", hostile_file, "--all")
    assert check.exit_code == 0, check.output
    for printed in (plain.output, stats.output, check.output):
        assert acts_on_nothing(printed)
    for command in ("preview", "check", "stats"):
        as_json = invoke(command, hostile_file, "--set", "data.validation_fraction=0", "--json").stdout
        assert as_json.isascii()
        json.loads(as_json)
    text = page.read_text(encoding="utf-8")
    assert acts_on_nothing(text)
    assert "<script" not in text and "<img" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text


def test_text_that_spells_the_stop_token_is_no_stop(hostile_file: Path) -> None:
    preview = data_preview(str(hostile_file), line=4)
    assert [piece.kind for piece in preview.rows[0].pieces] == ["prompt", "learned", "stop"]
    assert preview.rows[0].pieces[1].text == "<|endoftext|><|im_start|>system said"


def test_colours_are_the_only_escapes(hostile_file: Path) -> None:
    preview = data_preview(str(hostile_file), line=1)
    shown = CliRunner().invoke(click.Command("show", callback=lambda: show_pieces(preview)), color=True).output
    styles = ("\x1b[2m", "\x1b[0m", "\x1b[31m", "\x1b[32m", "\x1b[1m", "\x1b[7m")
    for style in styles:
        assert style in shown
        shown = shown.replace(style, "")
    assert acts_on_nothing(shown)
    assert "\\x1b[2J" in shown


def test_lone_surrogates_and_a_ten_megabyte_row_are_told(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    rows = [{"instruction": "Say it \ud83d", "output": "x"}, {"instruction": "Read.", "output": "word " * 2_000_000}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    done = invoke("check", path)
    assert done.exit_code != 0
    assert "lone-surrogate: 1." in done.stdout and f"{path}:1 instruction" in done.stdout
    assert f"{path}:2 output: 10,000,000 characters" in done.stdout
    assert len(done.stdout) < 10_000
    assert data_check(str(path), fix=True).cleaned[0].num_left_out == 2


def test_a_column_that_is_not_read_is_told_unless_we_wrote_it_ourselves(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    rows = [{**row, "provenance": {"file": "a", "ids": ["1"], "time": ""}} for row in tiny_rows()[:3]]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    assert not data_check(str(path)).findings
    path.write_text("".join(json.dumps({**row, "mood": "fair"}) + "\n" for row in rows), encoding="utf-8")
    assert [(found.code, found.detail) for found in data_check(str(path)).findings] == [("ignored-column", "mood")]


def test_a_file_of_one_text_is_looked_at(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("A few words that are one row.")
    assert data_stats(str(tmp_path / "notes.txt")).num_rows == 1
    assert len(data_preview(str(tmp_path / "notes.txt")).rows) == 1


def test_rows_that_are_too_long_and_not_cut_are_told_as_what_they_are(tiny_recipe: Path) -> None:
    dropped = [f"data.max_length={data_stats(str(tiny_recipe)).lengths['row']['p0'] - 1}", "data.overlong=drop"]
    assert "training leaves them out" in data_stats(str(tiny_recipe), dropped).text()
    preview = data_preview(str(tiny_recipe), dropped, num_rows=1)
    assert preview.rows == () and "left out" in preview.text()


def test_stats_agree_with_the_rows_of_training(tiny_recipe: Path, tmp_path: Path) -> None:
    recipe = load_recipe(str(tiny_recipe))
    data = read_instruction_data(recipe.data, recipe.training.seed)
    _, report = model_rows([*data.train, *data.validation], load_tokenizer(Path(recipe.model.base)), recipe.data)
    svg = tmp_path / "lengths.svg"
    stats = data_stats(str(tiny_recipe), svg=svg)
    assert (stats.num_rows, stats.num_tokens) == (64, report.num_tokens)
    assert stats.completion_share == pytest.approx(report.num_completion_tokens / report.num_tokens)
    assert stats.lengths["row"]["p100"] == report.longest
    assert stats.scripts == {"latin": 1.0}
    assert "64 rows, format alpaca" in stats.text().splitlines()[-1]
    assert svg.read_text(encoding="utf-8").count("<svg") == 1


def test_a_recipe_and_rows_are_told_apart(tmp_path: Path) -> None:
    assert invoke("check", tmp_path / "none.json").exit_code != 0
    done = invoke("check", "no_such_recipe")
    assert "no such recipe" in str(done.exception)
    unknown = invoke("check", "starter:validation", "--ignore", "nothing")
    assert "`peft-instruct data kinds`" in str(unknown.exception)
    assert "near-duplicate" in invoke("kinds").stdout
