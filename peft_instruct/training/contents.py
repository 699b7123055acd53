"""What the files of a whole checkpoint must say before anything acts on them.

Its manifest vouches for their bytes, not for who wrote them: someone who makes manifests that fit can plant anything.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError
from safetensors import SafetensorError, safe_open
from transformers import TrainerState

from peft_instruct.adapter.config import check_adapter_config
from peft_instruct.errors import AdapterError, PeftInstructError, first_line, is_out_of_memory, problems_of
from peft_instruct.model.screening import model_problems, read_json
from peft_instruct.training.progress import read_metrics

STATE = "state.safetensors"
TRAINER_STATE = "trainer_state.json"
METRICS = "metrics.jsonl"
MOST_BYTES = 1 << 30
"""Of a file that grows with the run."""

Count = Annotated[int, Field(ge=0, le=1 << 53)]


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")


class _Open(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow")


class MetricsLine(_Open):
    """Of metrics.jsonl, what the report reads."""

    step: Count
    loss: FiniteFloat | None = None
    validation_loss: FiniteFloat | None = None


class _Logged(_Open):
    __pydantic_extra__: dict[str, float]
    num_tokens: FiniteFloat = 0.0


class _Attributes(_Open):
    early_stopping_patience_counter: Count = 0


class _Callback(_Strict):
    args: dict[str, Any]
    attributes: _Attributes


class StoredTrainerState(_Open):
    """transformers' TrainerState (5.23), which takes whatever stands in the file; what is not there is its default.

    A field that another version has besides these is that version's own to look at.
    """

    global_step: Count
    train_batch_size: Count
    """transformers divides it on resume, and its default is None."""
    max_steps: Count = 0
    log_history: list[_Logged] = []
    stateful_callbacks: dict[str, _Callback] = {}
    best_metric: FiniteFloat | None = None
    best_global_step: Count | None = None
    best_model_checkpoint: str | None = None
    epoch: FiniteFloat = 0
    logging_steps: FiniteFloat = 500
    eval_steps: FiniteFloat = 500
    save_steps: FiniteFloat = 500
    num_train_epochs: Count = 0
    num_input_tokens_seen: Count = 0
    total_flos: FiniteFloat = 0
    is_local_process_zero: bool = True
    is_world_process_zero: bool = True
    is_hyper_param_search: bool = False
    trial_name: str | None = None
    trial_params: dict[str, str | float | int | bool] | None = None


def check_contents(folder: Path, step: int) -> None:
    """Refuse files that are not of their kind, or that a run of ours does not write so.

    Of tensors only the headers are read; what is in them is looked at when it is loaded.

    Raises:
        AdapterError: naming every such file.
    """
    problems = [*_not_of_tensors(folder), *_odd_trainer_state(folder / TRAINER_STATE, step)]
    problems += [*_odd_metrics(folder / METRICS), *_odd_config(folder)]
    if problems:
        raise AdapterError.of(str(folder), problems)


def _not_of_tensors(folder: Path) -> list[str]:
    problems = [] if (folder / STATE).is_file() else [f"{STATE}: missing."]
    for file in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(str(file), "pt"):
                pass
        except (SafetensorError, OSError) as error:
            problems.append(f"{file.name}: {_said(error)}.")
    return problems


def _odd_trainer_state(path: Path, step: int) -> list[str]:
    try:
        content = read_json(path, MOST_BYTES)
        state = StoredTrainerState.model_validate(content)
    except ValidationError as error:
        return [f"{path.name}: {problem}" for problem in problems_of(error)]
    except (OSError, ValueError) as error:
        return [f"{path.name}: {_said(error)}."]
    if state.global_step != step:
        return [f"{path.name}: global_step is {state.global_step}. expected {step}."]
    unknown = set(content) - {known.name for known in fields(TrainerState)}  # of the version that is installed
    return [f"{path.name}: {key[:60]}: unknown key." for key in sorted(unknown)]


def _odd_metrics(path: Path) -> list[str]:
    try:
        for line in read_metrics(path):
            MetricsLine.model_validate(line)
    except ValidationError as error:
        return [f"{path.name}: {problems_of(error)[0]}"]
    except (OSError, ValueError, RecursionError) as error:
        return [f"{path.name}: {_said(error)}."]
    return []


def _odd_config(folder: Path) -> list[str]:
    """Of an adapter PEFT's config, of a whole model transformers'."""
    weights = folder / "adapter_model.safetensors"
    if weights.is_file():
        try:
            check_adapter_config(folder / "adapter_config.json", weights)
        except AdapterError as problem:
            return [f"adapter_config.json: {problem}"]
        return []
    problems = [f"{problem}." for problem in model_problems(folder)]
    try:
        if not isinstance(read_json(folder / "config.json", MOST_BYTES), dict):
            problems.append("config.json: not a mapping of keys.")
    except (OSError, ValueError) as error:
        problems.append(f"config.json: {_said(error)}.")
    return problems


def _said(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "missing"
    return f"cannot be read ({getattr(error, 'strerror', None) or first_line(error)})"


@contextmanager
def loading(checkpoint: Path) -> Iterator[None]:
    """A block that puts what a checkpoint holds into this run.

    Raises:
        AdapterError: for whatever a library raises there: tensors of other shapes, other keys, values of other types.
        PeftInstructError: the device or the disk failed, which says nothing about the checkpoint.
    """
    try:
        yield
    except (
        ArithmeticError, AssertionError, AttributeError, LookupError, OSError, RuntimeError, SafetensorError,
        TypeError, ValueError,
    ) as error:  # fmt: skip
        if is_out_of_memory(error):
            raise
        if _is_of_the_machine(error):
            raise PeftInstructError(
                f"{checkpoint}: cannot be loaded ({type(error).__name__}: {first_line(error)}). The device or the disk "
                "failed, and the checkpoint stays as it is. Mend that, and call the same again."
            ) from error
        raise AdapterError(
            f"{checkpoint}: does not fit this run ({type(error).__name__}: {first_line(error)}). "
            "Name another one with --resume, or start anew with --resume none."
        ) from error


def _is_of_the_machine(error: Exception) -> bool:
    """An OSError without a number is a library's own word for a file that it misses."""
    return isinstance(error, torch.AcceleratorError) or (
        isinstance(error, OSError) and error.errno not in (None, errno.ENOENT)
    )
