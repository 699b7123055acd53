"""The passes that are foretold are those that the trainer makes, step for step."""

from __future__ import annotations

from typing import Any

import pytest
from conftest import MakeTrainer
from hypothesis import given
from hypothesis import strategies as st
from transformers import TrainerCallback

from peft_instruct.bench.stopwatch import Stopwatch
from peft_instruct.recipe import load_recipe
from peft_instruct.training.plan import num_evaluations, num_steps, passes_of, planned_steps


class Evaluations(TrainerCallback):
    count = 0

    def on_evaluate(self, *args: Any, **kwargs: Any) -> None:
        self.count += 1


@pytest.mark.parametrize(
    "words",
    [
        ["training.max_steps=null", "training.epochs=1.5", "training.accumulation=2"],
        ["training.max_steps=9", "training.batch_size=16", "training.evaluate_every=4"],
        ["training.max_steps=4", "training.batch_size=16", "training.evaluate_every=2"],
        ["training.batch_tokens=400", "training.max_steps=null", "training.epochs=1.5", "training.accumulation=2"],
    ],
    ids=["epochs", "steps", "a cadence that ends with the run", "batches by tokens"],
)
def test_the_trainer_makes_the_passes_that_were_foretold(
    make_trainer: MakeTrainer, tiny_recipe: Any, words: list[str]
) -> None:
    stopwatch, evaluations = Stopwatch("cpu"), Evaluations()
    trainer = make_trainer(*words, callbacks=[stopwatch, evaluations])
    trainer.data_collator = stopwatch.counting(trainer.data_collator)
    trainer.train()
    recipe = load_recipe(str(tiny_recipe), words)
    lengths = [len(row.input_ids) for row in trainer.train_rows]
    steps = planned_steps(lengths, recipe)
    assert len(steps) == num_steps(lengths, recipe) == trainer.state.global_step
    foretold = [
        (
            sum(lengths[row] for batch in step for row in batch),
            sum(passes_of(batch, lengths, len(batch))[1] for batch in step),
        )
        for step in steps
    ]
    assert foretold == [(step.counts.num_tokens, step.counts.num_positions) for step in stopwatch.steps]
    assert evaluations.count == num_evaluations(lengths, recipe)


@given(st.lists(st.integers(1, 300), min_size=1, max_size=20), st.integers(1, 20))
def test_smaller_passes_are_more_and_no_wider(lengths: list[int], rows_at_once: int) -> None:
    batch = range(len(lengths))
    passes, positions = passes_of(batch, lengths, rows_at_once)
    assert passes == -(-len(lengths) // rows_at_once)
    whole = passes_of(batch, lengths, len(lengths))[1]
    assert sum(lengths) <= positions <= whole
    assert whole == len(lengths) * (max(lengths) + -max(lengths) % 8)
