"""A true lack of memory: the allocator itself refuses, and the run goes on in smaller passes."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from children import Zygote


@pytest.mark.skipif(sys.platform != "linux", reason="the limit of an address space is Linux's")
def test_a_true_lack_of_memory_gives_the_adapter_of_a_run_that_was_started_small(
    zygote: Zygote, tiny_recipe: Path, tmp_path: Path
) -> None:
    """RLIMIT_AS, with room for the model and a part of the batch, and not for all of it."""
    from safetensors.torch import load_file

    rows = tmp_path / "long.jsonl"
    text = "one two three four five six seven eight nine ten " * 8
    rows.write_text("".join(f'{{"instruction": "Say {n}.", "output": "{n} {text}"}}\n' for n in range(64)))
    shared = [
        f"data.train={rows}", "data.validation_fraction=0", "data.max_length=256", "training.max_steps=3",
        "training.evaluate_every=never", "samples.count=0", "evaluation.rows=0", "training.optimizer=sgd",
        "training.learning_rate=0.1", "training.warmup=0",
        # oneDNN compiles a kernel for each new shape, and would have no memory left for the smaller passes' ones.
        "training.precision=fp32", "speed.packed_weights=false",
    ]  # fmt: skip
    folders = []
    for name, room, size, accumulation in (("large", 4 << 20, 64, 1), ("small", 0, 16, 4)):
        sizes = [f"training.batch_size={size}", f"training.accumulation={accumulation}"]
        options = [option for override in (*shared, *sizes) for option in ("--set", override)]
        ended = zygote.run("train", tiny_recipe, "--out", tmp_path / name, *options, room=room)
        assert ended.code == 0, ended.said
        assert ("out of memory at step" in ended.said) == (room > 0), ended.said
        folders.append(tmp_path / name)
    large, small = (load_file(str(folder / "adapter_model.safetensors")) for folder in folders)
    assert large.keys() == small.keys()
    assert max(float((large[name] - small[name]).abs().max()) for name in large) <= 1e-6
