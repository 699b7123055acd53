"""The completions of one `generate`: of what was trained, and of the base as it was before."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from peft_instruct.data.template import ANSWER
from peft_instruct.environment import HubState
from peft_instruct.inference.files import PromptRow
from peft_instruct.recipe.schema import GenerationSection

if TYPE_CHECKING:  # it imports torch
    from peft_instruct.adapter.folder import Tuned
    from peft_instruct.inference.complete import Generation

Say = Callable[[str], None]


@dataclass(frozen=True)
class Completing:
    """What all completions of one call share."""

    loaded: Tuned
    hub: HubState
    base: str | None
    options: GenerationSection
    seed: int
    batch_size: int | None
    say: Say

    @property
    def streams(self) -> bool:
        """What an answer is wrapped in can be taken off the whole alone."""
        return self.loaded.template.answer == ANSWER

    def streamed(self, row: PromptRow, on_text: Say) -> list[Generation]:
        """The completion of one prompt, told while it is made."""
        from peft_instruct.inference.stream import stream

        generation = stream(
            self.loaded.model,
            self.loaded.tokenizer,
            row.prompt,
            self.options,
            on_text,
            positions=self.loaded.base.positions,
            device=self.loaded.base.compute.torch_device,
            seed=self.seed,
        )
        return [generation]

    def tuned(self, rows: Sequence[PromptRow]) -> list[Generation]:
        """The completion of each row's prompt, in their order."""
        return self._complete(self.loaded.model, self.loaded.base, rows, "completed")

    def untuned(self, rows: Sequence[PromptRow]) -> list[Generation]:
        """The same prompts to the model as it was before training."""
        if not self.loaded.adapter.holds_model:
            with self.loaded.untuned() as model:
                return self._complete(model, self.loaded.base, rows, "completed by the base")
        from peft_instruct.adapter.folder import load_untuned

        base = load_untuned(self.loaded.adapter, self.loaded.base.compute, self.hub, self.base)
        return self._complete(base.model, base, rows, "completed by the base")

    def _complete(self, model: Any, base: Any, rows: Sequence[PromptRow], what: str) -> list[Generation]:
        from peft_instruct.inference.complete import complete
        from peft_instruct.inference.progress import told

        done = complete(
            model,
            base.tokenizer,
            [row.prompt for row in rows],
            self.options,
            positions=base.positions,
            device=base.compute.torch_device,
            batch_size=self.batch_size,
            seed=self.seed,
            on_done=told(self.say, what, len(rows)),
        )
        template = self.loaded.template
        return [replace(generation, completion=template.output(generation.completion)) for generation in done]
