"""`generate`: what comes out is what the model makes of the prompt that it was trained on."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from listeners import silent
from tiny import tiny_rows, write_whole_model

from peft_instruct.adapter.folder import load_tuned, open_adapter
from peft_instruct.commands import completing
from peft_instruct.commands.generate import GenerateResult, generate
from peft_instruct.commands.train import train
from peft_instruct.data.templates import ALPACA
from peft_instruct.environment import HubState
from peft_instruct.errors import AdapterError, DatasetError, ModelError, PeftInstructError, RecipeError
from peft_instruct.inference.complete import complete
from peft_instruct.model.base import load_base
from peft_instruct.model.device import choose_compute
from peft_instruct.model.location import Location
from peft_instruct.recipe.model_section import ModelSection
from peft_instruct.recipe.schema import GenerationSection

NO_HUB = HubState(False, "a test")
CPU = choose_compute("cpu", "fp32")
ASKED = [(row["instruction"], row["input"]) for row in tiny_rows()[::9]]


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory, tiny_recipe: Path) -> Path:
    """An adapter trained for long enough that its completions are words, of several lengths."""
    overrides = ("training.max_steps=60", "samples.count=0", "evaluation.rows=0")
    return train(str(tiny_recipe), overrides, out=tmp_path_factory.mktemp("talks") / "tiny-lora", say=silent).folder


def run(adapter: Path, instruction: str | None = None, **given: Any) -> GenerateResult:
    return generate(str(adapter), instruction, device="cpu", **{"say": silent, **given})


def greedy(model: Any, tokenizer: Any, prompts: list[str], limit: int = 16) -> list[str]:
    options = GenerationSection(max_new_tokens=limit)
    done = complete(model, tokenizer, prompts, options, positions=256, device=torch.device("cpu"), batch_size=1)
    return [each.completion for each in done]


def texts_of_the_base(folder: Path, prompts: list[str]) -> list[str]:
    """What the base says, from its own folder, with no adapter in sight."""
    base = load_base(ModelSection(base=str(folder)), Location(str(folder), folder), CPU)
    return greedy(base.model, base.tokenizer, prompts)


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_an_instruction_is_completed_as_it_was_trained_to_be_prompted(adapter: Path) -> None:
    tuned = load_tuned(open_adapter(adapter), CPU, NO_HUB)
    expected = greedy(tuned.model, tuned.tokenizer, [ALPACA.prompt(*asked) for asked in ASKED])
    found = [run(adapter, instruction, input=given) for instruction, given in ASKED]
    assert [result.text() for result in found] == expected
    assert len(set(expected)) > 1
    assert found[0].completed[0].tuned.prompt == ALPACA.prompt(*ASKED[0])


def test_defaults_are_the_adapters_own_and_give_way_to_options(adapter: Path) -> None:
    result = run(adapter, "Give the plural.", input="cat")
    assert result.options == open_adapter(adapter).manifest.generation
    assert result.options.max_new_tokens == 16
    said: list[str] = []
    short = run(adapter, "Give the plural.", input="cat", max_new_tokens=1, repetition_penalty=1.5, say=said.append)
    assert short.options == GenerationSection(max_new_tokens=1, repetition_penalty=1.5)
    assert short.completed[0].tuned.num_tokens == 1
    assert any("--max-new-tokens" in line for line in said), "a completion that the limit cut says so"


def test_compare_shows_the_bases_own_greedy_text(adapter: Path, tiny_base_folder: Path) -> None:
    instruction, given = ASKED[0]
    result = run(adapter, instruction, input=given, compare=True)
    (base,) = texts_of_the_base(tiny_base_folder, [ALPACA.prompt(instruction, given)])
    (one,) = result.completed
    assert one.base is not None
    assert one.base.completion == base
    assert base != one.tuned.completion
    assert one.tuned == run(adapter, instruction, input=given).completed[0].tuned, "comparing changes nothing"
    assert base in result.text()
    assert one.tuned.completion in result.text()


def test_a_merged_model_answers_as_its_adapter_and_compares_with_its_base(
    adapter: Path, tiny_base_folder: Path, tmp_path: Path
) -> None:
    merged = write_whole_model(adapter, tmp_path / "merged")
    instruction, given = ASKED[0]
    result = run(merged, instruction, input=given, compare=True, base=str(tiny_base_folder))
    (one,) = result.completed
    assert one.tuned.completion == run(adapter, instruction, input=given).completed[0].tuned.completion
    assert one.base is not None
    assert [one.base.completion] == texts_of_the_base(tiny_base_folder, [one.base.prompt])


def test_a_file_is_completed_in_its_order(adapter: Path, tmp_path: Path) -> None:
    rows = [{"id": number, "instruction": asked, "input": given} for number, (asked, given) in enumerate(ASKED)]
    rows.append({"id": 99, "prompt": "The opposite of hot", "completion": "of the file"})
    file, out = write_rows(tmp_path / "in.jsonl", rows), tmp_path / "out.jsonl"
    said: list[str] = []
    result = run(adapter, file=file, out=out, batch_size=3, say=said.append)
    assert any(
        f"1 of {len(rows)} rows have a 'prompt', which is taken as it is" in line and "(alpaca)" in line
        for line in said
    )
    written = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert [row["id"] for row in written] == [row["id"] for row in rows]
    for row, (instruction, given) in zip(written, ASKED, strict=False):
        alone = run(adapter, instruction, input=given).completed[0].tuned
        assert (row["completion"], row["stopped"], row["num_tokens"]) == (
            alone.completion,
            alone.stopped,
            alone.num_tokens,
        )
    assert written[-1]["given_completion"] == "of the file"
    assert f"{out}: {len(rows)} completions" in result.text()
    assert "completions" not in result.record()
    assert [file.name for file in tmp_path.iterdir() if file.name.startswith(".")] == []


def test_a_prompt_beside_its_answer_is_asked_as_an_instruction_and_nothing_else_is_said(
    adapter: Path, tmp_path: Path
) -> None:
    instruction = next(asked for asked, given in ASKED if not given)
    file = write_rows(tmp_path / "in.jsonl", [{"prompt": instruction, "response": "?"}])
    said: list[str] = []
    (one,) = run(adapter, file=file, say=said.append).completed
    assert one.tuned.completion == run(adapter, instruction).completed[0].tuned.completion
    assert not any("taken as it is" in line for line in said)


def test_portions_make_no_difference_and_are_kept_where_a_later_one_fails(
    adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [{"id": number, "instruction": asked, "input": given} for number, (asked, given) in enumerate(ASKED)]
    file, out, whole = write_rows(tmp_path / "in.jsonl", rows), tmp_path / "out.jsonl", tmp_path / "whole.jsonl"
    sampled: dict[str, Any] = {"file": file, "temperature": 1.0, "seed": 3, "compare": True}
    run(adapter, out=whole, **sampled)
    monkeypatch.setattr(completing, "ROWS_AT_ONCE", 2)
    run(adapter, out=out, **sampled)
    assert out.read_bytes() == whole.read_bytes() and len(rows) > 4

    made = completing.Completing._complete

    def fails_at_the_third_portion(
        self: Any, model: Any, base: Any, portion: Any, what: str, start: int, n: int
    ) -> Any:
        if start == 4:
            raise KeyboardInterrupt
        return made(self, model, base, portion, what, start, n)

    monkeypatch.setattr(completing.Completing, "_complete", fails_at_the_third_portion)
    said: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        run(adapter, out=out, say=said.append, **sampled)
    partial = tmp_path / ".out.jsonl.partial"
    assert partial.read_bytes().splitlines() == whole.read_bytes().splitlines()[:4]
    assert out.read_bytes() == whole.read_bytes(), "of an earlier run, as it was"
    assert any("first 4 rows" in line and str(partial) in line for line in said)


def test_a_file_without_out_is_the_result_as_json_lines(adapter: Path, tmp_path: Path) -> None:
    file = write_rows(tmp_path / "in.jsonl", [{"instruction": asked, "input": given} for asked, given in ASKED])
    result = run(adapter, file=file, compare=True)
    rows = [json.loads(line) for line in result.text().split("\n")]
    assert rows == result.record()["completions"]
    assert all("base_completion" in row for row in rows)


def test_the_record_is_json_and_says_how_it_was_made(adapter: Path) -> None:
    record = json.loads(json.dumps(run(adapter, "Give the plural.", temperature=0.5, seed=3).record()))
    assert record["seed"] == 3
    assert record["options"]["temperature"] == 0.5
    assert (record["device"], record["precision"]) == ("cpu", "fp32")
    assert record["completions"][0]["instruction"] == "Give the plural."
    assert record["num_prompts"] == 1


def test_sampling_is_told_its_seed_and_repeats_with_it(adapter: Path) -> None:
    hot = {"temperature": 3.0, "max_new_tokens": 12}
    first = run(adapter, "Give the plural.", **hot)
    assert first.seed is not None
    assert run(adapter, "Give the plural.", seed=first.seed, **hot).text() == first.text()
    texts = {run(adapter, "Give the plural.", seed=seed, **hot).text() for seed in range(4)}
    assert len(texts) == 4
    assert run(adapter, "Give the plural.", seed=5).seed is None, "greedy has no seed"


def test_streamed_text_is_the_completion_and_is_not_repeated(adapter: Path) -> None:
    pieces: list[str] = []
    instruction, given = ASKED[0]
    result = run(adapter, instruction, input=given, stream=pieces.append)
    assert "".join(pieces) == run(adapter, instruction, input=given).text() != ""
    assert result.text() == ""
    assert result.record()["completions"][0]["completion"] == "".join(pieces)


def test_a_prompt_that_is_too_long_is_cut_and_it_is_said(adapter: Path, tmp_path: Path) -> None:
    file = write_rows(tmp_path / "in.jsonl", [{"instruction": "Hi"}, {"instruction": "opposite " * 400}])
    said: list[str] = []
    result = run(adapter, file=file, say=said.append)
    (line,) = [line for line in said if "cut from their left" in line]
    num_cut = result.completed[1].tuned.num_cut
    assert num_cut > 0
    assert f"1 of 2 prompts were cut from their left to fit 256 positions: {file}:2 by {num_cut} tokens" in line
    assert result.record()["num_cut"] == 1
    assert result.completed[1].row()["num_prompt_tokens_cut"] == num_cut


def test_an_option_without_effect_is_said(adapter: Path) -> None:
    said: list[str] = []
    run(adapter, "Hi", top_k=5, max_new_tokens=1, say=said.append)
    assert any(line.startswith("top_k: no effect") for line in said)


@pytest.mark.parametrize(
    ("given", "problems"),
    [
        ({}, ["INSTRUCTION and --file"]),
        ({"instruction": "a", "file": Path("b.jsonl")}, ["INSTRUCTION and --file"]),
        ({"instruction": "  "}, ["INSTRUCTION: empty"]),
        ({"file": Path("b.jsonl"), "input": "c"}, ["--input"]),
        ({"instruction": "a", "out": Path("o.jsonl")}, ["--out: goes with --file"]),
        ({"file": Path("b.jsonl"), "out": Path("x/../b.jsonl")}, ["the file of prompts itself"]),
        ({"instruction": "a", "seed": -1, "batch_size": 0}, ["--seed: -1", "--batch-size: 0"]),
        ({"instruction": "a", "temperature": -0.5, "top_p": 1.5}, ["--temperature: is -0.5", "--top-p: is 1.5"]),
        ({"instruction": "a", "max_new_tokens": 0, "top_k": -1}, ["--max-new-tokens: is 0", "--top-k: is -1"]),
    ],
)
def test_options_that_do_not_go_together_are_all_told(
    adapter: Path, given: dict[str, Any], problems: list[str]
) -> None:
    with pytest.raises(RecipeError) as error:
        run(adapter, **given)
    assert all(problem in str(error.value) for problem in problems)


def test_what_is_not_there_is_told_with_its_place(adapter: Path, tmp_path: Path) -> None:
    for error, given in (
        (AdapterError, {"adapter": tmp_path / "none", "instruction": "a"}),
        (DatasetError, {"adapter": adapter, "file": tmp_path / "none.jsonl"}),
        (ModelError, {"adapter": adapter, "instruction": "a", "base": "./no/such/base"}),
    ):
        assert issubclass(error, PeftInstructError)
        with pytest.raises(error):
            run(**given)


def test_a_failed_run_leaves_no_file(adapter: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(adapter, broken)
    (broken / "adapter_model.safetensors").write_bytes(b"")
    file = write_rows(tmp_path / "in.jsonl", [{"instruction": "Hi"}])
    with pytest.raises(AdapterError):
        run(broken, file=file, out=tmp_path / "out.jsonl")
    with pytest.raises(ModelError):
        run(adapter, file=file, out=tmp_path / "out.jsonl", base="./no/such/base")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["broken", "in.jsonl"]


def test_columns_are_known_in_any_case_as_in_training(adapter: Path, tmp_path: Path) -> None:
    instruction, given = ASKED[0]
    path = write_rows(tmp_path / "rows.jsonl", [{"Instruction": instruction, "Input": given}])
    (row,) = run(adapter, file=path, max_new_tokens=4).completed
    assert row.tuned.prompt == ALPACA.prompt(instruction, given)


def test_a_closed_stdout_is_no_error(adapter: Path) -> None:
    command = [sys.executable, "-m", "peft_instruct", "generate", str(adapter), "Hello?", "--max-new-tokens", "2"]
    done = subprocess.run(["sh", "-c", 'exec "$@" >&-', "sh", *command], capture_output=True, text=True, check=False)
    assert (done.returncode, "Traceback" in done.stderr) == (0, False), done.stderr
