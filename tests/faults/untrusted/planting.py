"""What someone else may hand over: payloads that do run, and copies of all that a command reads to plant them in.

Loaded as its kind of file is usually loaded, each payload leaves the canary behind.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from listeners import silent

from peft_instruct.adapter.manifest import AdapterManifest, stamp_files, write_manifest
from peft_instruct.commands.evaluate import evaluate
from peft_instruct.commands.generate import generate
from peft_instruct.commands.merge import merge
from peft_instruct.commands.train import train
from peft_instruct.errors import PeftInstructError

QUICK = (
    "training.max_steps=2",
    "training.warmup=0",
    "evaluation.rows=0",
    "samples.count=0",
    "training.evaluate_every=never",
)


class Touch:
    """Unpickled, it makes a file; which is what a pickle of someone else may do, and anything else too."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> Any:
        return os.system, (f'touch "{self.canary}"',)


def payloads(canary: Path, tmp_path: Path) -> dict[str, bytes]:
    """A bare pickle, and one as torch.save packs it."""
    packed = tmp_path / "packed.pt"
    torch.save({"weight": Touch(canary)}, packed)
    return {"pickle": pickle.dumps(Touch(canary)), "torch": packed.read_bytes()}


@dataclass(frozen=True)
class World:
    """Copies of everything that a command reads, to plant files in."""

    recipe: Path
    base: Path
    rows: Path
    adapter: Path
    out: Path

    def train(self, *overrides: str) -> Any:
        places = (f"model.base={self.base}", f"data.train={self.rows}")
        return train(str(self.recipe), [*QUICK, *places, *overrides], out=self.out, say=silent)

    def generate(self) -> Any:
        return generate(str(self.adapter), "Add 3 and 4.", max_new_tokens=2, device="cpu", say=silent)

    def evaluate(self) -> Any:
        return evaluate(str(self.adapter), rows=0, device="cpu", untuned=False, say=silent)

    def merge(self) -> Any:
        return merge(str(self.adapter), out=self.out, say=silent)

    def reseal(self) -> None:
        """A manifest that fits the files, as one who knows the format would hand it over."""
        manifest = AdapterManifest.model_validate_json((self.adapter / "manifest.json").read_text(encoding="utf-8"))
        write_manifest(self.adapter, manifest.model_copy(update={"files": stamp_files(self.adapter)}))


def refused(act: Callable[[], Any]) -> PeftInstructError:
    with pytest.raises(PeftInstructError) as caught:
        act()
    assert caught.value.exit_code in (2, 3, 4)
    return caught.value
