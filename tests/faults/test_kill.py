"""kill -9 at any time: the same command, given again, ends with the adapter of the run that was left alone."""

from __future__ import annotations

import random
import signal
import time
from pathlib import Path

import pytest
from children import SEED, Count, Zygote, assert_same_run, checkpoints_of, long_form

from peft_instruct.errors import AdapterError
from peft_instruct.training.checkpoints import verify


def is_whole(folder: Path) -> bool:
    try:
        verify(folder)
    except AdapterError:
        return False
    return True


def newest_whole(out: Path) -> int:
    """The step of the newest checkpoint that verifies; 0 where none does."""
    return max((int(folder.name[11:]) for folder in checkpoints_of(out).glob("checkpoint-*") if is_whole(folder)),
               default=0)  # fmt: skip


def kills_until(num_kills: int, zygote: Zygote, recipe: Path, whole: Path, seconds: float, tmp_path: Path) -> int:
    """Run after run is killed at a random time until it ends by itself; then the next one, until enough were killed."""
    chance = random.Random(SEED)
    killed = 0
    for number in range(10_000):
        out = tmp_path / f"run {number} ü"
        while True:
            child = zygote.start("train", recipe, "--out", out)
            if killed < num_kills:
                child.wait_until(chance.uniform(0, seconds))
                child.send(signal.SIGKILL)
            ended = child.wait()
            assert "Traceback" not in ended.said, ended.said
            if ended.code == 0:
                break
            assert ended.code == -signal.SIGKILL, ended.said
            killed += 1
        assert_same_run(out, whole)
        if killed >= num_kills:
            return number + 1
    raise AssertionError


@pytest.mark.parametrize("num_kills", [20, long_form(200)])
def test_killed_at_random_times_a_run_ends_as_if_nothing_had_happened(
    zygote: Zygote,
    fault_recipe: Path,
    uninterrupted: Path,
    whole_seconds: float,
    tmp_path: Path,
    num_kills: int,
    record_property: Count,
) -> None:
    record_property("cases", num_kills)
    record_property("runs", kills_until(num_kills, zygote, fault_recipe, uninterrupted, whole_seconds, tmp_path))


@pytest.mark.parametrize("times", [5, long_form(50)])
def test_asked_to_end_and_killed_at_once_after_it_a_run_loses_no_good_checkpoint(
    zygote: Zygote,
    fault_recipe: Path,
    uninterrupted: Path,
    whole_seconds: float,
    tmp_path: Path,
    times: int,
    record_property: Count,
) -> None:
    """SIGTERM, then SIGKILL within a second, as a cluster does; what was whole before is whole after."""
    record_property("cases", times)
    chance = random.Random(SEED + 1)
    out = tmp_path / "a"
    for _ in range(times):
        before = newest_whole(out)
        child = zygote.start("train", fault_recipe, "--out", out)
        child.wait_until(chance.uniform(0, whole_seconds))
        child.send(signal.SIGTERM)
        time.sleep(chance.uniform(0, 0.3))
        child.send(signal.SIGKILL)
        ended = child.wait()
        # Before the run has begun a signal is the system's to handle, and nothing is there to lose.
        begun = ended.said != ""
        assert ended.code in (0, -signal.SIGKILL, 128 + signal.SIGTERM if begun else -signal.SIGTERM), ended
        if ended.code == 0:
            assert_same_run(out, uninterrupted)
            out = out.with_name(out.name + "a")
            continue
        assert out.exists() or newest_whole(out) >= before
    assert zygote.run("train", fault_recipe, "--out", out).code == 0
    assert_same_run(out, uninterrupted)
