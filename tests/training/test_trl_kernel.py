"""Where TRL's kernel for the learned positions runs it is used, elsewhere our own head; no GPU is here to ask."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from test_speed import FP32

from peft_instruct.training import completion_head, sft
from peft_instruct.training.completion_head import trl_kernel_runs

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    trl_kernel_runs.cache_clear()
    yield
    trl_kernel_runs.cache_clear()


@pytest.fixture
def triton(monkeypatch: pytest.MonkeyPatch) -> None:
    """What our side asks says that it is there; TRL computes in torch as before."""
    monkeypatch.setattr(completion_head, "_use_triton", lambda device: True)


def test_without_triton_it_does_not_run() -> None:
    assert not trl_kernel_runs(CPU, torch.float32)


def test_it_is_tried_once_forward_and_backward(triton: None, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    kernel = completion_head.ChunkedLogProbFunction

    class Spied:
        @staticmethod
        def apply(*given: Any) -> Any:
            calls.append("apply")
            return kernel.apply(*given)

    monkeypatch.setattr(completion_head, "ChunkedLogProbFunction", Spied)
    assert trl_kernel_runs(CPU, torch.float32) and trl_kernel_runs(CPU, torch.float32)
    assert calls == ["apply"]


@pytest.mark.parametrize(("capability", "runs"), [((7, 5), False), ((8, 0), True)])
def test_in_bf16_it_needs_a_gpu_that_has_it(
    triton: None, monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], runs: bool
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: capability)
    assert trl_kernel_runs(CPU, torch.bfloat16) is runs
    assert trl_kernel_runs(CPU, torch.float16)


def test_a_kernel_that_cannot_be_compiled_does_not_run(triton: None, monkeypatch: pytest.MonkeyPatch) -> None:
    class Uncompiled:
        @staticmethod
        def apply(*given: Any) -> Any:
            raise RuntimeError("Failed to find C compiler. Please specify via CC environment variable.")

    monkeypatch.setattr(completion_head, "ChunkedLogProbFunction", Uncompiled)
    assert not trl_kernel_runs(CPU, torch.float32)


def test_of_several_gpus_one_is_used(make_trainer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    made = sft.sft_arguments

    def on_two(*given: Any, **named: Any) -> Any:
        arguments = made(*given, **named)
        arguments._n_gpu = 2
        return arguments

    monkeypatch.setattr(sft, "sft_arguments", on_two)
    assert make_trainer(*FP32).args.n_gpu == 1
