"""Checkpoints that count only when whole: a manifest written last, verified before anything is read.

    checkpoints/checkpoint-40/   weights, state.safetensors, trainer_state.json, metrics.jsonl, manifest.json
    checkpoints/set-aside/       what did not verify, kept until the run is done

A folder without a manifest is what a crash left of a save. transformers takes the highest number whatever is in it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import FiniteFloat

from peft_instruct.adapter.storage import (
    MANIFEST,
    FileStamp,
    Sealed,
    damage,
    pickles,
    read_sealed,
    seal,
    stamp,
    sync_folder,
    sync_tree,
    write_last,
)
from peft_instruct.errors import AdapterError
from peft_instruct.training.contents import Count, check_contents

Say = Callable[[str], None]
CHECKPOINTS = "checkpoints"
SET_ASIDE = "set-aside"
TRASH = ".trash-"
CHECKPOINT_FORMAT = 1
NUM_KEPT = 2


class CheckpointManifest(Sealed):
    """What a checkpoint is part of, and every file of it.

    Attributes:
        is_last: training had ended when it was written; nothing is left but to hand the weights over.
        best_step: the checkpoint that holds the weights of the lowest validation loss so far, with `keep_best`.
        recipe: the resolved values of the run.
        environment: what may change the last bits of a continued run (versions, device, precision).
        seconds: of training up to here.
    """

    format_version: int = CHECKPOINT_FORMAT
    step: Count
    max_steps: Count
    is_last: bool
    best_step: Count | None
    seconds: FiniteFloat
    recipe: dict[str, Any]
    base_fingerprint: str
    data_fingerprint: str
    environment: dict[str, str]
    world_size: int
    files: dict[str, FileStamp]


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that has been verified."""

    folder: Path
    manifest: CheckpointManifest

    @property
    def step(self) -> int:
        return self.manifest.step


def checkpoint_folder(checkpoints: Path, step: int) -> Path:
    return checkpoints / f"checkpoint-{step}"


def commit(folder: Path, manifest: CheckpointManifest) -> None:
    """Declare a written folder whole: all its files onto the disk first, then the manifest, then the folder's name."""
    files = {path.name: stamp(path) for path in sorted(folder.iterdir()) if path.name != MANIFEST}
    sync_tree(folder)
    write_last(folder / MANIFEST, seal(manifest.model_copy(update={"files": files}).model_dump_json(indent=1) + "\n"))
    sync_folder(folder.parent)


def verify(folder: Path) -> Checkpoint:
    """A checkpoint all of whose files are as they were written.

    Raises:
        AdapterError: it is incomplete or damaged; every file that is not as it was is named.
    """
    path = folder / MANIFEST
    if not folder.is_dir():
        raise AdapterError(f"{folder}: no such checkpoint.")
    if not path.is_file():
        raise AdapterError(f"{folder}: incomplete (no {MANIFEST}, which is written last).")
    manifest = read_sealed(path, CheckpointManifest, CHECKPOINT_FORMAT)
    if not manifest.seal:
        raise AdapterError(f"{path}: damaged (it is not sealed).")
    if folder.name != checkpoint_folder(folder.parent, manifest.step).name:
        raise AdapterError(f"{path}: is of step {manifest.step}. expected the step that the folder is named by.")
    problems = damage(folder, manifest.files)
    found = {entry.name for entry in folder.iterdir()} - {MANIFEST}
    problems += [f"{name}: not part of the checkpoint." for name in sorted(found - set(manifest.files))]
    problems += pickles(folder)
    if problems:
        raise AdapterError.of(str(folder), problems)
    return Checkpoint(folder, manifest)


def newest(checkpoints: Path, say: Say, *, may_rename: bool = True) -> Checkpoint | None:
    """The newest checkpoint that verifies, together with the best one that it refers to.

    Newer ones are set aside, or only told where this process does not hold the run's lock (`may_rename=False`).
    """
    for folder in newest_first(checkpoints):
        try:
            return verified_with_best(folder)
        except AdapterError as problem:
            if may_rename:
                set_aside(folder, say, str(problem))
            else:
                say(str(problem))
    return None


def verified_with_best(folder: Path) -> Checkpoint:
    """A checkpoint to go on from, and the one that it hands over in the end if nothing better comes, both verified.

    Raises:
        AdapterError: one of them is not whole, or a file is not of its kind.
    """
    checkpoint = verify(folder)
    check_contents(folder, checkpoint.manifest.step)
    best = checkpoint.manifest.best_step
    if best is not None and best != checkpoint.step:
        try:
            check_contents(verify(checkpoint_folder(folder.parent, best)).folder, best)
        except AdapterError as problem:
            raise AdapterError(f"{folder}: its best weights are not whole ({problem})") from problem
    return checkpoint


def set_aside(folder: Path, say: Say, why: str) -> None:
    """Out of the way, not gone: a person may still want to look."""
    aside = folder.parent / SET_ASIDE
    aside.mkdir(exist_ok=True)
    place = next(aside / name for name in _names(folder.name) if not (aside / name).exists())
    os.replace(folder, place)
    say(f"{why} Set aside in {aside}.")


def rotate(checkpoints: Path, say: Say) -> None:
    """Drop all but the newest two and the best of each, and only once those that stay have been verified again.

    A folder is renamed before its files go, so that a crash leaves no half checkpoint under a name that counts.
    """
    kept: list[Checkpoint] = []
    candidates = list(newest_first(checkpoints))
    if len(candidates) <= NUM_KEPT:
        return
    for folder in candidates:
        best = {checkpoint_folder(checkpoints, checkpoint.manifest.best_step or 0) for checkpoint in kept}
        if len(kept) >= NUM_KEPT and folder not in best:
            trash = checkpoints / f"{TRASH}{folder.name}"
            os.replace(folder, trash)
            continue
        try:
            kept.append(verify(folder))
        except AdapterError as problem:
            set_aside(folder, say, str(problem))
    empty_trash(checkpoints)


def drop_all(checkpoints: Path) -> list[str]:
    """Remove every checkpoint, and give their names; what was set aside stays."""
    empty_trash(checkpoints)
    dropped = list(newest_first(checkpoints))[::-1]
    for folder in dropped:
        os.replace(folder, checkpoints / f"{TRASH}{folder.name}")
    empty_trash(checkpoints)
    return [folder.name for folder in dropped]


def empty_trash(checkpoints: Path) -> None:
    for trash in checkpoints.glob(f"{TRASH}*"):
        shutil.rmtree(trash, ignore_errors=True)


def way_back(checkpoints: Path) -> str:
    """A sentence about the checkpoint that a run that failed can go on from."""
    last = next((folder for folder in newest_first(checkpoints) if (folder / MANIFEST).is_file()), None)
    return f"Last good checkpoint: {last.name}." if last else "No checkpoint was saved before."


def newest_first(checkpoints: Path) -> Iterator[Path]:
    """The folders named `checkpoint-N`, whole or not; a person's `checkpoint-40.bak` is none of them."""
    steps = [path.name.removeprefix("checkpoint-") for path in checkpoints.glob("checkpoint-*") if path.is_dir()]
    yield from (
        checkpoint_folder(checkpoints, step)
        for step in sorted(int(s) for s in steps if s.isdecimal() and s == str(int(s)))[::-1]
    )


def _names(name: str) -> Iterator[str]:
    yield name
    number = 2
    while True:
        yield f"{name}.{number}"
        number += 1
