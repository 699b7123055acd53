"""Checkpoints of someone who can make a manifest that fits: a pickle in none of their places runs."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import pytest
from planting import QUICK, payloads, refused, silent

from peft_instruct.commands.train import train
from peft_instruct.errors import Stopped
from peft_instruct.training.checkpoints import commit, verify

pytestmark = pytest.mark.usefixtures("quiet_transformers")

OF_CHECKPOINTS = (*QUICK[1:], "training.max_steps=4", "training.save_every=1", "training.log_every=1")
BESIDE_A_CHECKPOINT = (
    "adapter_model.bin", "pytorch_model.bin", "optimizer.pt", "scheduler.pt", "rng_state.pth", "scaler.pt",
    "training_args.bin", "state.pkl",
)  # fmt: skip
"""What transformers and peft read from a checkpoint, besides what ours hold."""


@pytest.fixture(scope="module")
def stopped(tiny_recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The working folder of a run that was stopped, with checkpoints 1 and 2; to be copied."""
    out = tmp_path_factory.mktemp("stopped") / "a"

    def say(line: str) -> None:
        if line.startswith("step 2/"):
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Stopped):
        train(str(tiny_recipe), OF_CHECKPOINTS, out=out, say=say)
    return out.with_name("a.run")


@pytest.mark.parametrize("kind", ["pickle", "torch"])
def test_a_run_goes_on_from_no_checkpoint_with_a_pickle_in_any_place_of_it(
    kind: str, stopped: Path, tiny_recipe: Path, canary: Path, tmp_path: Path
) -> None:
    """As it was planted, and with a manifest made anew to fit it, as one who knows the format would hand it over."""
    content = payloads(canary, tmp_path)[kind]
    whole = stopped / "checkpoints" / "checkpoint-2"
    slots = [path.name for path in whole.iterdir() if path.name != "README.md"] + list(BESIDE_A_CHECKPOINT)
    assert len(slots) == 6 + len(BESIDE_A_CHECKPOINT)
    for name in slots:
        for is_sealed in (False, True) if name != "manifest.json" else (False,):
            given = tmp_path / "given" / "checkpoint-2"
            shutil.copytree(whole, given)
            (given / name).write_bytes(content)
            if is_sealed:
                manifest = verify(whole).manifest
                commit(given, manifest.model_copy(update={"seal": ""}))
            error = refused(
                lambda: train(str(tiny_recipe), OF_CHECKPOINTS, out=tmp_path / "b", resume=str(given), say=silent)  # noqa: B023
            )
            assert name in str(error), (name, is_sealed)
            assert not canary.exists()
            shutil.rmtree(given)
    assert not (tmp_path / "b").exists()


def test_a_checkpoint_with_a_pickle_is_set_aside_and_the_one_before_it_taken(
    stopped: Path, tiny_recipe: Path, canary: Path, tmp_path: Path
) -> None:
    shutil.copytree(stopped, tmp_path / "a.run")
    (tmp_path / "a.run" / "checkpoints" / "checkpoint-2" / "optimizer.pt").write_bytes(
        payloads(canary, tmp_path)["torch"]
    )
    said: list[str] = []
    train(str(tiny_recipe), OF_CHECKPOINTS, out=tmp_path / "a", say=said.append)
    text = "\n".join(said)
    assert "optimizer.pt: not part of the checkpoint" in text and "Set aside in" in text
    assert "going on from" in text and "checkpoint-1, step 1 of 4" in text
