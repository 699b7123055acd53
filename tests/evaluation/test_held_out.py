"""Which rows an adapter is measured on."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from peft_instruct.data.prepare import read_instruction_data
from peft_instruct.data.templates import ALPACA, AS_IS, PLAIN, Template
from peft_instruct.errors import AdapterError, DatasetError
from peft_instruct.evaluation.held_out import held_out_rows, recipe_of
from peft_instruct.recipe import load_recipe


def manifest(fingerprint: str = "", template: Template = ALPACA) -> Any:
    return SimpleNamespace(data_fingerprint=fingerprint, prompt_template=lambda: template)


def fingerprint_of(recipe: Any) -> str:
    return read_instruction_data(recipe.data, recipe.training.seed).fingerprint


def test_the_test_rows_of_training_are_found_again(tiny_recipe: Path) -> None:
    recipe = load_recipe(str(tiny_recipe), ("data.test_fraction=0.25",))
    split = read_instruction_data(recipe.data, recipe.training.seed)
    name, rows, _ = held_out_rows(recipe, manifest(split.fingerprint), None)
    assert rows == split.test
    assert len(rows) == 16
    assert "test" in name
    assert not {row.origin for row in rows} & {row.origin for row in [*split.train, *split.validation]}


def test_validation_rows_stand_in_where_there_are_no_test_rows(tiny_recipe: Path) -> None:
    recipe = load_recipe(str(tiny_recipe))
    name, rows, _ = held_out_rows(recipe, manifest(fingerprint_of(recipe)), None)
    assert rows == read_instruction_data(recipe.data, recipe.training.seed).validation
    assert "validation" in name


def test_a_changed_file_is_refused_where_the_split_is_made_from_it(tiny_recipe: Path) -> None:
    recipe = load_recipe(str(tiny_recipe))
    with pytest.raises(DatasetError, match="fingerprint differs"):
        held_out_rows(recipe, manifest("another"), None)


def test_a_file_of_test_rows_is_measured_even_then_and_it_is_said(tiny_recipe: Path, tmp_path: Path) -> None:
    test = tmp_path / "test.jsonl"
    test.write_text(json.dumps({"instruction": "Add 2 and 2.", "output": "4"}) + "\n")
    recipe = load_recipe(str(tiny_recipe), (f"data.test={test}",))
    name, rows, notes = held_out_rows(recipe, manifest("another"), None)
    assert name == str(test)
    assert [row.completion for row in rows] == ["4"]
    assert any(f"{test}: not all the rows of the training any more" in note for note in notes)


def test_a_recipe_that_holds_nothing_out_says_what_to_do(tiny_recipe: Path) -> None:
    recipe = load_recipe(str(tiny_recipe), ("data.validation_fraction=0",))
    with pytest.raises(DatasetError, match="--data"):
        held_out_rows(recipe, manifest(), None)


@pytest.mark.parametrize(
    "template", [ALPACA, PLAIN, Template("custom", "{input} <- {instruction}\n", "{instruction}:\n")]
)
@pytest.mark.parametrize("with_recipe", [True, False])
def test_another_file_is_rendered_with_the_adapters_template(
    tiny_recipe: Path, tmp_path: Path, template: Template, with_recipe: bool
) -> None:
    data = tmp_path / "other.jsonl"
    data.write_text(
        json.dumps({"instruction": "Add.", "input": "2, 2", "output": "4"})
        + "\n"
        + json.dumps({"instruction": "Say no.", "output": "no"})
    )
    recipe = load_recipe(str(tiny_recipe), ("data.template=plain",)) if with_recipe else None
    name, rows, _ = held_out_rows(recipe, manifest(template=template), str(data))
    assert name == str(data)
    assert [row.prompt for row in rows] == [template.prompt("Add.", "2, 2"), template.prompt("Say no.")]


def test_another_file_is_read_by_the_columns_that_all_sources_have(tiny_recipe: Path, tmp_path: Path) -> None:
    data = tmp_path / "faq.jsonl"
    data.write_text(json.dumps({"frage": "Who?", "antwort": "We.", "instruction": "no"}))
    names = "{instruction: frage, output: antwort}"
    recipe = load_recipe(str(tiny_recipe), (f"data.train=[{{source: {data}, columns: {names}}}]",))
    _, rows, _ = held_out_rows(recipe, manifest(), str(data))
    assert [(row.asked, row.completion) for row in rows] == [("Who?", "We.")]
    data.write_text(json.dumps({"instruction": "Where?", "output": "Here."}))
    _, rows, _ = held_out_rows(recipe, manifest(), str(data))
    assert [(row.asked, row.completion) for row in rows] == [("Where?", "Here.")]
    data.write_text(json.dumps({"frage": None, "antwort": "We."}))
    with pytest.raises(DatasetError, match="'frage' is null"):
        held_out_rows(recipe, manifest(), str(data))


def test_another_file_is_whole_text_where_all_sources_were(tiny_recipe: Path, tmp_path: Path) -> None:
    text = tmp_path / "text.jsonl"
    text.write_text(json.dumps({"id": 1, "body": "Once upon a time."}) + "\n", encoding="utf-8")
    source = {"source": str(text), "format": "text", "columns": {"text": "body"}}
    recipe = load_recipe(str(tiny_recipe), (f"data.train={json.dumps([source])}",))
    _, rows, _ = held_out_rows(recipe, manifest(template=AS_IS), str(text))
    assert [(row.prompt, row.completion) for row in rows] == [("", "Once upon a time.")]


def test_rows_that_are_prompts_already_need_no_template(tiny_recipe: Path, tmp_path: Path) -> None:
    data = tmp_path / "other.jsonl"
    data.write_text(json.dumps({"prompt": "Once", "completion": " upon a time"}))
    _, rows, _ = held_out_rows(load_recipe(str(tiny_recipe)), manifest(template=AS_IS), str(data))
    assert [(row.prompt, row.completion) for row in rows] == [("Once", " upon a time")]


def test_a_folder_without_a_recipe_needs_data(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text("{}")
    assert recipe_of(tmp_path, "other.jsonl") is None
    with pytest.raises(AdapterError, match="--data"):
        recipe_of(tmp_path, None)
