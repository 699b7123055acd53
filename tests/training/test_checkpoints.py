"""A checkpoint counts only when every byte of it is as it was written, and the last good ones are never given up."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save
from tiny import write_checkpoint_files

from peft_instruct.adapter.storage import MANIFEST
from peft_instruct.errors import AdapterError
from peft_instruct.training.checkpoints import (
    SET_ASIDE,
    CheckpointManifest,
    checkpoint_folder,
    commit,
    newest,
    rotate,
    verify,
)

FILES = ("model.safetensors", "state.safetensors", "trainer_state.json")
ALL_FILES = {*FILES, "metrics.jsonl", "config.json"}


def write(checkpoints: Path, step: int, best: int | None = None) -> Path:
    """A committed checkpoint of small files."""
    folder = checkpoint_folder(checkpoints, step)
    write_checkpoint_files(folder, step)
    for name in FILES[:2]:
        content = random.Random(f"{step} {name}").randbytes(200)
        (folder / name).write_bytes(save({"x": np.frombuffer(content, np.uint8)}))
    manifest = CheckpointManifest(
        step=step, max_steps=100, is_last=False, best_step=best, seconds=1.5, recipe={"name": "a", "rate": 1e-4},
        base_fingerprint="b", data_fingerprint="d", environment={"torch": "2.13.0"}, world_size=1, files={},
    )  # fmt: skip
    commit(folder, manifest)
    return folder


def steps(checkpoints: Path) -> list[int]:
    return sorted(int(path.name.split("-")[1]) for path in checkpoints.glob("checkpoint-*"))


@pytest.fixture
def said() -> list[str]:
    return []


def test_what_was_committed_verifies(tmp_path: Path) -> None:
    checkpoint = verify(write(tmp_path, 7))
    assert (checkpoint.step, set(checkpoint.manifest.files)) == (7, ALL_FILES)


def test_every_single_bit_of_every_file_is_watched(tmp_path: Path) -> None:
    """The manifest too: its seal is over its own bytes."""
    folder = write(tmp_path, 7)
    chance = random.Random(0)
    for path in sorted(folder.iterdir()):
        content = path.read_bytes()
        for _ in range(40):
            at, bit = chance.randrange(len(content)), chance.randrange(8)
            path.write_bytes(content[:at] + bytes([content[at] ^ (1 << bit)]) + content[at + 1 :])
            with pytest.raises(AdapterError, match=path.name):
                verify(folder)
        path.write_bytes(content)
    verify(folder)


@pytest.mark.parametrize("length", [0, 7, 8, 100, 199])
@pytest.mark.parametrize("name", [*FILES, MANIFEST])
def test_a_truncated_file_is_named(tmp_path: Path, name: str, length: int) -> None:
    folder = write(tmp_path, 7)
    (folder / name).write_bytes((folder / name).read_bytes()[:length])
    with pytest.raises(AdapterError, match=name):
        verify(folder)


def test_a_missing_an_extra_and_a_linked_file_are_named_at_once(tmp_path: Path) -> None:
    folder = write(tmp_path, 7)
    (folder / FILES[0]).unlink()
    (folder / "optimizer.pt").write_bytes(b"a pickle that is never opened")
    (tmp_path / "elsewhere").write_bytes((folder / FILES[1]).read_bytes())
    (folder / FILES[1]).unlink()
    (folder / FILES[1]).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(AdapterError) as caught:
        verify(folder)
    for told in (f"{FILES[0]}: missing", "optimizer.pt: not part", f"{FILES[1]}: outside the folder"):
        assert told in str(caught.value)


def test_the_newest_whole_one_is_taken_and_the_others_are_set_aside_with_the_reason(
    tmp_path: Path, said: list[str]
) -> None:
    for step in (5, 10, 15):
        write(tmp_path, step)
    (checkpoint_folder(tmp_path, 15) / MANIFEST).unlink()
    size = (checkpoint_folder(tmp_path, 10) / FILES[0]).stat().st_size
    (checkpoint_folder(tmp_path, 10) / FILES[0]).write_bytes(b"half")
    found = newest(tmp_path, said.append)
    assert found is not None and found.step == 5
    assert {path.name for path in (tmp_path / SET_ASIDE).iterdir()} == {"checkpoint-10", "checkpoint-15"}
    assert "checkpoint-15: incomplete (no manifest.json" in said[0]
    assert f"checkpoint-10: {FILES[0]}: 4 bytes. expected {size}." in said[1]


def test_steps_are_numbers_and_not_texts(tmp_path: Path, said: list[str]) -> None:
    write(tmp_path, 9), write(tmp_path, 10)
    found = newest(tmp_path, said.append)
    assert found is not None and found.step == 10


def test_a_checkpoint_whose_best_weights_are_gone_is_not_gone_on_from(tmp_path: Path, said: list[str]) -> None:
    write(tmp_path, 5), write(tmp_path, 10), write(tmp_path, 15, best=10)
    (checkpoint_folder(tmp_path, 10) / FILES[0]).unlink()
    found = newest(tmp_path, said.append)
    assert found is not None and found.step == 5
    assert "best weights are not whole" in said[0]


def test_rotation_keeps_the_newest_two_and_every_best_that_they_need(tmp_path: Path, said: list[str]) -> None:
    for step, best in ((5, None), (10, None), (15, None), (20, 10), (25, 15)):
        write(tmp_path, step, best)
    rotate(tmp_path, said.append)
    assert steps(tmp_path) == [10, 15, 20, 25]
    assert not list(tmp_path.glob(".trash-*"))


def test_rotation_never_goes_below_two_good_ones(tmp_path: Path, said: list[str]) -> None:
    """The second newest has rotted: the third, which would have gone, stays."""
    for step in (5, 10, 15, 20):
        write(tmp_path, step)
    (checkpoint_folder(tmp_path, 15) / FILES[1]).write_bytes(b"rot")
    rotate(tmp_path, said.append)
    assert steps(tmp_path) == [10, 20]
    assert (tmp_path / SET_ASIDE / "checkpoint-15").is_dir()
    assert len(said) == 1


def test_two_damaged_ones_of_one_step_are_both_kept(tmp_path: Path, said: list[str]) -> None:
    for _ in range(2):
        (write(tmp_path, 5) / MANIFEST).unlink()
        assert newest(tmp_path, said.append) is None
    assert sorted(path.name for path in (tmp_path / SET_ASIDE).iterdir()) == ["checkpoint-5", "checkpoint-5.2"]
