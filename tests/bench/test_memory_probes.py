"""Peaks are seen, loading is not counted as training, and every figure says how it was come by.

No CUDA and no MPS device is needed: the calls that need one are replaced by stand-ins with scripted readings, so these
tests hold our own code to account and say nothing about the devices.
"""

from __future__ import annotations

import mmap
import sys
import time
from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch

from peft_instruct.bench import memory
from peft_instruct.bench.memory import SampledProbe, memory_probe, peak_memory, peak_resident_set

MEGABYTE = 1 << 20
on_linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the counter is Linux's")


def touch(megabytes: int) -> None:
    """Take pages of the system, write to each, and give them back; a process that keeps what it frees has some."""
    with mmap.mmap(-1, megabytes * MEGABYTE) as block:
        for page in range(0, len(block), 4096):
            block[page] = 1


@on_linux
def test_a_peak_between_start_and_stop_is_seen_after_it_is_freed() -> None:
    probe = memory_probe("cpu")
    probe.start()
    touch(200)
    found = probe.stop()
    # Pages that were resident before are used again, and a system may reclaim others meanwhile: far below 50 MB.
    assert found.peak_bytes - found.baseline_bytes > 150 * MEGABYTE
    assert "VmHWM" in found.how


@on_linux
def test_a_peak_before_start_is_not_training_s() -> None:
    touch(200)
    probe = memory_probe("cpu")
    probe.start()
    found = probe.stop()
    if "reset" not in found.how:
        pytest.skip("this kernel does not let a process reset its peak")
    # What a garbage collection or another thread takes meanwhile is far below 50 MB.
    assert found.peak_bytes - found.baseline_bytes < 50 * MEGABYTE


@pytest.mark.parametrize(("platform", "num_bytes"), [("linux", 3 * 1024), ("darwin", 3)])
def test_ru_maxrss_is_kib_on_linux_and_bytes_on_macos(
    platform: str, num_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "_status_kib", lambda name: None)
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr("resource.getrusage", lambda who: SimpleNamespace(ru_maxrss=3))
    assert peak_resident_set() == (num_bytes, "ru_maxrss")


def test_a_peak_that_could_not_be_reset_says_that_loading_is_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_reset_peak_resident_set", lambda: False)
    probe = memory_probe("cpu")
    probe.start()
    assert "loading included" in probe.stop().how


def readings(*values: int) -> Callable[[], int]:
    """The values one by one, then the last one for ever."""
    left = list(values)
    return lambda: left.pop(0) if len(left) > 1 else left[0]


def wait_until(reached: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not reached():
        assert time.monotonic() < deadline, "the sampling thread does not run"
        time.sleep(0.001)


def test_the_mps_probe_keeps_the_largest_sample_and_says_that_it_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand-in for torch.mps.driver_allocated_memory, which raises where there is no MPS device."""
    monkeypatch.setattr(torch.mps, "driver_allocated_memory", readings(100, 150, 900, 300))
    probe = memory_probe("mps")
    assert isinstance(probe, SampledProbe)
    probe.start()
    wait_until(lambda: probe._num_samples >= 4)
    found = probe.stop()
    assert (found.baseline_bytes, found.peak_bytes) == (100, 900)
    assert found.how.startswith("largest of ") and "samples, one every 5 ms" in found.how
    assert "torch.mps.driver_allocated_memory" in found.how


def test_an_mps_peak_in_the_last_moment_is_read_when_the_probe_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.mps, "driver_allocated_memory", readings(100, 700))
    probe = SampledProbe(torch.mps.driver_allocated_memory, "a stand-in", interval_seconds=60)
    probe.start()
    assert probe.stop().peak_bytes == 700


def test_the_cuda_probe_resets_the_counter_before_it_reads_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand-ins for torch.cuda: on a CPU build max_memory_allocated gives 0 instead of an error."""
    calls: list[str] = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: calls.append("synchronize"))
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda: calls.append("reset"))
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda: 500)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: 2000)
    probe = memory_probe("cuda")
    probe.start()
    found = probe.stop()
    assert calls == ["synchronize", "reset", "synchronize"]
    assert (found.baseline_bytes, found.peak_bytes) == (500, 2000)
    assert "torch.cuda.max_memory_allocated" in found.how


def test_a_run_without_a_probe_can_still_tell_its_peak(monkeypatch: pytest.MonkeyPatch) -> None:
    assert peak_memory("cpu").num_bytes > 10 * MEGABYTE
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: 7)
    monkeypatch.setattr(torch.mps, "driver_allocated_memory", lambda: 8)
    assert (peak_memory("cuda").num_bytes, peak_memory("mps").num_bytes) == (7, 8)
    assert "held at the end" in peak_memory("mps").how
