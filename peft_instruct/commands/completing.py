"""The completions of one `generate`: of what was trained, and of the base as it was before."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from peft_instruct.commands.generated import Completed
from peft_instruct.commands.untuned import Untuned
from peft_instruct.data.template import ANSWER
from peft_instruct.inference.files import PromptRow
from peft_instruct.recipe.schema import GenerationSection

if TYPE_CHECKING:  # it imports torch
    from peft_instruct.adapter.folder import Tuned
    from peft_instruct.inference.complete import Generation

Say = Callable[[str], None]
ROWS_AT_ONCE = 1024
"""Rows that batches of like length are made of; then they are written."""


@dataclass(frozen=True)
class Completing:
    """What all completions of one call share."""

    loaded: Tuned
    before: Untuned
    options: GenerationSection
    seed: int
    batch_size: int | None
    say: Say

    @property
    def streams(self) -> bool:
        """Whether a completion can be told while it is made: what a template wraps it in comes off the whole alone."""
        return self.loaded.template.answer == ANSWER

    def streamed(self, row: PromptRow, on_text: Say) -> Completed:
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
        return Completed(row.values, generation, None)

    def of_the_base(self, row: PromptRow) -> Generation:
        """What the model as it was before training makes of one prompt."""
        (generation,) = self._untuned([row], 0, 1)
        return generation

    def portions(self, rows: Sequence[PromptRow], compare: bool) -> Iterator[list[Completed]]:
        """The rows with their completions, in their order, as portions are done; `compare`: the base's as well."""
        for start in range(0, len(rows), ROWS_AT_ONCE):
            portion = rows[start : start + ROWS_AT_ONCE]
            tuned = self._complete(self.loaded.model, self.loaded.base, portion, "completed", start, len(rows))
            bases = self._untuned(portion, start, len(rows)) if compare else [None] * len(portion)
            yield [Completed(row.values, mine, other) for row, mine, other in zip(portion, tuned, bases, strict=True)]

    def _untuned(self, portion: Sequence[PromptRow], start: int, total: int) -> list[Generation]:
        """The same prompts to the model as it was before training."""
        with self.before.opened() as (model, base):
            return self._complete(model, base, portion, "completed by the base", start, total)

    def _complete(
        self, model: Any, base: Any, portion: Sequence[PromptRow], what: str, start: int, total: int
    ) -> list[Generation]:
        from peft_instruct.inference.complete import complete
        from peft_instruct.inference.progress import told

        tell = told(self.say, what, total)
        done = complete(
            model,
            base.tokenizer,
            [row.prompt for row in portion],
            self.options,
            positions=base.positions,
            device=base.compute.torch_device,
            batch_size=self.batch_size,
            seed=self.seed,
            first=start,
            on_done=lambda count: tell(start + count),
        )
        template = self.loaded.template
        return [replace(generation, completion=template.output(generation.completion)) for generation in done]
