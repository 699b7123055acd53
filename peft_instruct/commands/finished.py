"""`train` where its adapter is already: said where it is of this very recipe, base and data, refused otherwise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from peft_instruct.adapter.manifest import read_manifest
from peft_instruct.adapter.storage import MANIFEST
from peft_instruct.commands.preparing import base_fingerprint, preparation_of, tokenizer_location
from peft_instruct.commands.run_folder import kept
from peft_instruct.environment import HubState
from peft_instruct.errors import AdapterError
from peft_instruct.model.location import Location
from peft_instruct.recipe import Recipe

Say = Callable[[str], None]


@dataclass(frozen=True)
class Finished:
    """Nothing was left to train.

    Attributes:
        created: when the adapter was finished, ISO 8601.
    """

    folder: Path
    name: str
    num_steps: int
    created: str
    finished_already: bool = True

    def record(self) -> dict[str, Any]:
        return {**asdict(self), "folder": str(self.folder)}

    def text(self) -> str:
        return (
            f"{self.folder}: finished already ({self.num_steps} steps, {self.created}); nothing was trained. "
            "--if-exists replace trains it again."
        )


def finished_already(final: Path, recipe: Recipe, location: Location, hub: HubState, say: Say) -> Finished:
    """What a folder holds that was trained by this recipe, if the base and the rows are still those of then.

    Raises:
        AdapterError: it is damaged, or of another base or other rows; naming which.
        PeftInstructError: the base or the rows cannot be read.
    """
    try:
        manifest = read_manifest(final)
    except AdapterError as problem:
        raise kept(final, "a damaged adapter", [str(problem)]) from problem
    data = preparation_of(recipe, location, tokenizer_location(recipe, hub), say).data()
    others = [
        f"{what} ({then[:12]}… -> {now[:12]}…)"
        for what, then, now in (
            ("model.base: other weights", manifest.base.fingerprint, base_fingerprint(recipe, location)),
            ("data: other rows", manifest.data_fingerprint, data.fingerprint),
        )
        if then != now
    ]
    if others:
        raise kept(final, "a finished adapter of another run", others)
    num_steps = manifest.metrics.get("num_steps")
    if not isinstance(num_steps, int):
        raise kept(final, "a damaged adapter", [f"{MANIFEST}: metrics.num_steps is {num_steps!r}. expected a number."])
    return Finished(final, manifest.name, num_steps, manifest.created)
