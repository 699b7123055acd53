"""Completions do not depend on the batch, end where the model ends them, and touch nothing but themselves."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from families import PROMPTS
from rigged import chain_model, chain_of
from transformers import RepetitionPenaltyLogitsProcessor

import peft_instruct.inference.complete as completing
from peft_instruct.errors import ModelError
from peft_instruct.inference.choice import NextToken, row_generator
from peft_instruct.inference.complete import complete
from peft_instruct.inference.prompts import fit_prompts
from peft_instruct.model.base import Base, load_base
from peft_instruct.model.device import choose_compute
from peft_instruct.model.location import Location
from peft_instruct.recipe.model_section import ModelSection
from peft_instruct.recipe.schema import GenerationSection

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def base(tiny_base_folder: Path) -> Base:
    location = Location(str(tiny_base_folder), tiny_base_folder)
    return load_base(ModelSection(base=str(tiny_base_folder)), location, choose_compute("cpu", "fp32"))


def run(base: Base, prompts: list[str], *, seed: int = 0, batch_size: int = 8, **options: Any) -> list[Any]:
    section = GenerationSection(**options)
    return complete(
        base.model, base.tokenizer, prompts, section, positions=256, device=CPU, batch_size=batch_size, seed=seed
    )


def greedy_by_hand(model: Any, ids: list[int], limit: int, stop: int) -> list[int]:
    """No cache, no padding, no batch: the largest logit of a whole forward pass, again and again."""
    new: list[int] = []
    with torch.no_grad():
        while len(new) < limit and stop not in new:
            logits = model(input_ids=torch.tensor([[*ids, *new]]), use_cache=False).logits
            new.append(int(logits[0, -1].argmax()))
    return new


def test_a_left_padded_batch_equals_one_prompt_at_a_time_and_a_loop_by_hand(base: Base) -> None:
    together = run(base, PROMPTS, max_new_tokens=24, batch_size=5)
    assert together == run(base, PROMPTS, max_new_tokens=24, batch_size=1)
    stop = base.tokenizer.eos_token_id
    fitted = fit_prompts(base.tokenizer, PROMPTS, positions=256, max_new_tokens=24)
    for generation, prompt in zip(together, fitted, strict=True):
        by_hand = greedy_by_hand(base.model, list(prompt.ids), 24, stop)
        assert generation.completion == base.tokenizer.decode(by_hand, skip_special_tokens=True)
        assert generation.num_tokens == len(by_hand)
    assert len({generation.completion for generation in together}) > len(PROMPTS) / 2, "the model tells prompts apart"


@pytest.mark.parametrize("options", [{}, {"repetition_penalty": 1.7}, {"temperature": 5.0}])
def test_rows_that_stop_leave_the_batch_and_no_completion_changes(
    base: Base, monkeypatch: pytest.MonkeyPatch, options: dict[str, float]
) -> None:
    left: list[list[int]] = []
    keep = NextToken.keep
    monkeypatch.setattr(NextToken, "keep", lambda choice, rows: (left.append(list(rows)), keep(choice, rows)))
    monkeypatch.setattr(completing, "STEPS_BETWEEN_LOOKS", 40)
    together = run(base, PROMPTS, seed=5, max_new_tokens=40, batch_size=len(PROMPTS), **options)
    assert left == []
    monkeypatch.setattr(completing, "STEPS_BETWEEN_LOOKS", 3)
    assert run(base, PROMPTS, seed=5, max_new_tokens=40, batch_size=len(PROMPTS), **options) == together
    stopped = sum(each.stopped for each in together)
    assert bool(left) == bool(stopped)
    assert stopped or "temperature" not in options, "drawn so evenly, a few of 480 tokens are the stop token"


def test_a_row_that_stopped_is_not_waited_for(base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    chain = {**chain_of(base.tokenizer, "a", "bcd"), **chain_of(base.tokenizer, "x", "yz", stops=False)}
    model = chain_model(base.tokenizer, chain)
    sizes: list[int] = []
    model.register_forward_hook(lambda module, given, out: sizes.append(len(out.logits)))
    monkeypatch.setattr(completing, "STEPS_BETWEEN_LOOKS", 5)
    options = GenerationSection(max_new_tokens=12)
    found = complete(model, base.tokenizer, ["a", "x", "a"], options, positions=64, device=CPU)
    assert [each.completion for each in found] == ["bcd", "yz" * 6, "bcd"]
    assert sizes == [3] * 5 + [1] * 7


@pytest.mark.parametrize("penalty", [1.0, 1.7])
def test_a_sampled_completion_depends_on_seed_and_place_alone(base: Base, penalty: float) -> None:
    options = {"max_new_tokens": 20, "temperature": 0.9, "top_k": 60, "top_p": 0.95, "repetition_penalty": penalty}
    first = run(base, PROMPTS, seed=7, batch_size=1, **options)
    assert first == run(base, PROMPTS, seed=7, batch_size=6, **options)
    assert first != run(base, PROMPTS, seed=8, batch_size=6, **options)
    greedy = run(base, PROMPTS, max_new_tokens=20, repetition_penalty=penalty)
    assert first != greedy
    one, other = run(base, [PROMPTS[0]] * 2, seed=7, **options)
    assert one.completion != other.completion, "the same prompt twice is two draws"
    # One step of 20,000 is drawn with a temperature that leaves the largest logit alone.
    assert run(base, PROMPTS, seed=7, max_new_tokens=20, temperature=1e-6, repetition_penalty=penalty) == greedy


def test_the_drawn_tokens_follow_the_softmax() -> None:
    logits = torch.tensor([2.0, 1.0, 0.0, -1.0, -30.0])
    draws, temperature = 4000, 0.7
    options = GenerationSection(temperature=temperature)
    choice = NextToken(options, [[0]] * draws, [row_generator(3, row) for row in range(draws)])
    counts = choice(torch.zeros(draws, 1, dtype=torch.long), logits.repeat(draws, 1)).argmax(-1).bincount(minlength=5)
    for count, probability in zip(counts.tolist(), (logits / temperature).softmax(-1).tolist(), strict=True):
        spread = math.sqrt(draws * probability * (1 - probability))
        # The seed is fixed, so this cannot fail by chance; five deviations would be 1 in 2 million for a new seed.
        assert abs(count - draws * probability) <= 5 * spread + 1e-6


def test_top_k_and_top_p_leave_nothing_else_to_draw() -> None:
    logits = torch.tensor([3.0, 2.9, 2.8, 0.0]).repeat(500, 1)
    generators = [row_generator(0, row) for row in range(500)]
    ids = torch.zeros(500, 1, dtype=torch.long)
    by_k = NextToken(GenerationSection(temperature=5.0, top_k=2), [[0]] * 500, generators)(ids, logits).argmax(-1)
    assert set(by_k.tolist()) == {0, 1}
    by_p = NextToken(GenerationSection(temperature=1.0, top_p=0.5), [[0]] * 500, generators)(ids, logits).argmax(-1)
    assert set(by_p.tolist()) == {0, 1}, "0.35 + 0.32 are the least that reach one half"


def test_the_repetition_penalty_is_that_of_transformers_for_a_row_without_padding(base: Base) -> None:
    prompts = [[5, 9, 5], [7, 7, 7]]
    choice = NextToken(GenerationSection(repetition_penalty=1.6), prompts, [])
    theirs = RepetitionPenaltyLogitsProcessor(1.6)
    ids = torch.tensor(prompts)
    for step in range(3):
        scores = torch.randn(2, 12, generator=torch.Generator().manual_seed(step)) * 3
        assert torch.equal(choice(ids, scores), theirs(ids, scores.clone()))
        ids = torch.cat([ids, torch.tensor([[step], [9]])], dim=1)


def test_the_stop_token_ends_a_completion_and_the_limit_says_so(base: Base) -> None:
    tokenizer = base.tokenizer
    chain = {**chain_of(tokenizer, "a", "bcd"), **chain_of(tokenizer, "x", "yz", stops=False)}
    model = chain_model(tokenizer, chain)
    prompts = ["x", "a", "x" * 5 + "c", "a"]
    found = complete(
        model, tokenizer, prompts, GenerationSection(max_new_tokens=7), positions=64, device=CPU, batch_size=4
    )
    assert [each.completion for each in found] == ["yzyzyzy", "bcd", "d", "bcd"]
    assert [each.stopped for each in found] == [False, True, True, True]
    assert [each.num_tokens for each in found] == [7, 4, 2, 4], "the stop token counts"
    assert [each.prompt for each in found] == prompts
    exact = complete(model, tokenizer, ["a"], GenerationSection(max_new_tokens=3), positions=64, device=CPU)
    assert (exact[0].completion, exact[0].stopped) == ("bcd", False), "the limit came before the stop token"


def test_a_bases_own_generation_settings_play_no_part(base: Base, capfd: pytest.CaptureFixture[str]) -> None:
    plain = run(base, PROMPTS, max_new_tokens=12)
    before = base.model.generation_config.to_dict()
    capfd.readouterr()
    settings = {"do_sample": True, "temperature": 0.7, "top_k": 3, "repetition_penalty": 2.0, "num_beams": 2}
    for name, value in settings.items():
        setattr(base.model.generation_config, name, value)
    try:
        assert run(base, PROMPTS, max_new_tokens=12) == plain
    finally:
        for name in settings:
            setattr(base.model.generation_config, name, before.get(name))
    assert capfd.readouterr().err == "", "and nothing is warned of"


def test_nothing_is_left_changed(base: Base, tmp_path: Path) -> None:
    base.model.train()
    random_state = torch.get_rng_state()
    settings = base.model.generation_config.to_dict()
    run(base, PROMPTS[:3], max_new_tokens=4, temperature=1.0)
    assert base.model.training
    base.model.eval()
    assert torch.equal(torch.get_rng_state(), random_state), "sampling in a training run must not move its dropout"
    assert base.model.generation_config.to_dict() == settings
    base.model.save_pretrained(tmp_path)  # raises for a temperature without do_sample


def test_progress_counts_up_to_all_prompts(base: Base) -> None:
    counts: list[int] = []
    options = GenerationSection(max_new_tokens=2)
    complete(
        base.model, base.tokenizer, PROMPTS[:7], options, positions=256, device=CPU, batch_size=3, on_done=counts.append
    )
    assert counts == [3, 6, 7]


def test_no_prompt_is_no_completion(base: Base) -> None:
    assert run(base, []) == []


def test_weights_that_are_not_numbers_are_an_error_and_no_text(base: Base) -> None:
    model = chain_model(base.tokenizer, {})
    model.lm_head.weight.data[3, 5] = math.nan
    with pytest.raises(ModelError, match="not numbers"):
        complete(model, base.tokenizer, ["a"], GenerationSection(max_new_tokens=3), positions=64, device=CPU)
