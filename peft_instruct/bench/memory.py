"""Peak memory, and how it was measured: each kind of device keeps count in its own way.

    cuda  the allocator's own high-water mark, reset after the model is loaded
    mps   no high-water mark exists: what the driver holds is sampled in a thread (torch 2.13, torch/mps/__init__.py)
    cpu   the high-water mark of the process's resident set

`getrusage` is the last choice on Linux: a process inherits the ru_maxrss of the one that started it (measured: 910 MB
for a child of 15 MB), and it counts KiB there but bytes on macOS. VmHWM is the process's own, and can be reset.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import psutil
import torch

from peft_instruct.bench.records import Memory

SAMPLE_SECONDS = 0.005
_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_GRANTED = Path("/sys/fs/cgroup/memory.max")


class MemoryProbe(Protocol):
    """Measures between `start` (after the model is loaded) and `stop`."""

    def start(self) -> None: ...

    def stop(self) -> Memory: ...


@dataclass(frozen=True)
class PeakMemory:
    """The peak of this process so far, on a device.

    Attributes:
        how: which counter, of what, and since when.
    """

    num_bytes: int
    how: str


def memory_probe(device: str) -> MemoryProbe:
    if device == "cuda":
        return CudaProbe()
    if device == "mps":
        return SampledProbe(
            torch.mps.driver_allocated_memory,
            "what the driver holds for this process (torch.mps.driver_allocated_memory)",
        )
    return ResidentSetProbe()


def peak_memory(device: str) -> PeakMemory:
    """What a run can say at its end without having started a probe."""
    if device == "cuda":
        return PeakMemory(torch.cuda.max_memory_allocated(), "allocated tensors, torch.cuda.max_memory_allocated")
    if device == "mps":
        # No peak is kept: what the driver holds, its cache included, is the nearest to one.
        return PeakMemory(torch.mps.driver_allocated_memory(), "held at the end, torch.mps.driver_allocated_memory")
    num_bytes, counter = peak_resident_set()
    return PeakMemory(num_bytes, f"resident set, {counter}")


def device_memory(device: str) -> int:
    """Bytes that a process may have on a device; of the CPU what its control group grants, where it has one."""
    if device == "cuda":
        return int(torch.cuda.mem_get_info()[1])
    if device == "mps":
        return int(torch.mps.recommended_max_memory())
    return min(psutil.virtual_memory().total, _granted())


def _granted() -> int:
    try:
        return int(_GRANTED.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return sys.maxsize  # no control group, or `max`


class CudaProbe:
    def start(self) -> None:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        self._baseline = torch.cuda.memory_allocated()

    def stop(self) -> Memory:
        torch.cuda.synchronize()
        return Memory(
            peak_bytes=torch.cuda.max_memory_allocated(),
            baseline_bytes=self._baseline,
            how="allocated tensors since the model was loaded (torch.cuda.max_memory_allocated, reset); "
            "context and cached blocks are not in it",
        )


class ResidentSetProbe:
    def start(self) -> None:
        self._was_reset = _reset_peak_resident_set()
        self._baseline = psutil.Process().memory_info().rss

    def stop(self) -> Memory:
        peak, counter = peak_resident_set()
        since = "since the model was loaded" if self._was_reset else "since the process began, loading included"
        return Memory(
            peak_bytes=max(peak, self._baseline),
            baseline_bytes=self._baseline,
            how=f"resident set of the process {since}, libraries included ({counter}{', reset' * self._was_reset})",
        )


class SampledProbe:
    """Samples a reading in a thread; a peak shorter than the sampling interval can be missed, and `how` says so."""

    def __init__(self, read: Callable[[], int], what: str, interval_seconds: float = SAMPLE_SECONDS) -> None:
        self._read, self._what, self._interval = read, what, interval_seconds
        self._stopped = threading.Event()
        self._sampling = threading.Thread(target=self._sample, daemon=True)
        self._num_samples = 0

    def start(self) -> None:
        self._baseline = self._peak = self._read()
        self._sampling.start()

    def stop(self) -> Memory:
        self._stopped.set()
        self._sampling.join()
        return Memory(
            peak_bytes=max(self._peak, self._read()),
            baseline_bytes=self._baseline,
            how=f"largest of {self._num_samples} samples, one every {self._interval * 1000:g} ms, since the model was "
            f"loaded, of {self._what}",
        )

    def _sample(self) -> None:
        while not self._stopped.wait(self._interval):
            self._peak = max(self._peak, self._read())
            self._num_samples += 1


def peak_resident_set() -> tuple[int, str]:
    """Bytes, and the counter that they are from."""
    own = _status_kib("VmHWM")
    if own is not None:
        return own * 1024, "VmHWM"
    if sys.platform == "win32":
        return psutil.Process().memory_info().peak_wset, "peak_wset"
    import resource  # not on Windows

    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return largest * (1 if sys.platform == "darwin" else 1024), "ru_maxrss"


def _status_kib(name: str) -> int | None:
    try:
        lines = _STATUS.read_text(encoding="utf-8").splitlines()
    except OSError:
        return None  # not Linux
    return next((int(line.split()[1]) for line in lines if line.startswith(f"{name}:")), None)


def _reset_peak_resident_set() -> bool:
    """Whether the kernel took it (Linux, proc_pid_clear_refs(5): 5 resets the peak resident set)."""
    try:
        _CLEAR.write_text("5", encoding="utf-8")
    except OSError:
        return False
    return True
