"""Where the arithmetic happens and in which type: what was asked for, and what it comes to on this machine."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cache
from itertools import pairwise
from typing import Any

import psutil
import torch

from peft_instruct.environment import library_versions
from peft_instruct.errors import UnavailableError

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
CAPS_OF_ONEDNN = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA")
PROBE_SIZE, PROBE_TIMES = 256, 7
LEAST_GAIN = 1.2
"""bf16 must multiply so many times as fast as fp32. With AVX512-BF16 it is at 2 on an AMD EPYC and at 0.5 on an Intel
Xeon without AMX; emulated (oneDNN held to AVX512_CORE) it is at 0.4."""


@dataclass(frozen=True)
class Compute:
    """The device and arithmetic in effect.

    Attributes:
        device: `cpu`, `cuda` or `mps`.
        precision: `fp32`, `bf16` or `fp16`: what matrices are multiplied in while training.
        device_name: what the device calls itself.
        precision_measured: what the precision was decided by, on a CPU that has bf16.
    """

    device: str
    precision: str
    device_name: str
    precision_measured: str = ""

    def __str__(self) -> str:
        reason = f" ({self.precision_measured})" if self.precision_measured else ""
        return f"{self.device} ({self.device_name}), {self.precision}{reason}"

    @property
    def torch_device(self) -> torch.device:
        return torch.device(self.device)


def available_devices() -> list[str]:
    devices = []
    if torch.cuda.is_available():
        devices.append("cuda")
    if torch.backends.mps.is_available():
        devices.append("mps")
    return [*devices, "cpu"]


def choose_compute(device: str = "auto", precision: str = "auto") -> Compute:
    """The device and precision that a recipe's words come to.

    Raises:
        UnavailableError: the device is not here, or cannot do that arithmetic (never a silent fp32 instead).
    """
    devices = available_devices()
    chosen = devices[0] if device == "auto" else device
    if chosen not in devices:
        raise UnavailableError(
            f"training.device: {chosen} is not here; this machine has {', '.join(devices)}. Use auto."
        )
    measured = ""
    if precision == "auto":
        precision = "bf16" if is_faster_in_bf16(chosen) else "fp32"
        measured = _bf16_of_cpu()[1] if chosen == "cpu" else ""
    if precision == "fp16" and chosen == "cpu":
        # accelerate accepts it and computes in fp32 (measured with accelerate 1.15).
        raise UnavailableError("training.precision: fp16 does not exist on the CPU. Use auto, bf16 or fp32.")
    if precision == "fp16" and chosen == "mps" and not hasattr(torch.backends.mps, "get_name"):
        # Before torch 2.13, which brought that name, its fused optimizers apply the steps that a scaler means to skip.
        raise UnavailableError("training.precision: fp16 on MPS needs torch 2.13 or later. Update it, or use fp32.")
    return Compute(chosen, precision, device_name(chosen), measured)


def is_faster_in_bf16(device: str) -> bool:
    """Whether the device multiplies bf16 faster than fp32; where it is emulated, and on some CPUs, fp32 is."""
    if device == "cuda":
        return torch.cuda.get_device_capability() >= (8, 0)
    if device == "cpu":
        return _bf16_of_cpu()[0]
    return False  # M1 emulates bf16, later chips have it; not measured here, so fp32 unless a recipe says bf16


@cache
def _bf16_of_cpu() -> tuple[bool, str]:
    """Whether the CPU multiplies bf16 faster, and what was measured for it: nothing where it has no bf16.

    A flag that says so is not enough: see LEAST_GAIN. And torch knows neither of a limit that the environment sets to
    oneDNN, which multiplies for it, nor on Windows and macOS whether AVX-512 comes with bf16.
    """
    flags = _cpu_flags()
    lacks_it = flags is not None and not flags & {"avx512_bf16", "amx_bf16", "bf16"}
    # torch for macOS comes without oneDNN, and without its operators.
    if lacks_it or not torch.backends.mkldnn.is_available() or not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return False, ""
    fp32, bf16 = _seconds_of_products(torch.float32, torch.bfloat16)
    cap = next((f"; {name}={os.environ[name]}" for name in CAPS_OF_ONEDNN if os.environ.get(name)), "")
    return fp32 / bf16 >= LEAST_GAIN, f"bf16 products measured at {fp32 / bf16:.1f} x the speed of fp32{cap}"


def _seconds_of_products(*dtypes: torch.dtype) -> list[float]:
    """Of a product in each, as much of it for every thread, the least of a few in turn; 7 to 50 ms in all."""
    factors = [
        (
            torch.ones(PROBE_SIZE * torch.get_num_threads(), PROBE_SIZE, dtype=dtype),
            torch.ones(PROBE_SIZE, PROBE_SIZE, dtype=dtype),
        )
        for dtype in dtypes
    ]
    rounds = []
    for _ in range(1 + PROBE_TIMES):
        clock = [time.perf_counter()]
        for left, right in factors:
            torch.mm(left, right)
            clock.append(time.perf_counter())
        rounds.append([end - start for start, end in pairwise(clock)])
    return [min(seconds) for seconds in zip(*rounds[1:], strict=True)]


def device_name(device: str) -> str:
    if device == "cuda":
        return torch.cuda.get_device_name()
    name = _cpu_model() or platform.processor() or platform.machine()
    traits = f"{psutil.cpu_count(logical=False) or psutil.cpu_count()} cores"
    if device == "cpu":
        # Rented machines of several generations call themselves by one name ("AMD EPYC").
        traits += f", {torch.backends.cpu.get_cpu_capability()}{', AMX' if has_amx() else ''}"
    return f"{name} ({traits})"


def synchronize(device: str) -> None:
    """Wait for the device, so that a clock read afterwards is the device's too."""
    if device == "cuda":
        torch.cuda.synchronize()
    elif device == "mps":
        torch.mps.synchronize()


def arithmetic(inputs: torch.Tensor) -> torch.dtype:
    """The type that a matrix product of these would be computed in here: autocast's where it is on, else their own."""
    kind = inputs.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else inputs.dtype


def environment_stamp(compute: Compute) -> dict[str, Any]:
    """What a figure must be read with: machine, device, arithmetic, threads and versions."""
    return {
        **{key: value for key, value in asdict(compute).items() if value},
        "system": f"{platform.system()} {platform.release()}",
        "machine": platform.machine(),
        "threads": torch.get_num_threads(),
        "memory_bytes": psutil.virtual_memory().total,
        "versions": library_versions(),
    }


def _cpu_model() -> str:
    """Of Apple silicon the chip, whose GPU is MPS's; of an ARM server its maker's numbers; empty where nobody tells."""
    told = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in _cpuinfo())}
    if platform.system() == "Darwin":
        asked = ["sysctl", "-n", "machdep.cpu.brand_string"]
        with suppress(OSError):
            return subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip()
    if "CPU part" in told:
        return f"{platform.machine()} {told.get('CPU implementer', '')}/{told['CPU part']}"
    return told.get("model name", "")


@cache
def has_amx() -> bool:
    """Whether the CPU multiplies bf16 by tiles, many times as fast as fp32, and oneDNN is not held to less."""
    is_held = any("AMX" not in os.environ[name] for name in CAPS_OF_ONEDNN if os.environ.get(name))
    return "amx_bf16" in (_cpu_flags() or ()) and not is_held


def _cpu_flags() -> set[str] | None:
    """None where the system does not tell them."""
    return next((set(line.split()) for line in _cpuinfo() if line.startswith(("flags", "Features"))), None)


def _cpuinfo() -> list[str]:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            return lines.read().splitlines()
    except OSError:
        return []  # not Linux
