"""The device and arithmetic in effect are what was asked for, or an error: never something else in silence."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from peft_instruct.errors import UnavailableError
from peft_instruct.model import device as module
from peft_instruct.model.device import available_devices, choose_compute, environment_stamp, synchronize
from peft_instruct.model.packed import multiplies_packed


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Pretends that the machine has these devices."""

    def pretend(*devices: str, faster: bool = False) -> None:
        monkeypatch.setattr(module, "available_devices", lambda: [*devices])
        monkeypatch.setattr(module, "is_faster_in_bf16", lambda device: faster)
        monkeypatch.setattr(module, "device_name", lambda device: f"a {device}")

    return pretend


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["processor\t: 0", "model name\t: AMD EPYC", "flags\t\t: avx2"], "AMD EPYC"),
        (["model name\t: Intel(R) Xeon(R) Processor", "flags\t\t: avx512f amx_bf16"], "Intel(R) Xeon(R) Processor"),
        (["processor\t: 0", "CPU implementer\t: 0x41", "CPU part\t: 0xd40"], f"{platform.machine()} 0x41/0xd40"),
        ([], platform.processor() or platform.machine()),
    ],
)
def test_the_cpu_is_named_by_what_the_system_tells(
    monkeypatch: pytest.MonkeyPatch, lines: list[str], expected: str
) -> None:
    monkeypatch.setattr(module, "_cpuinfo", lambda: lines)
    monkeypatch.setattr(module, "has_amx", module.has_amx.__wrapped__)  # what this machine has is remembered
    assert module.device_name("cpu").startswith(f"{expected} (")
    tiles = ", AMX" if "amx_bf16" in "".join(lines) else ""
    assert module.device_name("cpu").endswith(f"cores, {torch.backends.cpu.get_cpu_capability()}{tiles})")


def test_apple_silicon_is_named_by_its_chip(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: subprocess.CompletedProcess([], 0, "Apple M2\n"))
    assert module.device_name("mps").startswith("Apple M2 (")


def test_the_cpu_is_always_there_and_comes_last() -> None:
    assert available_devices()[-1] == "cpu"


@pytest.mark.parametrize(
    ("devices", "chosen"), [(["cuda", "mps", "cpu"], "cuda"), (["mps", "cpu"], "mps"), (["cpu"], "cpu")]
)
def test_auto_takes_cuda_then_mps_then_the_cpu(machine: Any, devices: list[str], chosen: str) -> None:
    machine(*devices)
    assert choose_compute("auto", "fp32").device == chosen


@pytest.mark.parametrize(("faster", "precision"), [(True, "bf16"), (False, "fp32")])
@pytest.mark.parametrize("device", ["cuda", "cpu"])
def test_auto_is_bf16_only_where_it_is_faster(machine: Any, device: str, faster: bool, precision: str) -> None:
    machine(device, "cpu", faster=faster)
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


INTEL = ["model name\t: a Xeon", "flags\t\t: fpu avx2 avx512f avx512bw avx512_bf16"]
OLDER = ["model name\t: an older Xeon", "flags\t\t: fpu avx2 avx512f avx512bw"]


@pytest.fixture
def cpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A CPU with these lines of /proc/cpuinfo and this gain of bf16; gives the list of products that were timed."""

    def pretend(lines: list[str], gain: float, cap: str = "", onednn_knows: bool = True) -> list[torch.dtype]:
        timed: list[torch.dtype] = []

        def seconds(*dtypes: torch.dtype) -> list[float]:
            timed.extend(dtypes)
            return [gain if dtype == torch.float32 else 1.0 for dtype in dtypes]

        for name in module.CAPS_OF_ONEDNN:
            monkeypatch.delenv(name, raising=False)
        if cap:
            monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", cap)
        monkeypatch.setattr(module, "_cpuinfo", lambda: lines)
        monkeypatch.setattr(module, "_seconds_of_products", seconds)
        monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: onednn_knows, raising=False)
        monkeypatch.setattr(module, "available_devices", lambda: ["cpu"])
        module._bf16_of_cpu.cache_clear()
        return timed

    yield pretend
    module._bf16_of_cpu.cache_clear()


def test_torch_without_onednn_is_not_asked_for_its_operators(cpu: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """As for macOS; a mock, for want of one."""

    def missing() -> bool:
        raise AttributeError("no such operator")

    cpu([], gain=2.0)
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", missing, raising=False)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert choose_compute("cpu").precision == "fp32"
    assert not multiplies_packed(torch.ones(2, 2, dtype=torch.bfloat16))


@pytest.mark.parametrize(
    ("lines", "onednn_knows"),
    [(OLDER, True), (INTEL, False), ([], False)],
)
def test_a_cpu_without_bf16_is_not_measured(cpu: Any, lines: list[str], onednn_knows: bool) -> None:
    timed = cpu(lines, gain=2.0, onednn_knows=onednn_knows)
    found = choose_compute("cpu")
    assert (found.precision, found.precision_measured, timed) == ("fp32", "", [])
    assert str(found).endswith(", fp32")
    assert "precision_measured" not in environment_stamp(found)


@pytest.mark.parametrize(("gain", "precision"), [(0.5, "fp32"), (1.1, "fp32"), (1.3, "bf16"), (3.9, "bf16")])
@pytest.mark.parametrize(("lines", "cap"), [(INTEL, ""), (INTEL, "AVX512_CORE"), ([], ""), ([], "AVX2")])
def test_a_cpu_that_has_bf16_or_may_have_it_is_measured_and_says_so(
    cpu: Any, lines: list[str], cap: str, gain: float, precision: str
) -> None:
    timed = cpu(lines, gain, cap)
    found = choose_compute("cpu")
    assert found.precision == precision
    assert set(timed) == {torch.float32, torch.bfloat16}
    said = f"bf16 products measured at {gain:.1f} x the speed of fp32" + (f"; ONEDNN_MAX_CPU_ISA={cap}" if cap else "")
    assert str(found).endswith(f", {precision} ({said})")
    assert environment_stamp(found)["precision_measured"] == said
    assert choose_compute("cpu") == found and len(timed) == 2, "once in a process"


def test_what_a_recipe_asks_for_is_not_measured(cpu: Any) -> None:
    timed = cpu([], gain=0.4)
    assert choose_compute("cpu", "bf16").precision == "bf16" and timed == []


@pytest.mark.slow
@pytest.mark.parametrize("cap", ["AVX2", "AVX512_CORE"])
def test_on_a_real_cpu_that_is_held_back_auto_is_fp32(cap: str) -> None:
    """With AVX512_CORE oneDNN says that it takes bf16, and emulates it."""
    code = "from peft_instruct.model.device import choose_compute; print(choose_compute('cpu'))"
    environment = {**os.environ, "ONEDNN_MAX_CPU_ISA": cap}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert ", fp32" in done.stdout
