"""Where a run begins: at its first step, or at a checkpoint that is whole and of this very run."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from peft_instruct.adapter.storage import LOCK, write_last
from peft_instruct.errors import AdapterError, RecipeError
from peft_instruct.model.device import Compute
from peft_instruct.recipe import Recipe
from peft_instruct.recipe.writing import change, differences, recipe_values
from peft_instruct.training.checkpoints import (
    CHECKPOINTS,
    SET_ASIDE,
    Checkpoint,
    checkpoint_folder,
    drop_all,
    empty_trash,
    newest,
    newest_first,
    set_aside,
    verified_with_best,
)
from peft_instruct.training.saving import RunIdentity

Say = Callable[[str], None]
AUTO, NONE = "auto", "none"
RECIPE = "recipe.yaml"
NEVER_MATTERS = (
    "name", "description", "samples", "generation", "evaluation", "training.log_every", "training.save_every",
    "training.ledger", "speed.cache",
    # Known by their content: a fingerprint each.
    "model.base", "model.revision", "data.train", "data.validation", "data.test",
)  # fmt: skip
NEVER_CHANGES = ("model", "method", "training.optimizer")
"""Keys that decide what the tensors of a checkpoint are."""


@dataclass(frozen=True)
class Resume:
    """What the command line says of going on.

    Attributes:
        policy: `auto` (where an unfinished run has checkpoints), `none`, or the path of a checkpoint or a run.
        allow_changes: go on with another recipe or other data; they hold from the next step on.
    """

    policy: str = AUTO
    allow_changes: bool = False


def choose_checkpoint(resume: Resume, work: Path, run: RunIdentity, world_size: int, say: Say) -> Checkpoint | None:
    """The verified checkpoint to go on from, or None for a start from the beginning.

    Raises:
        AdapterError: the named one is not whole, or the run is another than the checkpoint's; each difference is told.
        RecipeError: `--resume` names nothing that is there.
    """
    checkpoints = work / CHECKPOINTS
    if resume.policy == NONE:
        return None
    checkpoint = newest(checkpoints, say) if resume.policy == AUTO else _named(Path(resume.policy), say)
    if checkpoint is None:
        if any(checkpoints.glob(f"{SET_ASIDE}/*")):
            say(f"{checkpoints}: no checkpoint is whole; starting from the first step")
        return None
    _refuse_another_run(checkpoint, run, world_size, resume.allow_changes, say)
    end = " (training was over)" if checkpoint.manifest.is_last else f" of {checkpoint.manifest.max_steps}"
    say(f"going on from {checkpoint.folder}, step {checkpoint.step}{end}")
    return checkpoint


def precision_as_begun(checkpoint: Checkpoint | None, asked: str, compute: Compute) -> Compute:
    """Where a recipe leaves the precision to a measurement, a run on the same device ends in what it began with."""
    then = checkpoint.manifest.environment if checkpoint else {}
    precision = then.get("precision", compute.precision)
    if asked != "auto" or precision == compute.precision or then.get("device") != compute.device_name:
        return compute
    return replace(compute, precision=precision, precision_measured=f"as the run began; {compute.precision} by now")


def tell_differences(checkpoint: Checkpoint, run: RunIdentity, say: Say) -> None:
    """Machine and versions that are others than the checkpoint's."""
    for key, before, now in differences(checkpoint.manifest.environment, run.environment):
        what = "the rest of the run is computed in it" if key == "precision" else "the last bits may differ"
        say(f"note: {key} was {before}, now {now}: {what}")


def begin(work: Path, recipe_text: str, checkpoint: Checkpoint | None, say: Say) -> Checkpoint | None:
    """The working folder of a run that has passed every check: its recipe in it, and only its own checkpoints.

    What was set aside stays until the run is done.

    Returns:
        The checkpoint where it now lies: one of another place is copied in.
    """
    for earlier in list(work.iterdir()):
        # Weights and stamps of an earlier run would be read back as this one's. recipe.yaml marks the folder as ours.
        if earlier.name in (LOCK, CHECKPOINTS, RECIPE):
            continue
        if earlier.is_dir() and not earlier.is_symlink():
            shutil.rmtree(earlier)
        else:
            earlier.unlink()
    write_last(work / RECIPE, recipe_text)
    checkpoints = work / CHECKPOINTS
    if checkpoint is None:
        dropped = drop_all(checkpoints)
        if dropped:
            say(f"starting anew: the unfinished run's {', '.join(dropped)} are dropped")
        return None
    empty_trash(checkpoints)
    is_own = checkpoint.folder.parent.resolve() == checkpoints.resolve()
    for other in newest_first(checkpoints):
        if not is_own or int(other.name.split("-")[1]) > checkpoint.step:
            set_aside(other, say, f"{other}: is not before the step that this run goes on from.")
    return checkpoint if is_own else _copied(checkpoint, checkpoints)


def _named(path: Path, say: Say) -> Checkpoint:
    if not path.is_dir():
        raise RecipeError(f"--resume: {path} is not there. expected auto, none, a checkpoint or a run's folder.")
    if path.name.startswith("checkpoint-"):
        return verified_with_best(path)
    checkpoint = newest(path / CHECKPOINTS, say, may_rename=False)
    if checkpoint is None:
        raise AdapterError(f"--resume: {path} holds no whole checkpoint. Name one, or start anew with --resume none.")
    return checkpoint


def _copied(checkpoint: Checkpoint, checkpoints: Path) -> Checkpoint:
    checkpoints.mkdir(exist_ok=True)
    best = checkpoint.manifest.best_step
    for step in {checkpoint.step} | ({best} if best is not None else set()):
        there = checkpoint_folder(checkpoint.folder.parent, step)
        shutil.copytree(there, checkpoint_folder(checkpoints, step))
    return verified_with_best(checkpoint_folder(checkpoints, checkpoint.step))


def _refuse_another_run(checkpoint: Checkpoint, run: RunIdentity, world_size: int, allowed: bool, say: Say) -> None:
    then = checkpoint.manifest
    keys = [
        change(key, before, now)
        for key, before, now in differences(_with_defaults(then.recipe), run.recipe)
        if not _is_of(key, NEVER_MATTERS)
    ]
    if then.data_fingerprint != run.data_fingerprint:
        keys.append(f"data: other rows ({then.data_fingerprint[:12]}… -> {run.data_fingerprint[:12]}…)")
    if then.world_size != world_size:
        keys.append(f"processes: {then.world_size} -> {world_size}")
    impossible = [line for line in keys if _is_of(line.split(":")[0], NEVER_CHANGES)]
    if then.base_fingerprint != run.base_fingerprint:
        impossible.append("model.base: other weights than those that the checkpoint was trained on")
    if impossible or (keys and not allowed):
        advice = "Start anew with --resume none, or restore the old values"
        advice += "." if impossible else "; --resume-allow-changes goes on with the new ones."
        raise AdapterError(
            str(AdapterError.of(f"{checkpoint.folder}: of another run", impossible or keys)) + f"\n  {advice}"
        )
    if keys:
        say("going on with changes, which hold from the next step on (the learning rate is the new schedule's there):")
    for line in keys:
        say(f"  {line}")


def _with_defaults(values: dict[str, Any]) -> dict[str, Any]:
    """A checkpoint's recipe with the default of each key that the version that saved it did not have."""
    try:
        return recipe_values(Recipe.model_validate(values))
    except ValidationError:
        return values


def _is_of(key: str, names: tuple[str, ...]) -> bool:
    return any(key == name or key.startswith(f"{name}.") for name in names)
