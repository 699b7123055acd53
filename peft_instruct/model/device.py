"""Where the arithmetic happens and in which type: what was asked for, and what it comes to on this machine."""

from __future__ import annotations

import platform
from dataclasses import asdict, dataclass
from typing import Any

import psutil
import torch

from peft_instruct.environment import library_versions
from peft_instruct.errors import UnavailableError

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Compute:
    """The device and arithmetic in effect.

    Attributes:
        device: `cpu`, `cuda` or `mps`.
        precision: `fp32`, `bf16` or `fp16`: what matrices are multiplied in while training.
        device_name: what the device calls itself.
    """

    device: str
    precision: str
    device_name: str

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
    if precision == "auto":
        precision = "bf16" if has_native_bf16(chosen) else "fp32"
    if precision == "fp16" and chosen == "cpu":
        # accelerate accepts it and computes in fp32 (measured with accelerate 1.15).
        raise UnavailableError("training.precision: fp16 does not exist on the CPU. Use auto, bf16 or fp32.")
    return Compute(chosen, precision, device_name(chosen))


def has_native_bf16(device: str) -> bool:
    """Whether the device multiplies bf16 in hardware; where it is emulated fp32 is faster."""
    if device == "cuda":
        return torch.cuda.get_device_capability() >= (8, 0)
    if device == "cpu":
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported()) and _cpu_flag("avx512_bf16", "amx_bf16", "bf16")
    return False  # M1 emulates bf16, later chips have it; not measured here, so fp32 unless a recipe says bf16


def device_name(device: str) -> str:
    if device == "cuda":
        return torch.cuda.get_device_name()
    name = _cpu_model() or platform.processor() or platform.machine()
    return f"{name} ({psutil.cpu_count(logical=False) or psutil.cpu_count()} cores)"


def synchronize(device: str) -> None:
    """Wait for the device, so that a clock read afterwards is the device's too."""
    if device == "cuda":
        torch.cuda.synchronize()
    elif device == "mps":
        torch.mps.synchronize()


def environment_stamp(compute: Compute) -> dict[str, Any]:
    """What a figure must be read with: machine, device, arithmetic, threads and versions."""
    return {
        **asdict(compute),
        "system": f"{platform.system()} {platform.release()}",
        "machine": platform.machine(),
        "threads": torch.get_num_threads(),
        "memory_bytes": psutil.virtual_memory().total,
        "versions": library_versions(),
    }


def _cpu_model() -> str:
    return next((line.partition(":")[2].strip() for line in _cpuinfo() if line.startswith("model name")), "")


def _cpu_flag(*names: str) -> bool:
    flags = next((line.split() for line in _cpuinfo() if line.startswith(("flags", "Features"))), None)
    return flags is None or any(name in flags for name in names)


def _cpuinfo() -> list[str]:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            return lines.read().splitlines()
    except OSError:
        return []  # not Linux
