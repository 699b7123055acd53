"""Whether what a run will write fits on the disk, asked before its first step; and what to say when it did not."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path

import torch
from safetensors import SafetensorError

from peft_instruct.errors import PeftInstructError, first_line
from peft_instruct.model.adapters import has_adapter
from peft_instruct.recipe.training_section import TrainingSection
from peft_instruct.training.checkpoints import NUM_KEPT

STATES_PER_WEIGHT = {"adamw": 2.0, "muon": 2.0, "adamw_8bit": 0.52, "adafactor": 0.3, "sgd": 0.0}
"""Bytes that an optimizer keeps for each byte of a weight, at most: two moments, a byte for each with its scales, sums
of rows and columns (of LoRA's narrow matrices, too)."""
REFUSALS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO)


def num_checkpoints(training: TrainingSection) -> int:
    """Most that lie there at once: rotation comes after the one that is written."""
    keeps_best = training.keep_best or training.early_stopping is not None
    if training.save_every == "never" and not keeps_best:
        return 1  # of a signal
    return NUM_KEPT + 1 + keeps_best


def bytes_needed(model: torch.nn.Module, optimizer: str) -> tuple[int, int]:
    """(of one checkpoint, of the weights that are handed over)."""
    trained = sum(p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)
    weights = trained if has_adapter(model) else sum(p.numel() * p.element_size() for p in model.parameters())
    return weights + round(STATES_PER_WEIGHT[optimizer] * trained), weights


def check_space(folder: Path, model: torch.nn.Module, training: TrainingSection) -> None:
    """Refuse a run whose checkpoints and weights cannot be written.

    Raises:
        PeftInstructError: with the arithmetic.
    """
    checkpoint, weights = bytes_needed(model, training.optimizer)
    count = num_checkpoints(training)
    needed, free = count * checkpoint + weights, shutil.disk_usage(folder).free
    if free < needed:
        raise PeftInstructError(
            f"{folder}: {free / 1e6:.1f} MB free. expected {needed / 1e6:.1f} MB ({count} x "
            f"{checkpoint / 1e6:.1f} MB of checkpoints and {weights / 1e6:.1f} MB of weights). Free some space, or "
            "name another disk with --out."
        )


def is_refusal(error: BaseException) -> bool:
    """Whether an error is the disk's and not ours; safetensors has a type of its own for both."""
    return isinstance(error, SafetensorError) or (isinstance(error, OSError) and error.errno in REFUSALS)


def refused(error: Exception, place: Path, what_is_left: str, hint: str) -> PeftInstructError:
    """One line for a disk that is full, read-only or broken.

    Args:
        what_is_left: a sentence about the last good checkpoint.
        hint: the command that goes on.
    """
    said = getattr(error, "strerror", None) or first_line(error)
    there = next(folder for folder in (place, *place.parents) if folder.is_dir())
    try:
        free = f"{shutil.disk_usage(there).free / 1e6:.1f} MB free"
    except OSError:
        free = "free space unknown"
    return PeftInstructError(
        f"{place}: cannot be written ({said}; {free}). {what_is_left} Free some space, or mend the place."
        + (f" Then: {hint}" if hint else "")
    )
