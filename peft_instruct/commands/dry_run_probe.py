"""The measuring of a dry run, in a process of its own: `python -m peft_instruct.commands.dry_run_probe REQUEST OUT`.

It does what `train` does before its first step, so that it needs the memory that `train` needs, then runs a few passes
of the longest batch, of up to eight shapes of batches and of the median one, and measures a few held-out rows. Nothing
is written but OUT.
"""

from __future__ import annotations

import gc
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from peft_instruct.bench.isolated import hand_back
from peft_instruct.commands.hub_ids import hub_ids_of
from peft_instruct.environment import HubState, keep_freed_memory, prepare_environment
from peft_instruct.errors import PeftInstructError, first_line, is_out_of_memory
from peft_instruct.model.location import Location, locate
from peft_instruct.recipe import Recipe
from peft_instruct.secrets import hide_secrets

if TYPE_CHECKING:  # they import torch
    from peft_instruct.commands.preparing import Prepared, Rows
    from peft_instruct.commands.probe_held_out import HeldOutProbe
    from peft_instruct.model.base import Base


def run_probe(recipe: Recipe, hub: HubState, place: Path) -> dict[str, Any]:
    """What was measured, or `{"failed": reason, "error": name of its type}`."""
    try:
        with tempfile.TemporaryDirectory(prefix="peft-instruct-dry-run-") as folder:
            return measure(recipe, hub, place, Path(folder))
    except PeftInstructError as error:
        return {"failed": hide_secrets(str(error)), "error": type(error).__name__}
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return {"failed": f"out of memory ({first_line(error)})", "error": "PeftInstructError"}


def measure(recipe: Recipe, hub: HubState, place: Path, folder: Path) -> dict[str, Any]:
    """As `train`: check, read, load, measure the base, train a little, load again and measure; each part is timed.

    Args:
        place: a folder on the disk that the run would write to.
    """
    from peft_instruct.bench.memory import peak_memory
    from peft_instruct.commands.held_out import HeldOut
    from peft_instruct.commands.preparing import prepare, read_rows
    from peft_instruct.commands.probe_held_out import HeldOutProbe
    from peft_instruct.model.device import environment_stamp

    notes: list[str] = []
    location = locate(recipe.model.base, recipe.model.revision, hub)
    rows = read_rows(recipe, location, hub, notes.append)
    ready = prepare(rows, recipe, location, notes.append)
    start_seconds = time.time() - psutil.Process().create_time()
    held_out = HeldOut.of(ready.data, recipe, _quiet)
    probe = HeldOutProbe(held_out, ready.base) if held_out.rows else None
    base_seconds = _base_seconds(probe, ready.base) if probe else 0.0
    found = _training(recipe, ready, place, folder)
    # As `train` lets go of what it trained, before it reads back what it wrote.
    del ready
    gc.collect()
    load_seconds, tuned = _read_back(recipe, location, rows)
    tuned_seconds, most_tuned_seconds = _tuned_seconds(probe, tuned) if probe else (0.0, 0.0)
    memory = found["memory"]
    peak = peak_memory(rows.compute.device).num_bytes + memory["not_run_bytes"]
    memory["peak_bytes"] = max(memory["peak_bytes"], peak)
    found["seconds"] |= {
        "start": start_seconds,
        "base measured": base_seconds,
        "read back": load_seconds,
        "tuned measured": tuned_seconds,
    }
    found["seconds_without_stopping"] = sum(found["seconds"].values()) + most_tuned_seconds - tuned_seconds
    return {"notes": notes, "environment": environment_stamp(rows.compute), **found}


def _training(recipe: Recipe, ready: Prepared, place: Path, folder: Path) -> dict[str, Any]:
    """What is learned from, how much of it, and a few of its passes."""
    from peft_instruct.commands.probe_passes import measure_passes
    from peft_instruct.data.table import TokenTable
    from peft_instruct.model.adapters import make_trainable
    from peft_instruct.training.plan import num_evaluations, planned_steps
    from peft_instruct.training.space import bytes_needed, check_space

    trainable = make_trainable(ready.base, recipe.method, recipe.training.seed, recipe.speed.frozen_weights)
    check_space(place, trainable.model, recipe.training)
    checkpoint_bytes, weight_bytes = bytes_needed(trainable.model, recipe.training.optimizer)
    lengths, validation = (TokenTable.of(those).lengths.tolist() for those in (ready.train, ready.validation))
    steps = planned_steps(lengths, recipe)
    passes = measure_passes(recipe, ready, trainable, steps, lengths, folder)
    one_validation = passes.validation_seconds(validation, recipe.training.batch_size)
    return {
        "num_rows": {"train": len(lengths), "validation": len(validation), "test": len(ready.data.test)},
        "num_tokens": sum(lengths),
        "longest": max(lengths),
        "num_steps": len(steps),
        "num_tokens_trained": sum(lengths[row] for step in steps for batch in step for row in batch),
        "trainable": trainable.describe(),
        "num_trainable": trainable.num_trainable,
        "checkpoint_bytes": checkpoint_bytes,
        "weight_bytes": weight_bytes,
        "memory": passes.memory(),
        "seconds": {
            "start": 0.0,
            "base measured": 0.0,
            "training": passes.training_seconds(lengths, steps),
            "validation": num_evaluations(lengths, recipe) * one_validation,
        },
    }


def _base_seconds(probe: HeldOutProbe, base: Base) -> float:
    times = probe.times(base)
    lengths = probe.lengths_on(base) if probe.prompts else []
    return times.first + probe.seconds(times, lengths)


def _tuned_seconds(probe: HeldOutProbe, tuned: Base) -> tuple[float, float]:
    """Where the completions are as long as the rows' own, and where none of them stops."""
    times = probe.times(tuned)
    return probe.seconds(times, probe.own_lengths), probe.seconds(times, probe.limits)


def _read_back(recipe: Recipe, location: Location, rows: Rows) -> tuple[float, Base]:
    """Seconds of a fresh base with an adapter of the recipe's shape, and the two."""
    from peft_instruct.model.adapters import make_trainable
    from peft_instruct.model.base import load_base

    began = time.monotonic()
    base = load_base(
        recipe.model,
        location,
        rows.compute,
        tokenizer_location=rows.tokenizer,
        stop=rows.data.template.stop,
        seed=recipe.training.seed,
    )
    make_trainable(base, recipe.method, recipe.training.seed)
    return time.monotonic() - began, base


def _quiet(line: str) -> None:
    """Said by the parent, where at all."""


def main(request: Path, out: Path) -> None:
    keep_freed_memory()
    asked = json.loads(request.read_text(encoding="utf-8"))
    recipe = Recipe.model_validate(asked["recipe"])
    result = run_probe(recipe, prepare_environment(hub_ids_of(recipe)), Path(asked["place"]))
    hand_back(result, out)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
