"""kill -9 at every single write of a save: at least two whole checkpoints are left, and the newest is found."""

from __future__ import annotations

import shutil
import sys
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from write_points import killed_at

from peft_instruct.adapter.storage import LOCK, MANIFEST
from peft_instruct.commands.run_folder import RunFolder
from peft_instruct.training.checkpoints import newest, verify
from peft_instruct.training.contents import METRICS

LEAST_POINTS = 20
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="files behind descriptors are read from /proc")


def test_every_write_point_of_a_save(make_trainer: Any, tmp_path: Path, record_property: Any) -> None:
    """The fifth save of a run, with the rotation after it; each point in a process of its own."""
    trainer = make_trainer("training.max_steps=4", "training.save_every=1", "training.evaluate_every=never")
    (tmp_path / METRICS).touch()  # as `train` does before the first step; a checkpoint without it is not whole
    trainer.learn()
    trainer.state.global_step = 5
    checkpoints, before = tmp_path / "checkpoints", tmp_path / "before"
    shutil.copytree(checkpoints, before)
    found_steps = []
    for number in count(1):
        if not killed_at(number, checkpoints, lambda: trainer._save_checkpoint(trainer.model, None)):
            break
        said: list[str] = []
        found = newest(checkpoints, said.append)
        assert found is not None, f"nothing to go on from after a kill at write {number}"
        found_steps.append(found.step)
        assert (found.step == 4) == any("checkpoint-5: incomplete" in line for line in said) or not said
        assert len([verify(folder) for folder in checkpoints.glob("checkpoint-*")]) >= 2
        shutil.rmtree(checkpoints)
        shutil.copytree(before, checkpoints)
    record_property("cases", len(found_steps))
    assert len(found_steps) >= LEAST_POINTS
    # The new one counts from the moment that its manifest is in place, and never before.
    assert found_steps == sorted(found_steps) and set(found_steps) == {4, 5}


def test_every_write_point_of_putting_an_adapter_in_its_place(tmp_path: Path, record_property: Any) -> None:
    """Either the earlier adapter or the new one is there in the end, and whole; never neither."""
    folder = RunFolder(tmp_path / "a", tmp_path / "a.run")
    seen = set()
    for number in count(1):
        shutil.rmtree(tmp_path)
        for place, text in ((folder.final, "old"), (folder.work, "new")):
            (place / "checkpoints").mkdir(parents=True)
            for name in (MANIFEST, "recipe.yaml", "checkpoints/state", LOCK):
                (place / name).write_text(text)
        (folder.final / LOCK).unlink()
        died = killed_at(number, tmp_path, folder.put_in_place)
        folder.recover()
        text = (folder.final / MANIFEST).read_text()
        assert (folder.final / "recipe.yaml").read_text() == text
        if text == "new":
            assert {path.name for path in tmp_path.rglob("*")} == {"a", MANIFEST, "recipe.yaml"}
        else:
            assert (folder.work / MANIFEST).read_text() == "new"
        seen.add(text)
        if not died:
            break
    record_property("cases", number - 1)
    assert number > 4 and seen == {"old", "new"}
