"""What every program of the comparison is measured with: the clock of its steps and the tokens of its batches.

Imports only what a virtual environment of any rival has.
"""

from __future__ import annotations

import importlib.metadata
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

LIBRARIES = ("torch", "transformers", "trl", "peft", "accelerate", "datasets", "llamafactory")


class Clock(TrainerCallback):
    """Seconds from the end of one optimizer step to the end of the next, with the real tokens in between.

    Args:
        most_seconds: of measured steps, then training ends. Only for rows in random order, of which any stretch is like
            the whole; an order by length is measured over all of it.
    """

    def __init__(self, num_warmup: int, most_seconds: float = float("inf")) -> None:
        self.num_warmup = num_warmup
        self.most_seconds = most_seconds
        self.seconds: list[float] = []
        self.batches: list[tuple[int, int, int]] = []
        self.losses: list[float] = []
        self.last: float | None = None

    def counting(self, collator: Callable[..., Any]) -> Callable[..., Any]:
        """The collator, with the real tokens, the positions and the learned tokens of each batch noted."""

        def collate(rows: Any, *args: Any, **kwargs: Any) -> Any:
            batch = collator(rows, *args, **kwargs)
            learned = int((batch["labels"][:, 1:] != -100).sum())
            self.batches.append((int(batch["attention_mask"].sum()), batch["input_ids"].numel(), learned))
            return batch

        return collate

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.last = time.perf_counter() if self.last is None else self.last

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        now = time.perf_counter()
        self.seconds.append(now - (self.last or now))
        self.last = now
        if sum(self.seconds[self.num_warmup :]) > self.most_seconds:
            control.should_training_stop = True

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        if logs and "loss" in logs:
            self.losses.append(float(logs["loss"]))

    def record(self, settings: str) -> dict[str, Any]:
        """The figures of the steps after the warm-up; a DataLoader may have collated a batch ahead."""
        seconds = self.seconds[self.num_warmup :]
        batches = self.batches[self.num_warmup : len(self.seconds)]
        tokens, positions, learned = (sum(column) for column in zip(*batches, strict=True))
        return {
            "settings": settings,
            "num_steps": len(seconds),
            "seconds": round(sum(seconds), 3),
            "tokens_per_second": round(tokens / sum(seconds), 1),
            "completion_tokens_per_second": round(learned / sum(seconds), 1),
            "fill_fraction": round(tokens / positions, 4),
            "tokens_per_step": round(tokens / len(seconds), 1),
            "first_loss": self.losses[0],
            "peak_resident_bytes": peak_resident_bytes(),
            "versions": {name: version for name in LIBRARIES if (version := _version(name))},
        }


def peak_resident_bytes() -> int:
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM"))


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""


def request() -> dict[str, Any]:
    """What `benchmarks/compare_rivals.py` asks for."""
    return dict(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))


def answer(record: dict[str, Any]) -> None:
    Path(sys.argv[2]).write_text(json.dumps(record), encoding="utf-8")


def rows(asked: dict[str, Any]) -> list[dict[str, str]]:
    """The same prompts and completions for every program."""
    return [json.loads(line) for line in Path(asked["rows"]).read_text(encoding="utf-8").splitlines()]
