"""A dry run checks and measures what `train` would, says what it comes to, and leaves nothing behind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from listeners import silent

from peft_instruct.adapter.manifest import read_manifest
from peft_instruct.bench.memory import PeakMemory
from peft_instruct.commands import dry_run as module
from peft_instruct.commands import probe_passes
from peft_instruct.commands.dry_run import DryRun, dry_run, worst_errors
from peft_instruct.commands.dry_run_probe import run_probe
from peft_instruct.commands.train import train
from peft_instruct.environment import HubState
from peft_instruct.errors import AdapterError, DatasetError, PeftInstructError, RecipeError
from peft_instruct.recipe import Recipe
from peft_instruct.training import guarded


def here(name: str, request: dict[str, Any]) -> dict[str, Any]:
    """The probe in this process, through the JSON that it has in its own."""
    assert name == module.PROBE_MODULE
    asked = json.loads(json.dumps(request))
    found = run_probe(Recipe.model_validate(asked["recipe"]), HubState(False), Path(asked["place"]))
    answer: dict[str, Any] = json.loads(json.dumps(found))
    return answer


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty working folder, and the probe without a process of its own."""
    monkeypatch.setattr(module, "run_isolated", here)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"


def test_what_a_run_comes_to_is_foretold_and_nothing_is_written(
    tiny_recipe: Path, tiny_adapter_folder: Path, in_this_process: Path
) -> None:
    notes: list[str] = []
    found = dry_run(str(tiny_recipe), say=notes.append)
    assert list(in_this_process.iterdir()) == []
    manifest, record = read_manifest(tiny_adapter_folder), found.record()
    assert record["num_steps"] == manifest.metrics["num_steps"] == 12
    assert record["num_rows"] == {"train": 56, "validation": 8, "test": 0}
    # LoRA of rank 4 on 2 layers, 64 wide; a checkpoint holds the weights and AdamW's two moments in fp32.
    assert record["num_trainable"] == 2 * 4 * ((64 + 192) + (64 + 64) + (64 + 256) + (256 + 64))
    assert record["weight_bytes"] == 4 * record["num_trainable"]
    assert record["checkpoint_bytes"] == 3 * record["weight_bytes"]
    memory, seconds = record["memory"], record["seconds"]
    assert memory["fits"] and memory["micro_batch"] == memory["longest_batch"][0] == 8
    assert 0 < memory["training_peak_bytes"] <= memory["peak_bytes"] < memory["device_bytes"]
    assert all(seconds.values()) and record["total_seconds"] == pytest.approx(sum(seconds.values()))
    assert any(note.startswith("train: 56 rows") for note in notes)
    text = found.text()
    assert "fits (the longest batch, 8 x " in text and "12 steps" in text and "not counted: samples" in text


