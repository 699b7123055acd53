"""Every path that asks for an Apple GPU, under stand-ins for the calls that raise where there is none.

They hold our own code to account and say nothing about the device. The probes of its memory are in
tests/bench/test_memory_probes.py, the texts of its errors in tests/training/test_batches_that_do_not_fit.py.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from peft_instruct.bench.cells import plan
from peft_instruct.commands import doctor
from peft_instruct.commands.preparing import check_on_mps
from peft_instruct.errors import UnavailableError
from peft_instruct.model.device import available_devices, choose_compute, environment_stamp, synchronize
from peft_instruct.recipe import load_recipe
from peft_instruct.training import guarded
from peft_instruct.training.arguments import sft_arguments
from peft_instruct.training.random_state import random_state, set_random_state


class AppleGpu:
    """What torch.mps does here: keeps the names of the calls, and a generator that is a number."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.state = torch.tensor([1])

    def keep(self, name: str) -> Any:
        return lambda *given: self.calls.append(name)

    def set_rng_state(self, state: torch.Tensor) -> None:
        self.state = state.clone()


@pytest.fixture
def mps(monkeypatch: pytest.MonkeyPatch) -> AppleGpu:
    gpu = AppleGpu()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch.mps, "synchronize", gpu.keep("synchronize"))
    monkeypatch.setattr(torch.mps, "empty_cache", gpu.keep("empty_cache"))
    monkeypatch.setattr(torch.mps, "get_rng_state", lambda: gpu.state.clone())
    monkeypatch.setattr(torch.mps, "set_rng_state", gpu.set_rng_state)
    return gpu


def test_auto_takes_it_before_the_cpu_in_fp32_and_in_what_a_recipe_says(mps: AppleGpu) -> None:
    assert available_devices() == ["mps", "cpu"]
    found = choose_compute()
    assert (found.device, found.precision, found.torch_device) == ("mps", "fp32", torch.device("mps"))
    assert found.device_name and str(found) == f"mps ({found.device_name}), fp32"
    assert environment_stamp(found)["device"] == "mps"
    assert [choose_compute("mps", precision).precision for precision in ("bf16", "fp16")] == ["bf16", "fp16"]


def test_what_libraries_do_wrongly_there_is_refused(mps: AppleGpu, monkeypatch: pytest.MonkeyPatch) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Dropout(0.1))
    base: Any = SimpleNamespace(model=model, compute=choose_compute("mps"))

    def refusal(*overrides: str) -> str:
        with pytest.raises(UnavailableError) as caught:
            check_on_mps(load_recipe("quickstart_lora", overrides), base)
        return str(caught.value)

    recomputed = "training.gradient_checkpointing=true"
    assert "recomputed with another dropout" in refusal(recomputed)
    assert "adamw_8bit runs on the CPU there" in refusal("training.optimizer=adamw_8bit")
    model[1].p = 0.0
    assert "recomputed with another dropout" in refusal(recomputed, "method.dropout=0.1")
    check_on_mps(load_recipe("quickstart_lora", [recomputed]), base)
    monkeypatch.delattr(torch.backends.mps, "get_name")
    with pytest.raises(UnavailableError, match=r"fp16 on MPS needs torch 2\.13"):
        choose_compute("mps", "fp16")


def test_a_clock_waits_for_it(mps: AppleGpu) -> None:
    synchronize("mps")
    assert mps.calls == ["synchronize"]


def test_its_generator_is_set_back_from_a_checkpoint_and_where_a_step_is_begun_anew(mps: AppleGpu) -> None:
    kept = random_state()
    drawn, mps.state = torch.rand(3), torch.tensor([7])
    set_random_state(kept)
    assert mps.state.tolist() == [1]
    assert torch.rand(3).equal(drawn)


def test_its_cache_is_emptied_before_a_batch_is_tried_in_smaller_passes(
    mps: AppleGpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    from accelerate.utils import memory

    monkeypatch.setattr(memory, "is_mps_available", lambda **kwargs: True)
    memory.clear_device_cache()
    assert mps.calls == ["empty_cache"] and guarded.clear_device_cache is memory.clear_device_cache


def test_the_trainer_is_left_on_it_and_pins_no_memory(mps: AppleGpu, tmp_path: Path) -> None:
    arguments = sft_arguments(load_recipe("gpt2_lora"), choose_compute(), tmp_path, has_validation=True)
    assert not (arguments.use_cpu or arguments.dataloader_pin_memory or arguments.bf16 or arguments.fp16)


def test_doctor_names_it_with_the_memory_that_it_shares(mps: AppleGpu) -> None:
    found, cpu = doctor._device("mps"), doctor._device("cpu")
    assert found.is_here and found.precision == "fp32"
    assert found.memory_bytes == cpu.memory_bytes > 0
    assert doctor._device_line(found).startswith("mps ")


def test_bench_asks_for_a_cell_on_it() -> None:
    assert "mps" in [cell.device for cell in plan(load_recipe("gpt2_lora"))]
