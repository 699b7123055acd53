"""What is foretold of measuring held-out rows is what is computed: positions, steps, and the rows in each of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rigged import chain_model

from peft_instruct.bench.prediction import CompletionTimes
from peft_instruct.commands.held_out import HeldOut
from peft_instruct.commands.probe_held_out import HeldOutProbe, HeldOutTimes
from peft_instruct.data.types import PromptCompletion
from peft_instruct.model.base import Base, load_base
from peft_instruct.model.device import choose_compute
from peft_instruct.model.location import Location
from peft_instruct.recipe.data_section import DataSection
from peft_instruct.recipe.model_section import ModelSection
from peft_instruct.recipe.schema import EvaluationSection

LIMIT = 40
LAST = 60
"""The printable characters from `!` on have the ids 0, 1, …; each is followed by the next one, this one by the end."""


def row(steps_to_stop: int, padding: int) -> PromptCompletion:
    """A row whose own completion is what the model says: so many tokens, with its stop token."""
    first = LAST + 2 - steps_to_stop
    said = "".join(chr(33 + token) for token in range(first, LAST + 1))
    return PromptCompletion("~" * padding + chr(33 + first - 1), said, f"row {first}")


ROWS = [row(*each) for each in [(1, 3), (39, 9), (20, 1), (7, 6), (50, 4), (17, 2), (33, 7), (2, 5), (16, 8)]]


@pytest.fixture(scope="module")
def base(tiny_base_folder: Path) -> Base:
    """A model whose completions are known, behind the tiny base's tokenizer."""
    location = Location(str(tiny_base_folder), tiny_base_folder)
    plain = load_base(ModelSection(base=str(tiny_base_folder)), location, choose_compute("cpu", "fp32"))
    chain = {token: token + 1 for token in range(LAST)} | {LAST: plain.tokenizer.eos_token_id}
    return replace(plain, model=chain_model(plain.tokenizer, chain), positions=64)


def held_out(**section: int) -> HeldOut:
    asked = EvaluationSection(max_new_tokens=LIMIT, **section)
    return HeldOut("rows", ROWS, asked, DataSection(train="rows.json", max_length=64), lambda line: None)


@pytest.mark.parametrize("size", [1, 4, 9])
def test_the_work_that_is_foretold_is_the_work_that_is_done(base: Base, size: int) -> None:
    held = held_out(rows=7, batch_size=size)
    probe = HeldOutProbe(held, base)
    shapes: list[tuple[int, int]] = []
    hook = base.model.transformer.wte.register_forward_pre_hook(lambda _, given: shapes.append(given[0].shape))
    scores = held.measure("", base.model, base)
    hook.remove()
    num_scored = -(-len(ROWS) // size)
    scored, completed = shapes[:num_scored], shapes[num_scored:]
    prompts = [rows * width for rows, width in completed if width > 1]
    steps = [rows for rows, width in completed if width == 1]
    lengths = [min(len(each.completion) + 1, LIMIT) for each in scores.attempts]

    def units(*weights: float) -> float:
        scoring, *completing = weights
        times = HeldOutTimes(scoring, 0.0, CompletionTimes(*completing))
        return probe.seconds(times, lengths) - probe.tokenizing_seconds

    assert units(1, 0, 0, 0) == pytest.approx(sum(rows * width for rows, width in scored))
    assert units(0, 1, 0, 0) == pytest.approx(sum(prompts))
    assert units(0, 0, 1, 0) == pytest.approx(len(steps))
    assert units(0, 0, 0, 1) == pytest.approx(sum(steps))


def test_lengths_of_the_rows_own_completions_and_of_a_model_are_known_with_their_stop_tokens(base: Base) -> None:
    probe = HeldOutProbe(held_out(rows=9, batch_size=9), base)
    assert probe.own_lengths == [1, 39, 20, 7, LIMIT, 17, 33, 2, 16]
    assert probe.lengths_on(base) == probe.own_lengths
    # Of fewer rows each stands for those behind it.
    assert HeldOutProbe(held_out(rows=9, batch_size=3), base).lengths_on(base) == [1, 1, 1, 7, 7, 7, 33, 33, 33]


def test_a_model_that_would_stop_at_once_is_timed_over_whole_steps(base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that ticks with every forward pass: one second for a pass, and one more for every row in it."""
    passed: list[Any] = []
    monkeypatch.setattr("time.monotonic", lambda: float(len(passed) + sum(passed)))
    hook = base.model.transformer.wte.register_forward_pre_hook(lambda _, given: passed.append(len(given[0])))
    probe = HeldOutProbe(held_out(rows=4, batch_size=4), base)
    times = probe.times(base)
    hook.remove()
    assert (times.completing.per_step, times.completing.per_row) == pytest.approx((1.0, 1.0))


def test_without_prompts_the_loss_alone_is_timed(base: Base) -> None:
    texts = replace(held_out(rows=9), rows=[replace(each, prompt="") for each in ROWS[1:]])
    probe = HeldOutProbe(texts, base)
    times = probe.times(base)
    assert probe.prompts == [] and times.completing == CompletionTimes(0.0, 0.0, 0.0)
    assert probe.seconds(times, []) > probe.tokenizing_seconds
