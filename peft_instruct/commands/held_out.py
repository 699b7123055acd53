"""The rows that nothing was learned from, measured before and after training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from peft_instruct.data.prepare import InstructionData
from peft_instruct.data.types import PromptCompletion
from peft_instruct.evaluation.scores import Scores, evaluate_rows
from peft_instruct.inference.complete import complete
from peft_instruct.inference.progress import told
from peft_instruct.model.base import Base
from peft_instruct.recipe import Recipe
from peft_instruct.recipe.data_section import DataSection
from peft_instruct.recipe.schema import EvaluationSection, GenerationSection

# What a person reads -> the field of Scores
MEASURES = {
    "loss (nats/token)": "loss",
    "perplexity": "perplexity",
    "token accuracy": "token_accuracy",
    "P(stop) at the end": "stop_probability",
    "exact match": "exact_match",
    "stops by itself": "stop_share",
}


@dataclass(frozen=True)
class HeldOut:
    """Rows to measure on, and one way to measure any model on them.

    Attributes:
        name: what the rows are, for people.
        data: how they become tokens: the length limit, what happens beyond it, packing.
    """

    name: str
    rows: list[PromptCompletion]
    section: EvaluationSection
    data: DataSection
    say: Callable[[str], None]

    @classmethod
    def of(cls, data: InstructionData, recipe: Recipe, say: Callable[[str], None]) -> HeldOut:
        """The test rows of a run, or its validation rows where it has none; no rows where it has neither."""
        rows = data.test or data.validation
        name = f"{len(rows)} {'test' if data.test else 'validation'} rows"
        return cls(name, rows, recipe.evaluation, recipe.data, say)

    def measure(self, what: str, model: torch.nn.Module, base: Base) -> Scores:
        """Loss over all rows; exact match and stopping, by greedy completions, over `section.rows` of them."""
        num_completed = min(self.section.rows, sum(bool(row.prompt) for row in self.rows))
        over = f"texts, packed into rows of {self.data.max_length} tokens" if self.data.packing else "rows"
        self.say(f"{what}: loss over {len(self.rows)} {over}, completions of {num_completed}")
        options = GenerationSection(max_new_tokens=self.section.max_new_tokens)
        device = base.compute.torch_device

        def completed(prompts: list[str]) -> list[tuple[str, bool]]:
            done = complete(
                model,
                base.tokenizer,
                prompts,
                options,
                positions=base.positions,
                device=device,
                batch_size=self.section.batch_size,
                on_done=told(self.say, f"{what}: completed", len(prompts)),
            )
            return [(generation.completion, generation.stopped) for generation in done]

        return evaluate_rows(
            model,
            base.tokenizer,
            self.rows,
            complete=completed,
            data=self.data,
            device=device,
            batch_size=self.section.batch_size,
            generate_rows=self.section.rows,
        )

    def described(self, scores: Scores | None) -> str:
        """Which rows the scores are of, and how many of them which score."""
        if scores is None:
            return self.name
        left_out = f", {scores.num_dropped} of them too long and left out" if scores.num_dropped else ""
        is_part = 0 < scores.num_completed < len(self.rows) - scores.num_dropped
        return f"{self.name}{left_out}" + (f", {scores.num_completed} of them answered" if is_part else "")

    def cut(self, scores: Scores | None) -> str:
        """What the length limit did to the rows; empty where it did nothing."""
        if scores is None or not scores.num_truncated + scores.num_dropped:
            return ""
        return (
            f"{self.name}: {scores.num_truncated} cut at data.max_length {self.data.max_length}, {scores.num_dropped} "
            "left out"
        )


def side_by_side(base: Scores | None, tuned: Scores | None) -> dict[str, tuple[float | None, float | None]]:
    """Measure -> (base, tuned), without the measures that were not taken."""
    if base is None or tuned is None:
        return {}
    pairs = {name: (getattr(base, key), getattr(tuned, key)) for name, key in MEASURES.items()}
    return {name: pair for name, pair in pairs.items() if pair != (None, None)}
