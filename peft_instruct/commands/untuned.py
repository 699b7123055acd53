"""The model as it was before training, beside the tuned one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from peft_instruct.environment import HubState

if TYPE_CHECKING:  # it imports torch
    from peft_instruct.adapter.folder import Tuned
    from peft_instruct.model.base import Base


@dataclass(frozen=True)
class Untuned:
    """A LoRA adapter is switched off; of a model that was trained whole the base is loaded, once, when it is asked.

    Attributes:
        base: where the base is, when not where the adapter says.
    """

    tuned: Tuned
    hub: HubState
    base: str | None

    @contextmanager
    def opened(self) -> Iterator[tuple[Any, Base]]:
        """The model, and the base that its tokenizer and positions are of, within the block."""
        if self.tuned.adapter.holds_model:
            yield self._whole.model, self._whole
            return
        with self.tuned.untuned() as model:
            yield model, self.tuned.base

    @cached_property
    def _whole(self) -> Base:
        from peft_instruct.adapter.folder import load_untuned

        return load_untuned(self.tuned.adapter, self.tuned.base.compute, self.hub, self.base)
