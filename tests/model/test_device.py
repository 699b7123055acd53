"""The device and arithmetic in effect are what was asked for, or an error: never something else in silence."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from peft_instruct.errors import UnavailableError
from peft_instruct.model import device as module
from peft_instruct.model.device import available_devices, choose_compute, environment_stamp, synchronize


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Pretends that the machine has these devices."""

    def pretend(*devices: str, native_bf16: bool = False) -> None:
        monkeypatch.setattr(module, "available_devices", lambda: [*devices])
        monkeypatch.setattr(module, "has_native_bf16", lambda device: native_bf16)
        monkeypatch.setattr(module, "device_name", lambda device: f"a {device}")

    return pretend


def test_the_cpu_is_always_there_and_comes_last() -> None:
    assert available_devices()[-1] == "cpu"


@pytest.mark.parametrize(
    ("devices", "chosen"), [(["cuda", "mps", "cpu"], "cuda"), (["mps", "cpu"], "mps"), (["cpu"], "cpu")]
)
def test_auto_takes_cuda_then_mps_then_the_cpu(machine: Any, devices: list[str], chosen: str) -> None:
    machine(*devices)
    assert choose_compute("auto", "fp32").device == chosen


@pytest.mark.parametrize(("native", "precision"), [(True, "bf16"), (False, "fp32")])
@pytest.mark.parametrize("device", ["cuda", "cpu"])
def test_auto_is_bf16_only_where_the_hardware_multiplies_it(
    machine: Any, device: str, native: bool, precision: str
) -> None:
    machine(device, "cpu", native_bf16=native)
    assert choose_compute(device, "auto").precision == precision


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_what_is_asked_for_is_what_is_used(precision: str) -> None:
    compute = choose_compute("cpu", precision)
    assert (compute.device, compute.precision) == ("cpu", precision)
    assert compute.torch_device == torch.device("cpu")


def test_fp16_on_the_cpu_is_refused() -> None:
    """accelerate 1.15 takes it and computes in fp32, which would poison every comparison."""
    with pytest.raises(UnavailableError, match=r"fp16 does not exist on the CPU. Use auto, bf16 or fp32"):
        choose_compute("cpu", "fp16")


def test_fp16_on_a_gpu_is_taken(machine: Any) -> None:
    machine("cuda", "cpu")
    assert choose_compute("cuda", "fp16").precision == "fp16"


@pytest.mark.parametrize("device", ["cuda", "mps"])
def test_a_device_that_is_absent_is_said_to_be_absent(machine: Any, device: str) -> None:
    machine("cpu")
    with pytest.raises(UnavailableError) as caught:
        choose_compute(device, "auto")
    assert str(caught.value) == f"training.device: {device} is not here; this machine has cpu. Use auto."
    assert caught.value.exit_code == 5


def test_the_stamp_says_what_a_figure_must_be_read_with() -> None:
    stamp = environment_stamp(choose_compute("cpu", "fp32"))
    assert stamp["precision"] == "fp32"
    assert stamp["versions"]["torch"] == torch.__version__
    assert stamp["threads"] == torch.get_num_threads()
    assert stamp["memory_bytes"] > 0
    assert stamp["device_name"]


def test_the_cpu_needs_no_waiting() -> None:
    synchronize("cpu")
