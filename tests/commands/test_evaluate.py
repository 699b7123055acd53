"""`evaluate`: the base beside the tuned model, on rows that were not learned from."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from listeners import silent
from tiny import write_whole_model

from peft_instruct.adapter.folder import load_tuned, open_adapter
from peft_instruct.adapter.manifest import write_manifest
from peft_instruct.commands.evaluate import EvaluateResult, evaluate
from peft_instruct.data.prepare import read_instruction_data
from peft_instruct.data.tokens import tokenize
from peft_instruct.environment import HubState
from peft_instruct.errors import AdapterError, DatasetError, RecipeError
from peft_instruct.model.base import load_base
from peft_instruct.model.device import choose_compute
from peft_instruct.model.location import Location
from peft_instruct.model.scoring import score
from peft_instruct.recipe import load_recipe
from peft_instruct.recipe.model_section import ModelSection

NO_HUB = HubState(False, "a test")
CPU = choose_compute("cpu", "fp32")


def run(adapter: Path, **given: Any) -> EvaluateResult:
    return evaluate(str(adapter), device="cpu", **{"say": silent, **given})


def loss_of(model: Any, tokenizer: Any, recipe_path: Path) -> float:
    recipe = load_recipe(str(recipe_path))
    rows = read_instruction_data(recipe.data, recipe.training.seed).validation
    tokens, _ = tokenize(rows, tokenizer, max_length=recipe.data.max_length)
    return score(model, tokens, pad_id=tokenizer.pad_token_id, device=CPU.torch_device, batch_size=3).loss


def write_rows(path: Path, *rows: dict[str, Any]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def test_base_and_tuned_are_measured_on_the_rows_that_training_held_out(
    tiny_adapter_folder: Path, tiny_recipe: Path, tiny_base_folder: Path
) -> None:
    result = run(tiny_adapter_folder)
    tuned = load_tuned(open_adapter(tiny_adapter_folder), CPU, NO_HUB)
    base = load_base(
        ModelSection(base=str(tiny_base_folder)), Location(str(tiny_base_folder), tiny_base_folder), CPU
    )  # fmt: skip
    assert result.base is not None
    # The same arithmetic in another batch: fp32 rounding.
    assert result.tuned.loss == pytest.approx(loss_of(tuned.model, tuned.tokenizer, tiny_recipe), rel=1e-5)
    assert result.base.loss == pytest.approx(loss_of(base.model, base.tokenizer, tiny_recipe), rel=1e-5)
    assert result.tuned.loss < result.base.loss
    assert (result.tuned.num_rows, result.tuned.num_completed) == (8, 4), "the recipe completes 4 rows"
    assert result.base.num_completed == 4


def test_the_scores_do_not_depend_on_the_batch_size(tiny_adapter_folder: Path) -> None:
    results = [run(tiny_adapter_folder, batch_size=size, rows=8) for size in (1, 2, 8)]
    for result in results[1:]:
        for found, first in ((result.tuned, results[0].tuned), (result.base, results[0].base)):
            assert found is not None
            assert first is not None
            assert found.loss == pytest.approx(first.loss, rel=1e-5)
            assert (found.stop_share, found.exact_match) == (first.stop_share, first.exact_match)
            assert [each.completion for each in found.attempts] == [each.completion for each in first.attempts]


def test_the_table_shows_base_tuned_and_the_difference(tiny_adapter_folder: Path) -> None:
    result = run(tiny_adapter_folder)
    assert result.base is not None
    text = result.text()
    (loss,) = [line.split() for line in text.splitlines() if line.startswith("loss, nats/token")]
    assert loss[-3:] == [
        f"{result.base.loss:.3f}",
        f"{result.tuned.loss:.3f}",
        f"{result.tuned.loss - result.base.loss:+.3f}",
    ]
    for named in ("exact match (4 rows)", "stops by itself (4 rows)", "token accuracy", "perplexity", "over 8 rows"):
        assert named in text
    assert text.count("expected") == len(result.examples) == 3
    assert result.examples[0].expected in text


def test_the_base_can_be_left_out_and_so_can_the_completions(tiny_adapter_folder: Path) -> None:
    result = run(tiny_adapter_folder, untuned=False, rows=0)
    assert result.base is None
    assert (result.tuned.num_completed, result.tuned.exact_match, result.examples) == (0, None, ())
    assert result.record()["base"] is None
    assert "–" in result.text()


def test_another_file_is_measured_whole(tiny_adapter_folder: Path, tmp_path: Path) -> None:
    rows = [{"instruction": "Add 3 and 1.", "output": "4", "group": "sums"}] * 3
    rows.append({"instruction": "Give the plural.", "input": "cow", "output": "cows", "group": "words"})
    data = write_rows(tmp_path / "other.jsonl", *rows)
    result = run(tiny_adapter_folder, data=data, untuned=False)
    assert (result.source, result.tuned.num_rows, result.tuned.num_completed) == (data, 4, 4)
    assert [(match.group, match.num_rows) for match in result.tuned.groups] == [("sums", 3), ("words", 1)]
    assert "· sums (3 rows)" in result.text()


def test_what_the_model_says_itself_matches_exactly(tiny_adapter_folder: Path, tmp_path: Path) -> None:
    asked = {"instruction": "Give the plural.", "input": "cow"}
    first = run(tiny_adapter_folder, data=write_rows(tmp_path / "a.jsonl", {**asked, "output": "cows"}))
    assert first.base is not None
    said = first.base.attempts[0].completion
    data = write_rows(tmp_path / "b.jsonl", {**asked, "output": "cows", "accepted": ["kine", said]})
    again = run(tiny_adapter_folder, data=data)
    assert again.base is not None
    assert (again.base.exact_match, again.tuned.exact_match) == (1.0, 0.0)


def test_the_result_is_json_and_out_holds_every_completion(tiny_adapter_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "scores.json"
    result = run(tiny_adapter_folder, out=out)
    written = json.loads(out.read_text(encoding="utf-8"))
    assert [len(written[name].pop("completions")) for name in ("base", "tuned")] == [4, 4]
    assert written == json.loads(json.dumps(result.record()))
    assert written["environment"]["device"] == "cpu"
    assert written["environment"]["precision"] == "fp32"


def test_a_whole_model_is_measured_beside_its_base(
    tiny_adapter_folder: Path, tiny_base_folder: Path, tiny_rows_file: Path, tmp_path: Path
) -> None:
    folder = write_whole_model(tiny_adapter_folder, tmp_path / "whole")
    with pytest.raises(AdapterError, match="--data"):
        run(folder)
    whole = run(folder, data=str(tiny_rows_file), rows=2, base=str(tiny_base_folder))
    adapter = run(tiny_adapter_folder, data=str(tiny_rows_file), rows=2)
    assert whole.base is not None
    assert adapter.base is not None
    # Merging adds the same products in another order.
    assert whole.tuned.loss == pytest.approx(adapter.tuned.loss, rel=1e-5)
    assert whole.base.loss == pytest.approx(adapter.base.loss, rel=1e-6)


def test_a_model_from_random_weights_has_no_base_to_stand_beside(
    tiny_adapter_folder: Path, tiny_rows_file: Path, tmp_path: Path
) -> None:
    folder = write_whole_model(tiny_adapter_folder, tmp_path / "whole")
    manifest = open_adapter(folder).manifest
    write_manifest(
        folder, manifest.model_copy(update={"base": manifest.base.model_copy(update={"fingerprint": ""})})
    )  # fmt: skip
    said: list[str] = []
    result = run(folder, data=str(tiny_rows_file), rows=0, say=said.append)
    assert result.base is None
    assert any("random weights" in line for line in said)


def test_rows_that_changed_since_training_are_refused(tiny_recipe: Path, tiny_rows_file: Path, tmp_path: Path) -> None:
    from peft_instruct.commands.train import train

    rows = tmp_path / "rows.json"
    shutil.copyfile(tiny_rows_file, rows)
    overrides = (f"data.train={rows}", "training.max_steps=2", "samples.count=0", "evaluation.rows=0")
    adapter = train(str(tiny_recipe), overrides, out=tmp_path / "adapter", say=silent).folder
    assert run(adapter, rows=0).tuned.num_rows == 8
    rows.write_text(json.dumps(json.loads(rows.read_text())[1:]))
    with pytest.raises(DatasetError, match="fingerprint differs"):
        run(adapter, rows=0)
    rows.unlink()
    with pytest.raises(DatasetError, match=r"rows\.json: not found"):
        run(adapter, rows=0)
    assert run(adapter, rows=0, data=str(tiny_rows_file)).tuned.num_rows == 64


def test_wrong_options_and_folders_are_told(
    tiny_adapter_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(RecipeError) as error:
        run(tiny_adapter_folder, rows=-1, batch_size=0)
    assert "--rows: -1" in str(error.value)
    assert "--batch-size: 0" in str(error.value)
    with pytest.raises(AdapterError, match="no such folder"):
        run(tmp_path / "none")
    # Before any weight is loaded, and so before the hours of measuring.
    monkeypatch.setattr("peft_instruct.adapter.folder.load_tuned", lambda *args, **kwargs: pytest.fail("too late"))
    with pytest.raises(RecipeError, match="--out"):
        run(tiny_adapter_folder, rows=0, untuned=False, out=tmp_path)
