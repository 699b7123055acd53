"""Which checkpoint a run begins at, and what its working folder holds then; no run is needed to see it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from listeners import silent
from tiny import write_checkpoint_files

from peft_instruct.adapter.storage import LOCK
from peft_instruct.commands.resuming import Resume, begin, choose_checkpoint, precision_as_begun
from peft_instruct.errors import AdapterError
from peft_instruct.model.device import Compute
from peft_instruct.recipe import load_recipe
from peft_instruct.recipe.writing import recipe_values
from peft_instruct.training.checkpoints import SET_ASIDE, CheckpointManifest, checkpoint_folder, commit, verify
from peft_instruct.training.saving import RunIdentity


def committed(
    work: Path, step: int, recipe: dict[str, Any] | None = None, environment: dict[str, str] | None = None
) -> Path:
    """A whole checkpoint without a weight in it."""
    folder = checkpoint_folder(work / "checkpoints", step)
    write_checkpoint_files(folder, step)
    manifest = CheckpointManifest(
        step=step, max_steps=9, is_last=False, best_step=None, seconds=0.0, recipe=recipe or {}, base_fingerprint="",
        data_fingerprint="", environment=environment or {}, world_size=1, files={},
    )  # fmt: skip
    commit(folder, manifest)
    return folder


@pytest.mark.parametrize("goes_on", [False, True])
def test_nothing_of_an_earlier_run_is_taken_for_this_ones(tmp_path: Path, goes_on: bool) -> None:
    """Its weights are read back as this run's where the two are of different kinds."""
    checkpoint = verify(committed(tmp_path, 3))
    for name in ("adapter_config.json", "model.safetensors", "tokenizer.json", "manifest.json", "ledger.jsonl",
                 ".recipe.yaml.partial", LOCK, "recipe.yaml"):  # fmt: skip
        (tmp_path / name).write_text("of an earlier run")
    (tmp_path / ".cache" / "inner").mkdir(parents=True)
    begin(tmp_path, "name: b", checkpoint if goes_on else None, silent)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["checkpoints", "recipe.yaml", LOCK])
    assert (tmp_path / "recipe.yaml").read_text() == "name: b"
    assert (checkpoint.folder / "manifest.json").is_file() == goes_on


@pytest.mark.parametrize("goes_on", [False, True])
def test_what_was_set_aside_and_what_is_no_checkpoint_stays(tmp_path: Path, goes_on: bool) -> None:
    checkpoint = verify(committed(tmp_path, 3))
    others = [f"{SET_ASIDE}/checkpoint-5", "checkpoint-40.bak", "checkpoint-007"]
    for name in (*others, ".trash-checkpoint-3"):
        (checkpoint.folder.parent / name / "inner").mkdir(parents=True)
    begin(tmp_path, "name: b", checkpoint if goes_on else None, silent)
    expected = [SET_ASIDE, *others[1:], *(["checkpoint-3"] if goes_on else [])]
    assert sorted(path.name for path in checkpoint.folder.parent.iterdir()) == sorted(expected)
    assert (checkpoint.folder.parent / others[0] / "inner").is_dir()


def test_a_key_that_an_earlier_version_did_not_have_counts_as_its_default(tiny_recipe: Path, tmp_path: Path) -> None:
    then = recipe_values(load_recipe(str(tiny_recipe)))
    del then["training"]["weight_decay"], then["speed"]
    committed(tmp_path, 3, then)

    def chosen(*overrides: str) -> Any:
        run = RunIdentity(recipe=recipe_values(load_recipe(str(tiny_recipe), overrides)))
        return choose_checkpoint(Resume(), tmp_path, run, 1, silent)

    assert chosen("speed.cache=false", "training.ledger=true").step == 3
    with pytest.raises(AdapterError, match=r"training\.weight_decay: 0\.0 -> 0\.1"):
        chosen("training.weight_decay=0.1")


def test_a_recipe_that_this_version_does_not_read_is_compared_as_it_is(tiny_recipe: Path, tmp_path: Path) -> None:
    recipe = recipe_values(load_recipe(str(tiny_recipe)))
    committed(tmp_path, 3, {**recipe, "gone": 1})
    with pytest.raises(AdapterError, match="gone: 1 -> null"):
        choose_checkpoint(Resume(), tmp_path, RunIdentity(recipe=recipe), 1, silent)


def test_a_named_run_of_another_folder_is_not_touched(tmp_path: Path) -> None:
    """Its lock is not ours: a checkpoint without a manifest may be one that is being written."""
    there, said = tmp_path / "there.run", list[str]()
    committed(there, 3), (committed(there, 5) / "manifest.json").unlink()
    found = choose_checkpoint(Resume(str(there)), tmp_path / "a.run", RunIdentity(), 1, said.append)
    assert found is not None and found.step == 3
    assert "checkpoint-5: incomplete" in said[0]
    assert sorted(path.name for path in (there / "checkpoints").iterdir()) == ["checkpoint-3", "checkpoint-5"]


@pytest.mark.parametrize(
    ("asked", "then", "expected"),
    [
        ("auto", {"device": "a", "precision": "bf16"}, "bf16"),
        ("auto", {"device": "another", "precision": "bf16"}, "fp32"),
        ("auto", {}, "fp32"),
        ("fp32", {"device": "a", "precision": "bf16"}, "fp32"),
    ],
)
def test_auto_is_the_precision_that_the_run_began_with_on_the_same_device(
    tmp_path: Path, asked: str, then: dict[str, str], expected: str
) -> None:
    checkpoint = verify(committed(tmp_path, 3, environment=then))
    assert precision_as_begun(checkpoint, asked, Compute("cpu", "fp32", "a")).precision == expected
    assert precision_as_begun(None, asked, Compute("cpu", "fp32", "a")).precision == "fp32"
