"""What a run is, and how it saves and goes on, as the command line and the recipe say."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from peft_instruct.training.checkpoints import Checkpoint


@dataclass(frozen=True)
class RunIdentity:
    """What every checkpoint of a run says about the run; see CheckpointManifest."""

    recipe: dict[str, Any] = field(default_factory=dict)
    base_fingerprint: str = ""
    data_fingerprint: str = ""
    environment: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Saving:
    """How a run saves and goes on.

    Attributes:
        every: as `training.save_every`.
        resumed: the verified checkpoint that it goes on from.
        stop_requested: asked at each step; once true, the run saves and leaves.
        on_stopped: called after that save, with its step; does not return.
        on_saved: called after each save.
        resume_hint: gives what a person types to go on.
    """

    identity: RunIdentity = field(default_factory=RunIdentity)
    every: int | str = "never"
    resumed: Checkpoint | None = None
    stop_requested: Callable[[], bool] = lambda: False
    on_stopped: Callable[[int], None] = lambda step: None
    on_saved: Callable[[], None] = lambda: None
    resume_hint: Callable[[], str] = lambda: ""
