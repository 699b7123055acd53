"""Truncations and single flipped bits, over all files of a real checkpoint and of a real adapter: each one is seen."""

from __future__ import annotations

import random
import shutil
import signal
from pathlib import Path

import pytest
from children import SEED, Count, Zygote, checkpoints_of, long_form

from peft_instruct.adapter.folder import open_adapter
from peft_instruct.adapter.manifest import FOR_PEOPLE
from peft_instruct.errors import AdapterError
from peft_instruct.training.checkpoints import newest, verify

HOW_MANY = [60, long_form(500)]


def damaged(content: bytes, chance: random.Random) -> bytes:
    if chance.random() < 0.5:
        return content[: chance.choice((0, 7, 8, len(content) - 1, chance.randrange(len(content))))]
    at = chance.randrange(len(content))
    return content[:at] + bytes([content[at] ^ (1 << chance.randrange(8))]) + content[at + 1 :]


@pytest.mark.parametrize("how_many", HOW_MANY)
def test_every_damage_to_a_checkpoint_is_seen_and_the_one_before_is_taken(
    zygote: Zygote, fault_recipe: Path, tmp_path: Path, how_many: int, record_property: Count
) -> None:
    record_property("cases", how_many)
    child = zygote.start("train", fault_recipe, "--out", tmp_path / "a")
    child.wait_for("step 5/8")
    child.send(signal.SIGTERM)
    child.wait()
    checkpoints = checkpoints_of(tmp_path / "a")
    steps = sorted(int(folder.name[11:]) for folder in checkpoints.glob("checkpoint-*"))
    last = checkpoints / f"checkpoint-{steps[-1]}"
    shutil.copytree(last, tmp_path / "good")
    files = sorted(path.name for path in last.iterdir())
    chance = random.Random(SEED + 3)
    for number in range(how_many):
        path = last / files[number % len(files)]
        path.write_bytes(damaged(path.read_bytes(), chance))
        with pytest.raises(AdapterError, match=path.name):
            verify(last)
        if number < len(files):
            found = newest(checkpoints, lambda line: None)
            assert found is not None and found.step == steps[-2]
            shutil.rmtree(checkpoints / "set-aside")
        shutil.copytree(tmp_path / "good", last, dirs_exist_ok=True)
    verify(last)


@pytest.mark.parametrize("how_many", HOW_MANY)
def test_every_damage_to_an_adapter_is_seen(
    uninterrupted: Path, tmp_path: Path, how_many: int, record_property: Count
) -> None:
    """Files for people alone (the card, the report) may be edited."""
    record_property("cases", how_many)
    adapter = tmp_path / "a"
    shutil.copytree(uninterrupted, adapter)
    files = sorted(path for path in adapter.iterdir() if path.name not in FOR_PEOPLE)
    chance = random.Random(SEED + 4)
    for number in range(how_many):
        path = files[number % len(files)]
        content = path.read_bytes()
        path.write_bytes(damaged(content, chance))
        with pytest.raises(AdapterError, match=path.name):
            open_adapter(adapter)
        path.write_bytes(content)
    open_adapter(adapter)
