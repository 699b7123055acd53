"""`train` from the outside: what it hands over, and what it never takes away."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from listeners import silent
from safetensors.torch import load_file

from peft_instruct.adapter.folder import open_adapter
from peft_instruct.commands.evaluate import evaluate
from peft_instruct.commands.train import train
from peft_instruct.errors import AdapterError, RecipeError

SAMPLED = ("training.max_steps=2", "samples.every=1", "samples.count=3", "samples.max_new_tokens=2")
QUICK = ("training.max_steps=3", "evaluation.rows=0", "samples.count=0")


@pytest.mark.parametrize("learns", ["method.dora=true", "speed.frozen_weights=fp32"])
def test_samples_are_taken_of_weights_that_are_multiplied_in_another_type(
    tiny_recipe: Path, tmp_path: Path, learns: str
) -> None:
    """fp32 weights under autocast, which accelerate puts around the outermost model alone."""
    said: list[str] = []
    asked = (*SAMPLED, learns, "training.precision=bf16")
    folder = train(str(tiny_recipe), asked, out=tmp_path / "adapter", say=said.append).folder
    assert sum("stopped by themselves" in line for line in said) == 2
    # Three prompts at either step, under a heading of the table of each.
    report = (
        (folder / "report.html").read_text(encoding="utf-8").partition("While training")[2].partition("</table>")[0]
    )
    assert report.count("<tr>") == 1 + 6


@pytest.fixture
def finished(tiny_adapter_folder: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "finished"
    shutil.copytree(tiny_adapter_folder, folder)
    return folder


def test_a_finished_adapter_is_not_overwritten_unasked(tiny_recipe: Path, finished: Path) -> None:
    with pytest.raises(
        AdapterError,
        match=r"(?s)holds a finished adapter of another recipe; nothing was trained\."
        r" Replace it with --if-exists replace.*\n  training\.max_steps: 12 -> 3\n",
    ):
        train(str(tiny_recipe), QUICK, out=finished, say=silent)
    open_adapter(finished)


def test_a_run_that_cannot_start_leaves_the_finished_adapter_as_it_was(tiny_recipe: Path, finished: Path) -> None:
    with pytest.raises(RecipeError, match="more than the 256 positions"):
        train(str(tiny_recipe), ["data.max_length=999"], out=finished, if_exists="replace", say=silent)
    open_adapter(finished)


def test_a_run_that_cannot_start_leaves_no_empty_folder(tiny_recipe: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="positions"):
        train(str(tiny_recipe), ["data.max_length=999"], out=tmp_path / "new", say=silent)
    assert not (tmp_path / "new").exists()


def test_a_folder_of_someone_else_is_not_touched(tiny_recipe: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(AdapterError, match=r"holds what no run wrote \(thesis\.txt\)"):
        train(str(tiny_recipe), QUICK, out=tmp_path, if_exists="replace", say=silent)
    assert (tmp_path / "thesis.txt").read_text() == "mine"


def test_the_recipe_in_the_folder_trains_the_same_adapter_again_bit_for_bit(
    tiny_adapter_folder: Path, tmp_path: Path
) -> None:
    again = train(str(tiny_adapter_folder / "recipe.yaml"), out=tmp_path / "again", say=silent).folder
    one, other = (load_file(str(folder / "adapter_model.safetensors")) for folder in (tiny_adapter_folder, again))
    assert one.keys() == other.keys()
    assert all(one[name].equal(other[name]) for name in one)


def test_full_training_hands_over_a_model_that_transformers_reads_and_evaluate_compares(
    tiny_recipe: Path, tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    overrides = [*QUICK, "method.kind=full", "training.learning_rate=1e-2"]
    result = train(str(tiny_recipe), overrides, out=tmp_path / "full", say=silent)
    AutoModelForCausalLM.from_pretrained(str(result.folder))
    assert AutoTokenizer.from_pretrained(str(result.folder))("Hi")["input_ids"]
    assert open_adapter(result.folder).manifest.kind == "full"
    measured = evaluate(str(result.folder), rows=0, say=silent)
    assert measured.base is not None
    base, tuned = result.scores["loss (nats/token)"]
    # The same rows in fp32 on one machine: the command repeats what the run measured.
    assert measured.base.loss == pytest.approx(base, rel=1e-6)
    assert measured.tuned.loss == pytest.approx(tuned, rel=1e-6)


def test_whole_text_trains_from_random_weights_and_packing_loses_no_token(
    tiny_base_folder: Path, tmp_path: Path
) -> None:
    documents = tmp_path / "documents.jsonl"
    lines = [json.dumps({"text": f"The number {n} comes after {n - 1}. " * 8}) for n in range(1, 41)]
    documents.write_text("\n".join(lines) + "\n", encoding="utf-8")
    recipe = tmp_path / "scratch.yaml"
    recipe.write_text(
        f"model: {{base: {tiny_base_folder}, init: random,\n"
        "        architecture: {layers: 1, width: 32, heads: 2, positions: 64}}\n"
        "method: {kind: full}\n"
        f"data: {{train: {documents}, format: text, packing: true, max_length: 32}}\n"
        "training: {epochs: 2, learning_rate: 1e-2, device: cpu, precision: fp32}\n"
    )
    said: list[str] = []
    result = train(str(recipe), out=tmp_path / "scratch", say=said.append)
    base, tuned = result.scores["loss (nats/token)"]
    assert base is not None and tuned is not None
    assert base == pytest.approx(float(torch.log(torch.tensor(512.0))), rel=0.05)  # untrained: ln(vocabulary)
    assert tuned < base
    assert not any("cut" in line or "left out" in line for line in said if line.startswith("train"))
    with pytest.raises(AdapterError, match="random weights"):
        # There is no base to compare a model from random weights with.
        from peft_instruct.adapter.folder import load_untuned
        from peft_instruct.environment import HubState
        from peft_instruct.model.device import choose_compute

        load_untuned(open_adapter(result.folder), choose_compute("cpu"), HubState(False))


def test_every_step_of_a_run_is_said_and_the_result_tells_what_was_proven(tiny_recipe: Path, tmp_path: Path) -> None:
    said: list[str] = []
    result = train(str(tiny_recipe), QUICK, out=tmp_path / "out", say=said.append)
    text = "\n".join(said)
    assert "64 rows, format alpaca" in text
    assert "8,192 of" in text  # rank 4 on 2 layers of width 64: 2 · 4 · ((64+192) + (64+64) + 2 · (64+256))
    assert "validation loss" in text
    assert "proof: read back from disk" in result.text()
    assert result.record()["proofs"]["reloaded_equals_trained"]["largest_logit_difference"] <= 1e-5


def test_what_the_scores_are_of_is_told(tiny_recipe: Path, tmp_path: Path) -> None:
    said: list[str] = []
    asked = [*QUICK, "evaluation.rows=2", "data.test_fraction=0.2", "data.max_length=48"]
    result = train(str(tiny_recipe), asked, out=tmp_path / "out", say=said.append)
    assert result.scored_on == "13 test rows, 2 of them answered"
    assert "While training" not in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert any(line.startswith("13 test rows: ") and "cut at data.max_length 48" in line for line in said)
    assert "2 of them answered" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")


def test_a_project_folder_with_a_recipe_in_it_is_not_a_folder_of_ours(tiny_recipe: Path, tmp_path: Path) -> None:
    """A recipe beside one's own files must not make the folder removable."""
    (tmp_path / "recipe.yaml").write_text("mine")
    (tmp_path / "notes.md").write_text("mine")
    with pytest.raises(AdapterError, match=r"holds what no run wrote \(notes\.md\)"):
        train(str(tiny_recipe), QUICK, out=tmp_path, if_exists="replace", say=silent)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["notes.md", "recipe.yaml"]


def test_a_link_and_the_working_folder_are_refused(
    tiny_recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    monkeypatch.chdir(tmp_path / "real")
    for out in (tmp_path / "link", Path(".")):
        with pytest.raises(AdapterError, match="a link or the working folder"):
            train(str(tiny_recipe), QUICK, out=out, say=silent)


def test_another_tokenizer_travels_with_the_adapter(tiny_recipe: Path, tiny_base_folder: Path, tmp_path: Path) -> None:
    """The base's own files are then not what the adapter is prompted through."""
    from peft_instruct.commands.generate import generate

    other = tmp_path / "tokenizer"
    shutil.copytree(tiny_base_folder, other)
    (other / "model.safetensors").unlink()
    result = train(str(tiny_recipe), [*QUICK, f"model.tokenizer={other}"], out=tmp_path / "own", say=silent)
    assert (result.folder / "tokenizer.json").is_file()
    shutil.rmtree(other)
    assert len(generate(str(result.folder), "Add 3 and 4.", device="cpu", say=silent).completed) == 1
