"""A full disk, a file that may not grow, two writers: one line, nothing lost, nobody in twice."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from children import Count, Zygote, assert_same_run, checkpoints_of, long_form

from peft_instruct.errors import AdapterError, PeftInstructError
from peft_instruct.recipe.training_section import TrainingSection
from peft_instruct.training.checkpoints import verify
from peft_instruct.training.space import check_space

# Below the weights, below the optimizer's state, below what a long log_history makes of trainer_state.json.
LIMITS = (12_000, 50_000)


def assert_told(said: str, out: Path) -> None:
    assert "Traceback" not in said, said
    error = [line for line in said.splitlines() if line.startswith("error: ")]
    assert len(error) == 1, said
    assert "checkpoint-2: cannot be written" in error[0] and "MB free" in error[0]
    assert "Then: peft-instruct train" in error[0] and f"--out {out}" in error[0]
    assert not any(checkpoints_of(out).glob("checkpoint-*"))


@pytest.mark.parametrize("most_bytes", LIMITS)
def test_a_file_that_may_not_grow_is_told_and_the_run_goes_on_later(
    zygote: Zygote, fault_recipe: Path, uninterrupted: Path, tmp_path: Path, most_bytes: int
) -> None:
    out = tmp_path / "a"
    ended = zygote.run("train", fault_recipe, "--out", out, most_bytes=most_bytes)
    assert ended.code == 1
    assert_told(ended.said, out)
    if most_bytes == LIMITS[0]:
        assert zygote.run("train", fault_recipe, "--out", out).code == 0
        assert_same_run(out, uninterrupted)


@pytest.fixture
def small_disk(tmp_path: Path) -> Path:
    """A real disk of 600 kB, where one may be mounted."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = os.name == "posix" and os.geteuid() == 0 and shutil.which("mount")
    if not mounted or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", str(place)]).returncode:
        pytest.skip("nothing can be mounted here")
    yield place  # type: ignore[misc]
    subprocess.run(["umount", str(place)], check=True)


@pytest.mark.parametrize(
    "left", [100_000, *(pytest.param(kilobytes * 1000, marks=pytest.mark.slow) for kilobytes in range(40, 240, 20))]
)
def test_a_disk_that_fills_up_while_training_loses_no_good_checkpoint(
    zygote: Zygote, fault_recipe: Path, uninterrupted: Path, small_disk: Path, left: int
) -> None:
    """Another program takes the space after the first checkpoint, and gives it back later."""
    out = small_disk / "a"
    child = zygote.start("train", fault_recipe, "--out", out)
    child.wait_for("step 3/8")
    free = shutil.disk_usage(small_disk).free
    (small_disk / "of someone else").write_bytes(b"x" * max(free - left, 0))
    ended = child.wait()
    assert "Traceback" not in ended.said, ended.said
    if ended.code:
        assert ended.code == 1
        assert "Last good checkpoint: checkpoint-" in ended.said and "Then: peft-instruct train" in ended.said
        whole = [verify(folder) for folder in checkpoints_of(out).glob("checkpoint-*")]
        assert whole
    (small_disk / "of someone else").unlink()
    if ended.code:
        assert zygote.run("train", fault_recipe, "--out", out).code == 0
    assert_same_run(out, uninterrupted)


@pytest.mark.parametrize(
    ("given", "needed", "checkpoints"),
    [
        # Weights and two moments are 3 x 4 MB; two checkpoints are kept while the next one is written.
        ({}, 40.0, "3 x 12.0"),
        ({"keep_best": True}, 52.0, "4 x 12.0"),
        ({"save_every": "never"}, 16.0, "1 x 12.0"),
        ({"optimizer": "sgd"}, 16.0, "3 x 4.0"),
    ],
)
def test_too_little_space_is_told_before_the_first_step(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, given: dict[str, Any], needed: float, checkpoints: str
) -> None:
    import torch

    model = torch.nn.Linear(1000, 1000, bias=False)
    training = TrainingSection.model_validate({"learning_rate": 1e-3, **given})
    check_space(tmp_path, model, training)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=round(needed * 1e6) - 1))
    with pytest.raises(
        PeftInstructError, match=rf"expected {needed:.1f} MB \({checkpoints} MB of checkpoints and 4\.0 MB of weights\)"
    ):
        check_space(tmp_path, model, training)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=round(needed * 1e6)))
    check_space(tmp_path, model, training)


@pytest.mark.parametrize("times", [5, long_form(50)])
def test_of_two_writers_exactly_one_wins(
    zygote: Zygote, fault_recipe: Path, tmp_path: Path, times: int, record_property: Count
) -> None:
    record_property("cases", times)
    for number in range(times):
        out = tmp_path / str(number)
        children = [zygote.start("train", fault_recipe, "--out", out) for _ in range(2)]
        while not any(child.has_ended() for child in children):
            pass
        lost = [child for child in children if child.has_ended()]
        for child in children:
            if child not in lost:
                child.wait_for("format alpaca")
                child.send(9)
        ended = {child.pid: child.wait() for child in children}
        assert len(lost) == 1
        (other,) = (child.pid for child in children if child not in lost)
        assert ended[lost[0].pid].code == 1
        assert f"run.lock is held by process {other} on " in ended[lost[0].pid].said
        assert ended[other].code == -9


def test_an_interrupted_run_with_every_checkpoint_damaged_begins_anew_and_says_so(
    zygote: Zygote, fault_recipe: Path, uninterrupted: Path, tmp_path: Path
) -> None:
    out = tmp_path / "a"
    child = zygote.start("train", fault_recipe, "--out", out)
    child.wait_for("step 5/8")
    child.send(9)
    child.wait()
    for folder in checkpoints_of(out).glob("checkpoint-*"):
        weights = folder / "adapter_model.safetensors"
        if weights.exists():
            weights.write_bytes(weights.read_bytes()[:-1])
        with pytest.raises(AdapterError):
            verify(folder)
    ended = zygote.run("train", fault_recipe, "--out", out)
    assert ended.code == 0
    assert "Set aside in" in ended.said and "no checkpoint is whole; starting from the first step" in ended.said
    assert_same_run(out, uninterrupted)
