"""What continuing needs survives the disk bit for bit, without a pickle."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch

from peft_instruct.training.random_state import random_state, set_random_state
from peft_instruct.training.state_file import read_state, write_state


def equal(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return list(one) == list(other) and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return type(one) is type(other) and len(one) == len(other) and all(map(equal, one, other))
    return type(one) is type(other) and one == other


def test_a_state_reads_back_as_it_was(tmp_path: Path) -> None:
    shared = torch.randn(3)
    state = {
        "moments": {0: {"step": torch.tensor(3.0), "exp_avg": torch.randn(2, 5).t()}, 1: {}},
        "groups": [{"betas": (0.9, 0.999), "lr": 1e-4 / 3, "fused": True, "foreach": None, "params": [0, 1]}],
        "eight_bit": [torch.randint(0, 255, (7,), dtype=torch.uint8), shared, shared],
        "half": torch.randn(4).bfloat16(),
        "none": torch.empty(0),
        "text": "ümlaut \x00",
    }
    write_state(state, tmp_path / "state.safetensors")
    found = read_state(tmp_path / "state.safetensors")
    assert equal(state, found)
    assert found["eight_bit"][1] is found["eight_bit"][2]


def test_what_is_no_plain_value_is_refused_and_not_pickled(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="function"):
        write_state({"rate": lambda step: step}, tmp_path / "state.safetensors")
    assert not list(tmp_path.iterdir())


def test_the_random_generators_go_on_where_they_were(tmp_path: Path) -> None:
    import numpy as np

    def draws() -> list[float]:
        return [random.random(), random.gauss(0, 1), *np.random.randn(3).tolist(), *torch.randn(3).tolist()]

    np.random.randn(1)  # leaves a cached gaussian behind, which is part of the state
    random.gauss(0, 1)
    write_state(random_state(), tmp_path / "random.safetensors")
    expected = draws()
    draws()
    set_random_state(read_state(tmp_path / "random.safetensors"))
    assert draws() == expected
