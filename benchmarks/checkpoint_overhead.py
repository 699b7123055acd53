"""What the safety of checkpoints costs: hashing, fsync and verified rotation, of a run that saves every 50 steps.

    python benchmarks/checkpoint_overhead.py     (about 3 minutes on 2 cores) writes results/checkpoint_overhead.json

GPT-2 124M with random weights (the time of a step does not depend on them) learns by LoRA, through the real `train`;
a stopwatch stands around each save and around what a save does beyond the Trainer's own writing.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from peft_instruct.environment import library_versions, prepare_environment

REPOSITORY = Path(__file__).resolve().parent.parent
RESULT = REPOSITORY / "benchmarks" / "results" / "checkpoint_overhead.json"
STARTER = REPOSITORY / "peft_instruct" / "starter"
STEPS = 100
SAVE_EVERY = 50


def write_base(folder: Path) -> Path:
    """GPT-2's shape behind the starter's tokenizer."""
    import torch
    from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel

    tokenizer = AutoTokenizer.from_pretrained(str(STARTER / "base"))
    end = tokenizer.eos_token_id
    torch.manual_seed(0)
    GPT2LMHeadModel(GPT2Config(bos_token_id=end, eos_token_id=end)).save_pretrained(str(folder))
    tokenizer.save_pretrained(str(folder))
    return folder


def timed(module: Any, name: str, into: list[float]) -> None:
    original: Callable[..., Any] = getattr(module, name)

    def measured(*args: Any, **kwargs: Any) -> Any:
        began = time.perf_counter()
        try:
            return original(*args, **kwargs)
        finally:
            into.append(time.perf_counter() - began)

    setattr(module, name, measured)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--on", type=Path, help="A folder on the disk to be measured.  [default: a temporary one]")
    arguments = parser.parse_args()
    prepare_environment([])
    from peft_instruct.commands.train import train
    from peft_instruct.model.device import choose_compute, environment_stamp
    from peft_instruct.training import resumable

    saves, commits, rotations = [], [], []
    timed(resumable.ResumableTrainer, "_save_checkpoint", saves)
    timed(resumable, "commit", commits)
    timed(resumable, "rotate", rotations)
    work = Path(tempfile.mkdtemp(dir=arguments.on))
    try:
        base = write_base(work / "gpt2-124m")
        overrides = [
            f"model.base={base}", f"data.train={STARTER / 'instructions' / 'train.jsonl'}", "data.limit=1200",
            f"training.max_steps={arguments.steps}", f"training.save_every={SAVE_EVERY}", "samples.count=0",
            "training.accumulation=1", "training.evaluate_every=never", "evaluation.rows=0", "method.rank=16",
            "method.alpha=32",
        ]  # fmt: skip
        result = train("gpt2_lora", overrides, out=work / "out", say=print)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    beyond = sum(commits) + sum(rotations)
    record = {
        "what": f"GPT-2 124M, LoRA r=16, {arguments.steps} steps of 8 rows, a checkpoint every {SAVE_EVERY}",
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "environment": {**environment_stamp(choose_compute("auto", "auto")), "versions": library_versions()},
        "training_seconds": result.train_seconds,
        "saves": len(saves),
        "seconds_per_save": sum(saves) / len(saves),
        "seconds_of_hash_fsync_and_rotation_per_save": beyond / len(saves),
        "overhead": beyond / (result.train_seconds - beyond),
    }
    RESULT.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print(f"hashing, fsync and verified rotation: {record['overhead']:.2%} of the training time")


if __name__ == "__main__":
    main()
