"""The rows that nothing was learned from, measured before and after training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from peft_instruct.commands.train import Answer
from peft_instruct.data.prepare import InstructionData
from peft_instruct.data.types import PromptCompletion
from peft_instruct.evaluation.scores import Scores, evaluate_rows
from peft_instruct.inference.complete import complete
from peft_instruct.model.base import Base
from peft_instruct.recipe import Recipe
from peft_instruct.recipe.schema import GenerationSection

NUM_ANSWERS_SHOWN = 5

# What a person reads -> the field of Scores
MEASURES = {
    "loss (nats/token)": "loss",
    "perplexity": "perplexity",
    "token accuracy": "token_accuracy",
    "exact match": "exact_match",
    "stops by itself": "stop_share",
}


@dataclass(frozen=True)
class Measured:
    """Scores and the answers to the rows that are shown."""

    scores: Scores
    shown: tuple[str, ...]


class HeldOut:
    """The test rows of a run, or its validation rows where it has none, and one way to measure a model on them."""

    def __init__(self, recipe: Recipe, data: InstructionData, say: Callable[[str], None]) -> None:
        self.recipe, self.say = recipe, say
        self.rows = data.test or data.validation
        self.label = f"{len(self.rows)} {'test' if data.test else 'validation'} rows"
        prompted = [row for row in self.rows if row.prompt]
        self.shown = spread(prompted, NUM_ANSWERS_SHOWN if recipe.evaluation.rows else 0)

    def measure(self, base: Base, model: torch.nn.Module | None = None) -> Measured | None:
        """Scores of a model (of the base itself without one); None where nothing was held out."""
        if not self.rows:
            return None
        section, chosen = self.recipe.evaluation, base.model if model is None else model
        self.say(f"measuring {'the base' if model is None else 'what was trained'} on {self.label}")

        def answer(prompts: list[str]) -> list[tuple[str, bool]]:
            options = GenerationSection(max_new_tokens=section.max_new_tokens)
            done = complete(
                chosen,
                base.tokenizer,
                prompts,
                options,
                positions=base.positions,
                device=base.compute.torch_device,
                batch_size=section.batch_size,
            )
            return [(generation.completion, generation.stopped) for generation in done]

        scores = evaluate_rows(
            chosen,
            base.tokenizer,
            self.rows,
            complete=answer,
            max_length=self.recipe.data.max_length,
            overlong=self.recipe.data.overlong,
            device=base.compute.torch_device,
            batch_size=section.batch_size,
            generate_rows=section.rows if any(row.prompt for row in self.rows) else 0,
        )
        shown = answer([row.prompt for row in self.shown]) if self.shown else []
        return Measured(scores, tuple(text for text, _ in shown))

    def answers(self, base: Measured | None, tuned: Measured | None) -> tuple[Answer, ...]:
        if base is None or tuned is None:
            return ()
        pairs = zip(self.shown, base.shown, tuned.shown, strict=True)
        return tuple(Answer(row.asked, row.completion, before, after) for row, before, after in pairs)


def side_by_side(base: Measured | None, tuned: Measured | None) -> dict[str, tuple[float | None, float | None]]:
    """Measure -> (base, tuned), without the measures that were not taken."""
    if base is None or tuned is None:
        return {}
    pairs = {name: (getattr(base.scores, key), getattr(tuned.scores, key)) for name, key in MEASURES.items()}
    return {name: pair for name, pair in pairs.items() if pair != (None, None)}


def spread(rows: Sequence[PromptCompletion], count: int) -> list[PromptCompletion]:
    """`count` rows at even distances; all of them where there are fewer."""
    if count >= len(rows):
        return list(rows)
    return [rows[index * len(rows) // count] for index in range(count)]
