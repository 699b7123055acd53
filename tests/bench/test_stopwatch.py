"""Every token of a run is counted once, in the step that it was trained in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import astuple
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import TrainerControl, TrainerState, TrainingArguments

from peft_instruct.bench.flops import TokenCounts
from peft_instruct.bench.stopwatch import Stopwatch, count_tokens
from peft_instruct.data.prepare import read_instruction_data
from peft_instruct.data.tokens import tokenize
from peft_instruct.environment import HubState
from peft_instruct.model.adapters import make_trainable
from peft_instruct.model.base import load_base
from peft_instruct.model.device import choose_compute
from peft_instruct.model.location import locate
from peft_instruct.recipe import load_recipe
from peft_instruct.training.sft import build_trainer

ROWS = [
    {"input_ids": [5, 6, 7, 8, 9], "labels": [-100, -100, 7, 8, 9]},
    {"input_ids": [5, 6, 7], "labels": [-100, 6, 7]},
]


def pad(rows: Any) -> dict[str, torch.Tensor]:
    width = max(len(row["input_ids"]) for row in rows)
    return {"input_ids": torch.zeros(len(rows), width, dtype=torch.long)}


def scripted(*readings: float) -> Callable[[], float]:
    return iter(readings).__next__


@pytest.fixture
def step(tmp_path: Path) -> tuple[TrainingArguments, TrainerState, TrainerControl]:
    return TrainingArguments(output_dir=str(tmp_path), use_cpu=True), TrainerState(), TrainerControl()


def test_a_batch_counts_its_tokens_its_learned_tokens_its_positions_and_its_pairs() -> None:
    # 5 + 3 tokens, 3 + 2 learned, two rows padded to 5, and 1 + 2 + … pairs for each row.
    assert count_tokens(ROWS, num_positions=10) == TokenCounts(8, 5, 10, 15 + 6)


def test_the_first_token_of_plain_text_is_not_learned_since_nothing_predicts_it() -> None:
    assert count_tokens([{"input_ids": [1, 2, 3], "labels": [1, 2, 3]}], num_positions=3).num_completion_tokens == 2


def test_a_step_lasts_from_the_end_of_the_step_before_to_its_own_end(step: Any) -> None:
    stopwatch = Stopwatch("cpu", clock=scripted(10.0, 11.5, 14.0))
    collate = stopwatch.counting(pad)
    for _ in range(2):
        collate(ROWS)
        stopwatch.on_step_begin(*step)
        stopwatch.on_step_end(*step)
    assert [found.seconds for found in stopwatch.steps] == [1.5, 2.5]


def test_accumulated_batches_are_one_step_and_a_batch_fetched_ahead_waits_for_its_own(step: Any) -> None:
    stopwatch = Stopwatch("cpu", clock=scripted(0.0, 1.0, 2.0))
    collate = stopwatch.counting(pad)
    for rows in (ROWS, ROWS[:1], ROWS[1:]):  # the third is fetched before the first step ends
        collate(rows)
    stopwatch.on_step_begin(*step)
    stopwatch.on_substep_end(*step)
    stopwatch.on_step_end(*step)
    stopwatch.on_step_begin(*step)
    stopwatch.on_step_end(*step)
    assert [found.counts.num_tokens for found in stopwatch.steps] == [8 + 5, 3]


def test_the_device_has_finished_before_the_clock_is_read(step: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []

    def clock() -> float:
        events.append("clock")
        return float(len(events))

    monkeypatch.setattr("peft_instruct.bench.stopwatch.synchronize", lambda device: events.append(device))
    stopwatch = Stopwatch("mps", clock=clock)
    stopwatch.counting(pad)(ROWS)
    stopwatch.on_step_begin(*step)
    stopwatch.on_step_end(*step)
    assert events == ["mps", "clock"] * 2


@pytest.mark.parametrize("joined", [True, False], ids=["rows joined", "rows padded"])
def test_an_epoch_of_a_real_trainer_holds_every_token_of_its_rows_once(
    tiny_recipe: Path, tmp_path: Path, joined: bool
) -> None:
    """Batches of 5, three to a step: the last batch and the last step of the epoch are smaller than the others."""
    overrides = ["training.max_steps=null", "training.epochs=1", "training.batch_size=5", "training.accumulation=3",
                 "training.evaluate_every=never", "training.save_every=never",
                 f"speed.joined_rows={str(joined).lower()}"]  # fmt: skip
    recipe = load_recipe(str(tiny_recipe), overrides)
    compute = choose_compute("cpu", "fp32")
    base = load_base(recipe.model, locate(recipe.model.base, "main", HubState(False)), compute)
    rows = read_instruction_data(recipe.data, seed=0).train
    tokens, report = tokenize(rows, base.tokenizer, max_length=recipe.data.max_length)
    stopwatch = Stopwatch("cpu")
    trainable = make_trainable(base, recipe.method)
    trainer = build_trainer(recipe, base, trainable, tokens, [], folder=tmp_path, callbacks=[stopwatch])
    trainer.data_collator = stopwatch.counting(trainer.data_collator)
    stopwatch.split(trainer, after=2)
    stopwatch.watch(trainer.model)
    seen: list[int] = []
    trainer.model.get_input_embeddings().register_forward_hook(lambda module, given, out: seen.append(given[0].numel()))
    trainer.train()

    total = sum((found.counts for found in stopwatch.steps), TokenCounts())
    assert len(stopwatch.steps) == trainer.state.global_step == 4
    assert total.num_tokens == report.num_tokens
    assert total.num_completion_tokens == report.num_completion_tokens
    assert total.num_pairs == sum(len(row.input_ids) * (len(row.input_ids) + 1) // 2 for row in tokens)
    assert total.num_positions > total.num_tokens
    # Every prompt begins as the template does: what was computed are the tokens, padded or filled up to a multiple of
    # 32 in each of the 12 batches, without the repetitions.
    filled = (0, 12 * 31) if joined else (total.num_positions - total.num_tokens,) * 2
    assert filled[0] <= sum(seen) - (total.num_tokens - total.num_spared) <= filled[1]
    assert total.num_spared > 0
    assert total.num_spared_pairs > total.num_spared
    # The parts of a step are the step, nothing between them is lost.
    assert [sum(astuple(split)) for split in stopwatch.splits] == pytest.approx(
        [found.seconds for found in stopwatch.steps[2:]], rel=1e-9
    )
    assert all(min(astuple(split)) > 0 for split in stopwatch.splits)
