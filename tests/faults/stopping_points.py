"""The kinds of places in a run at which it may be stopped, each told by a function that it calls there.

The run is that of `fault_recipe`: 8 steps of 2 batches, 3 steps an epoch, saves after steps 2, 4, 6 and 8, evaluations
after steps 4 and 8.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Point:
    """Before or after the n-th call of a function.

    Attributes:
        function: `module:name`, or `module:Class.name`.
    """

    function: str
    call: int = 1
    is_after: bool = False


RUN = "peft_instruct.commands.train_run:"
TRAINER = "peft_instruct.training.trainer:CompletionTrainer."
POINTS = {
    "while the base is measured": Point(f"{RUN}HeldOut.measure"),
    "before the first step": Point(f"{TRAINER}training_step"),
    "inside an accumulation": Point(f"{TRAINER}training_step", call=6),
    "in the middle of an epoch": Point("peft_instruct.training.keeping:Checkpoints.on_step_end", call=5, is_after=True),
    "at the end of an epoch": Point("peft_instruct.training.keeping:Checkpoints.on_epoch_end"),
    "inside an evaluation": Point("peft_instruct.training.trainer:score"),
    "after an evaluation": Point(f"{TRAINER}evaluate", is_after=True),
    "in the middle of a save": Point("peft_instruct.training.resumable:commit", call=2),
    "right after a save": Point("peft_instruct.training.resumable:rotate", call=3, is_after=True),
    "after the last step": Point("peft_instruct.training.keeping:Checkpoints.on_step_end", call=8, is_after=True),
    "while the adapter is written": Point(f"{RUN}write_weights"),
    "while it is read back": Point(f"{RUN}load_tuned"),
}
IN_THE_SUITE = ("inside an accumulation", "at the end of an epoch", "after an evaluation", "in the middle of a save")


def arm(kind: str, number: int) -> None:
    """Let this process send itself a signal at a point of the run that it is about to begin."""
    point = POINTS[kind]
    module, _, path = point.function.partition(":")
    *classes, name = path.split(".")
    owner: Any = importlib.import_module(module)
    for each in classes:
        owner = getattr(owner, each)
    original: Callable[..., Any] = getattr(owner, name)
    num_calls = 0

    def trapped(*args: Any, **kwargs: Any) -> Any:
        nonlocal num_calls
        num_calls += 1
        if num_calls == point.call and not point.is_after:
            os.kill(os.getpid(), number)
        done = original(*args, **kwargs)
        if num_calls == point.call and point.is_after:
            os.kill(os.getpid(), number)
        return done

    setattr(owner, name, trapped)


def keep_checkpoints() -> None:
    """Let the run that this process is about to begin leave its checkpoints in the finished folder."""
    from peft_instruct.commands.run_folder import RunFolder

    RunFolder._tidy = lambda self: None  # type: ignore[method-assign]