def test_a_batch_that_does_not_fit_is_told_with_the_one_that_would(
    tiny_recipe: Path, in_this_process: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stand-in for the memory of the device, and for what a pass takes of it: 100 bytes, and 10 for each row."""
    trainer: list[Any] = []

    def build(*arguments: Any, **words: Any) -> Any:
        trainer.append(built(*arguments, **words))
        return trainer[-1]

    built = probe_passes.build_trainer
    monkeypatch.setattr(probe_passes, "build_trainer", build)
    monkeypatch.setattr(probe_passes, "device_memory", lambda device: 160)
    taken = lambda device: PeakMemory(100 + 10 * trainer[-1].rows_at_once, "made up")  # noqa: E731
    monkeypatch.setattr(probe_passes, "peak_memory", taken)
    found = dry_run(str(tiny_recipe), say=silent)
    # 144 bytes may be used: 4 rows take 140, 8 rows 180.
    assert (found.found["memory"]["fits"], found.found["memory"]["micro_batch"]) == (False, 4)
    assert "does not fit in passes of 8 rows" in found.text()
    assert "micro-batch 4 would" in found.text() and "Set training.batch_size: 4 and raise accumulation" in found.text()


def test_memory_that_runs_out_all_the_same_gives_the_rows_that_fitted(
    tiny_recipe: Path, in_this_process: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes = guarded.passes

    def run_out(batch: Any, rows_at_once: int) -> Any:
        if rows_at_once > 4:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes")
        return passes(batch, rows_at_once)

    monkeypatch.setattr(guarded, "passes", run_out)
    memory = dry_run(str(tiny_recipe), say=silent).found["memory"]
    assert (memory["fits"], memory["micro_batch"]) == (False, 4)


@pytest.mark.parametrize(
    ("words", "error", "told"),
    [
        (["data.max_length=300"], RecipeError, "data.max_length: 300 is more than the 256 positions"),
        (["data.train=rows.json"], DatasetError, "rows.json"),
        (["method.targets=[nowhere]"], RecipeError, "nowhere"),
    ],
)
def test_what_train_would_refuse_is_refused_with_its_own_kind_of_error(
    tiny_recipe: Path, in_this_process: Path, words: list[str], error: type[PeftInstructError], told: str
) -> None:
    with pytest.raises(error, match=told):
        dry_run(str(tiny_recipe), words, say=silent)


def test_a_folder_that_train_would_not_take_is_refused_and_left_as_it_is(
    tiny_recipe: Path, in_this_process: Path
) -> None:
    folder = in_this_process / "notes"
    folder.mkdir()
    (folder / "mine.txt").write_text("mine")
    for command in (dry_run, train):
        with pytest.raises(AdapterError, match="holds what no run wrote"):
            command(str(tiny_recipe), out=folder, say=silent)  # type: ignore[operator]
    assert [path.name for path in folder.iterdir()] == ["mine.txt"]


def test_a_probe_that_the_system_ends_is_told(
    tiny_recipe: Path, in_this_process: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "run_isolated", lambda name, request: {"failed": "the process was ended by SIGKILL"})
    with pytest.raises(PeftInstructError, match="train --dry-run: the process was ended by SIGKILL"):
        dry_run(str(tiny_recipe), say=silent)


def test_the_errors_that_are_quoted_are_the_worst_of_the_file_and_none_without_it(tmp_path: Path) -> None:
    path = tmp_path / "dry_run.json"
    assert worst_errors(path) == {}
    runs = [{"error": {"seconds": 0.1, "bytes": -0.2}}, {"error": {"seconds": -0.3, "bytes": 0.1}}]
    path.write_text(json.dumps({"runs": runs}))
    assert worst_errors(path) == {"seconds": 0.3, "bytes": 0.2}


def test_what_is_not_known_is_not_quoted(tiny_recipe: Path, in_this_process: Path) -> None:
    """Neither errors without a file of them, nor a longer time where no completion may take longer."""
    found = dry_run(str(tiny_recipe), say=silent)
    known = DryRun(found.name, found.found, (), {"seconds": 0.3, "bytes": 0.2})
    unknown = DryRun(found.name, found.found, (), {})
    assert known.text().endswith("off by at most 30% in time and 20% in memory in benchmarks/results/dry_run.json")
    assert "off by" not in unknown.text()
    assert found.found["seconds_without_stopping"] >= found.seconds
    for seconds, is_told in ((found.seconds, False), (2 * found.seconds, True)):
        found.found["seconds_without_stopping"] = seconds
        assert (" where the tuned model does not learn to stop\n" in found.text()) == is_told


def test_batches_by_tokens_are_foretold_too(
    tiny_recipe: Path, in_this_process: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[int] = []
    parts = guarded.passes
    monkeypatch.setattr(
        guarded, "passes", lambda batch, rows: given.append(-(-len(batch["input_ids"]) // rows)) or parts(batch, rows)
    )
    budget = ["training.batch_tokens=640", "training.max_steps=null", "training.epochs=1"]
    found = dry_run(str(tiny_recipe), budget, say=silent)
    memory = found.found["memory"]
    rows, widest = memory["longest_batch"]
    assert memory["fits"] and memory["micro_batch"] == rows > 1
    assert widest == found.found["longest"] and rows * widest <= 640
    assert found.found["num_tokens_trained"] == found.found["num_tokens"]
    # Once the longest rows were run at once, batches of more and shorter rows are, too.
    assert given[: 2 + rows].count(1) < 2 + rows and set(given[2 + rows :]) == {1}
    memory |= {"fits": False, "micro_batch": 1}
    assert f"Set training.batch_tokens: {widest} and raise accumulation" in found.text()
