"""Real runs of the command line, to be killed, signalled and starved; zygote.py is how they start fast."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

SEED = int(os.environ.get("FAULT_SEED", "0"))
"""benchmarks/robustness.py gives another one to each round of a long form, and the number of its cases."""
ZYGOTE = Path(__file__).with_name("zygote.py")


@dataclass(frozen=True)
class Ended:
    """A command that has ended: its exit code (-9 for SIGKILL), and stdout and stderr together."""

    code: int
    said: str
    seconds: float


@dataclass(frozen=True)
class Child:
    """A running command."""

    pid: int
    log: Path
    zygote: Zygote
    began: float

    def wait(self) -> Ended:
        code = self.zygote.ask({"wait": self.pid})["code"]
        return Ended(code, self.said(), time.monotonic() - self.began)

    def send(self, number: int) -> None:
        """To a child that has ended already, but was not waited for, a signal does nothing."""
        os.kill(self.pid, number)

    def said(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")

    def has_ended(self) -> bool:
        return "Z" in Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0]

    def wait_until(self, seconds: float) -> None:
        """So long after its start, or until it has ended."""
        while time.monotonic() < self.began + seconds and not self.has_ended():
            time.sleep(0.001)

    def wait_for(self, text: str, seconds: float = 600) -> None:
        """Until the child has said it, or has ended."""
        deadline = time.monotonic() + seconds
        while text not in self.said() and not self.has_ended():
            assert time.monotonic() < deadline, f"never said {text!r}:\n{self.said()}"
            time.sleep(0.002)


class Zygote:
    def __init__(self, recipe: Path, logs: Path) -> None:
        self.logs = logs
        self.number = 0
        # One thread: a fork of a process that has started a pool of threads loses them.
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
        self.process = subprocess.Popen(
            [sys.executable, str(ZYGOTE), str(recipe)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL, text=True, env=environment, cwd=logs,
        )  # fmt: skip
        assert self._answer() == {"ready": 0}

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        assert self.process.stdin
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout
        return dict(json.loads(self.process.stdout.readline()))

    def start(self, *arguments: object, **asked: object) -> Child:
        """A run with these arguments of the command line; what else may be asked for stands in zygote.py."""
        self.number += 1
        log = self.logs / f"{self.number}.log"
        log.touch()
        began = time.monotonic()
        run = [str(argument) for argument in arguments]
        return Child(self.ask({"run": run, "log": str(log), **asked})["pid"], log, self, began)

    def run(self, *arguments: object, **asked: object) -> Ended:
        return self.start(*arguments, **asked).wait()

    def close(self) -> None:
        self.process.communicate(timeout=60)


Count = Callable[[str, int], None]
"""pytest's `record_property`: what a test counts stands in its JUnit report, from which the benchmark reads it."""


def long_form(cases: int) -> Any:
    """So many cases, behind the marker."""
    return pytest.param(int(os.environ.get("FAULT_CASES", cases)), marks=pytest.mark.slow, id="long")


def checkpoints_of(out: Path) -> Path:
    return out.with_name(f"{out.name}.run") / "checkpoints"


def assert_same_run(adapter: Path, other: Path) -> None:
    """Bit for bit: every weight and every line of metrics but for its seconds; and nothing is left of the way there."""
    one, two = ((folder / "adapter_model.safetensors").read_bytes() for folder in (adapter, other))
    assert one == two
    assert metrics_of(adapter) == metrics_of(other)
    assert not (adapter / "checkpoints").exists()
    assert not adapter.with_name(f"{adapter.name}.run").exists()


def metrics_of(adapter: Path) -> list[dict[str, Any]]:
    """Every line that the run has logged, without its seconds."""
    lines = (adapter / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [{k: v for k, v in json.loads(line).items() if k != "seconds"} for line in lines]
