"""One cell of a bench, in a process of its own: `python -m peft_instruct.commands.bench_cell REQUEST.json OUT.json`.

OUT.json gets `{"measured": figures}` or `{"failed": reason}`.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from peft_instruct.bench.isolated import hand_back
from peft_instruct.commands.hub_ids import hub_ids_of
from peft_instruct.environment import HubState, keep_freed_memory, prepare_environment
from peft_instruct.errors import PeftInstructError, first_line
from peft_instruct.recipe import Recipe
from peft_instruct.secrets import hide_secrets

SPLIT_STEPS = 2
"""Steps after the measured ones in which the clock is read between forward, backward and optimizer."""


def run_cell(recipe: Recipe, num_warmup: int, hub: HubState, exact_length: int | None = None) -> dict[str, Any]:
    """Train the recipe's steps under the stopwatch; the imports of torch are inside, after the environment.

    Args:
        exact_length: join and cut the rows, so that each has so many tokens; None takes them as they are.
    """
    import torch

    try:
        with tempfile.TemporaryDirectory(prefix="peft-instruct-cell-") as folder:
            return {"measured": measure_cell(recipe, num_warmup, hub, Path(folder), exact_length)}
    except torch.OutOfMemoryError as error:
        return {"failed": f"out of memory ({first_line(error)})"}
    except PeftInstructError as error:
        return {"failed": hide_secrets(str(error))}


def measure_cell(
    recipe: Recipe, num_warmup: int, hub: HubState, folder: Path, exact_length: int | None = None
) -> dict[str, Any]:
    """Load, train, and read the clock, the memory and the device's own rate, in that order."""
    from peft_instruct.bench.filled import filled_rows
    from peft_instruct.bench.flops import matrices_of
    from peft_instruct.bench.matrix_rate import measure_matrix_rate
    from peft_instruct.bench.measurement import summarize
    from peft_instruct.bench.memory import memory_probe
    from peft_instruct.bench.stopwatch import Stopwatch
    from peft_instruct.bench.witness import Witness
    from peft_instruct.commands.preparing import prepare, read_rows
    from peft_instruct.model.adapters import make_trainable
    from peft_instruct.model.base import check_lengths
    from peft_instruct.model.location import locate
    from peft_instruct.training.sft import build_trainer

    location = locate(recipe.model.base, recipe.model.revision, hub)
    rows = read_rows(recipe, location, hub, _quiet)
    if exact_length:
        check_lengths(location, exact_length, recipe.model.architecture)
    ready = prepare(rows, recipe, location, _quiet)
    trainable = make_trainable(ready.base, recipe.method, recipe.training.seed, recipe.speed.frozen_weights)
    matrices = matrices_of(trainable.model, ready.base.model.config)

    measured_steps = recipe.training.max_steps
    assert measured_steps is not None  # cell_recipe
    num_steps = measured_steps + SPLIT_STEPS
    num_rows = recipe.training.batch_size * recipe.training.accumulation * num_steps
    train = filled_rows(ready.train, exact_length, num_rows) if exact_length else ready.train
    stopwatch = Stopwatch(rows.compute.device)
    asked = _as_asked(recipe, num_steps)
    trainer = build_trainer(asked, ready.base, trainable, train, [], folder=folder, callbacks=[stopwatch])
    trainer.data_collator = stopwatch.counting(trainer.data_collator)
    stopwatch.watch(trainer.model)
    stopwatch.split(trainer, after=measured_steps)
    witness = Witness(trainable.model)
    probe = memory_probe(rows.compute.device)
    probe.start()
    trainer.train()
    memory = probe.stop()
    # Last: its matrices are no part of what training needs.
    rate = measure_matrix_rate(witness.device, witness.dtype)
    figures = summarize(
        stopwatch.steps[:measured_steps], num_warmup, splits=stopwatch.splits,
        trainable=trainable, matrices=matrices, memory=memory, matrix_rate=rate, witness=witness,
    )  # fmt: skip
    return figures.model_dump(mode="json")


def _as_asked(recipe: Recipe, num_steps: int) -> Recipe:
    """A cell is measured as it is asked for, or it does not fit: nothing is split or recomputed to make it."""
    training = recipe.training
    given = {
        "max_steps": num_steps,
        "micro_batch": "fixed",
        "gradient_checkpointing": training.gradient_checkpointing is True,
    }
    return recipe.model_copy(update={"training": training.model_copy(update=given)})


def _quiet(line: str) -> None:
    """A cell says nothing but its figures."""


def main(request: Path, out: Path) -> None:
    keep_freed_memory()
    asked = json.loads(request.read_text(encoding="utf-8"))
    recipe = Recipe.model_validate(asked["recipe"])
    hub = prepare_environment(hub_ids_of(recipe))
    result = run_cell(recipe, asked["num_warmup"], hub, asked["exact_length"])
    hand_back(result, out)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
