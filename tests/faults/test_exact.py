"""A run that was stopped at any kind of place goes on exactly: tensors, optimizer, random state, every logged loss."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from children import Zygote, checkpoints_of, metrics_of
from stopping_points import IN_THE_SUITE, POINTS

LAST = "checkpoints/checkpoint-8/state.safetensors"
"""The optimizer's moments, the schedule, the random generators and the logging window after the last step."""


@pytest.fixture(scope="module")
def whole(zygote: Zygote, fault_recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that nothing happens to, with its checkpoints."""
    out = tmp_path_factory.mktemp("whole") / "a"
    ended = zygote.run("train", fault_recipe, "--out", out, keep=True)
    assert ended.code == 0, ended.said
    return out


def stopped_and_gone_on(
    kind: str, number: signal.Signals, zygote: Zygote, recipe: Path, whole: Path, out: Path
) -> None:
    ended = zygote.run("train", recipe, "--out", out, stop=[kind, number], keep=True)
    assert ended.code == (-number if number == signal.SIGKILL else 128 + number), ended
    has_checkpoints = any(checkpoints_of(out).glob("checkpoint-*"))
    ended = zygote.run("train", recipe, "--out", out, keep=True)
    assert ended.code == 0 and ("going on from" in ended.said) == has_checkpoints, ended.said
    for name in ("adapter_model.safetensors", LAST):
        assert (out / name).read_bytes() == (whole / name).read_bytes(), name
    assert metrics_of(out) == metrics_of(whole)
    assert [line["step"] for line in metrics_of(out) if "loss" in line] == list(range(1, 9))


@pytest.mark.parametrize("kind", IN_THE_SUITE)
def test_a_run_goes_on_exactly_from_where_it_was_stopped(
    zygote: Zygote, fault_recipe: Path, whole: Path, tmp_path: Path, kind: str
) -> None:
    """Dropout, buckets of like length, accumulation."""
    stopped_and_gone_on(kind, signal.SIGTERM, zygote, fault_recipe, whole, tmp_path / "a")


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL], ids=lambda number: number.name)
@pytest.mark.parametrize("kind", POINTS)
def test_a_run_goes_on_exactly_from_every_kind_of_place(
    zygote: Zygote, fault_recipe: Path, whole: Path, tmp_path: Path, kind: str, number: signal.Signals
) -> None:
    """Under SIGKILL nothing is saved at the place itself: the run goes on from the save before, or begins anew."""
    stopped_and_gone_on(kind, number, zygote, fault_recipe, whole, tmp_path / "a")
