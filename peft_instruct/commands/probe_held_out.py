"""What it takes to measure all held-out rows on a model, from a few of them: how they meet in batches is known."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from transformers import DynamicCache

from peft_instruct.bench.prediction import CompletionTimes
from peft_instruct.commands.held_out import HeldOut
from peft_instruct.data.tokens import model_rows
from peft_instruct.data.units import text_ids
from peft_instruct.evaluation.scores import evenly
from peft_instruct.inference.batches import batches
from peft_instruct.inference.choice import NextToken
from peft_instruct.inference.complete import STEPS_BETWEEN_LOOKS, complete, new_ids, packed_for
from peft_instruct.inference.preambles import Preambles, with_shared
from peft_instruct.inference.prompts import fit_prompts
from peft_instruct.model.base import Base, answering
from peft_instruct.model.device import synchronize
from peft_instruct.model.scoring import score
from peft_instruct.recipe.schema import GenerationSection

FEW_ROWS = 32
"""Rows whose loss is timed."""


@dataclass(frozen=True)
class HeldOutTimes:
    """Of one model.

    Attributes:
        per_position: seconds of scoring a padded position.
        first: seconds that the longest batches, the first of a run, took beyond what this says of them.
    """

    per_position: float
    first: float
    completing: CompletionTimes


class HeldOutProbe:
    """The held-out rows of a run, which a few of are timed on any model.

    Attributes:
        prompts: of the rows that are completed.
        limits: most tokens of their completions.
        own_lengths: of the rows' own completions with their stop tokens, within these limits: how long the completions
            of a model are that has learned to answer.
    """

    def __init__(self, held_out: HeldOut, base: Base) -> None:
        began = time.monotonic()
        self.section = held_out.section
        self.tokens, _ = model_rows(held_out.rows, base.tokenizer, held_out.data)
        self.tokenizing_seconds = time.monotonic() - began
        lengths = self.tokens.lengths.tolist()
        self.lengths = dict(sorted(enumerate(lengths), key=lambda each: -each[1]))
        completed = evenly([row for row in held_out.rows if row.prompt], self.section.rows)
        self.prompts = [row.prompt for row in completed]
        self.fitted = with_shared(
            fit_prompts(
                base.tokenizer, self.prompts, positions=base.positions, max_new_tokens=self.section.max_new_tokens
            ),
            base.model.config,
        )
        self.batches = list(batches(self.fitted, self.section.batch_size, base.model.config))
        self.limits = [prompt.limit for prompt in self.fitted]
        own = text_ids(base.tokenizer, [row.completion for row in completed])
        self.own_lengths = [min(len(ids) + 1, limit) for ids, limit in zip(own, self.limits, strict=True)]

    def times(self, base: Base) -> HeldOutTimes:
        """The longest batches come first: they need the most memory, and kernels are compiled in them."""
        longest = list(self.lengths)[: self.section.batch_size]
        few = evenly(list(self.lengths), max(FEW_ROWS, self.section.batch_size))
        first_scored = self._score(base, longest)
        per_position = self._score(base, few) / self._num_positions(few)
        first = max(first_scored - per_position * self._num_positions(longest), 0.0)
        if not self.batches:
            return HeldOutTimes(per_position, first, CompletionTimes(0.0, 0.0, 0.0))
        middle = self.batches[len(self.batches) // 2]
        began = time.monotonic()
        with packed_for(base.model, len(self.prompts)):
            lengths = dict(zip(self.batches[0], self._lengths_on(base, self.batches[0]), strict=True))
            seconds = time.monotonic() - began
            prompts, together = self._paced(base, middle)
            _, alone = self._paced(base, middle[:1])
        completing = CompletionTimes.of(prompts / self._prompt_positions(middle), alone, together, len(middle))
        first += max(seconds - self._batch_seconds(completing, self.batches[0], lengths), 0.0)
        return HeldOutTimes(per_position, first, completing)

    def lengths_on(self, base: Base) -> list[int]:
        """How long the completions of a model are; of some rows, each taken for those that follow in the file."""
        rows = range(len(self.prompts))
        some = evenly(rows, self.section.batch_size)
        found = self._lengths_on(base, some)
        return [min(found[row * len(some) // len(rows)], self.limits[row]) for row in rows]

    def seconds(self, times: HeldOutTimes, lengths: Sequence[int]) -> float:
        """Of all rows, once kernels are compiled.

        Args:
            lengths: of the completions.
        """
        scoring = times.per_position * self._num_positions(list(self.lengths))
        by_row = dict(enumerate(lengths))
        completing = (self._batch_seconds(times.completing, batch, by_row) for batch in self.batches)
        return self.tokenizing_seconds + scoring + sum(completing)

    def _batch_seconds(self, times: CompletionTimes, batch: Sequence[int], lengths: dict[int, int]) -> float:
        return times.seconds(self._prompt_positions(batch), [lengths[row] for row in batch], STEPS_BETWEEN_LOOKS)

    def _num_positions(self, rows: Sequence[int]) -> int:
        """Of rows that are scored, the longest first."""
        size = self.section.batch_size
        parts = [rows[at : at + size] for at in range(0, len(rows), size)]
        return sum(len(part) * self.lengths[part[0]] for part in parts)

    def _prompt_positions(self, batch: Sequence[int]) -> int:
        """Without the beginnings that prompts share, which are computed once."""
        return len(batch) * max(len(self.fitted[row].ids) - self.fitted[row].num_shared for row in batch)

    def _score(self, base: Base, rows: Sequence[int]) -> float:
        began = time.monotonic()
        score(
            base.model,
            [self.tokens[row] for row in rows],
            pad_id=base.tokenizer.pad_token_id,
            stop_id=base.tokenizer.eos_token_id,
            device=base.compute.torch_device,
            batch_size=self.section.batch_size,
        )
        return time.monotonic() - began

    def _lengths_on(self, base: Base, rows: Sequence[int]) -> list[int]:
        done = complete(
            base.model,
            base.tokenizer,
            [self.prompts[row] for row in rows],
            GenerationSection(max_new_tokens=self.section.max_new_tokens),
            positions=base.positions,
            device=base.compute.torch_device,
            batch_size=self.section.batch_size,
        )
        return [max(each.num_tokens, 1) for each in done]

    def _paced(self, base: Base, rows: Sequence[int]) -> tuple[float, float]:
        """Seconds of a batch of prompts until their first tokens, and of each further one: none of them stops."""
        num_tokens = min(STEPS_BETWEEN_LOOKS + 1, *(self.limits[row] for row in rows))
        batch = [replace(self.fitted[row], limit=num_tokens) for row in rows]
        choice = Unstopped([prompt.ids for prompt in batch], base)
        device = base.compute.torch_device
        preambles = Preambles(base.model, device)
        with answering(base.model):
            preambles.put_into(DynamicCache(config=base.model.config), batch)
            began = time.monotonic()
            new_ids(base.model, base.tokenizer, batch, choice, device, preambles)
        first, last = choice.marks[0], choice.marks[-1]
        return first - began, (last - first) / max(num_tokens - 1, 1)


class Unstopped(NextToken):
    """Greedy without ever stopping, and the clock read at each token."""

    def __init__(self, prompts: Sequence[Sequence[int]], base: Base) -> None:
        super().__init__(GenerationSection(), prompts, [])
        self.stop, self.device = base.tokenizer.eos_token_id, base.compute.device
        self.marks: list[float] = []

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        chosen = super().__call__(input_ids, scores).clone()
        chosen[:, self.stop] = -torch.inf
        synchronize(self.device)
        self.marks.append(time.monotonic())
        return chosen
