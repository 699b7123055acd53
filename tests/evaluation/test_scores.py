"""Scores: equal for every batch size, equal to arithmetic by hand, each with the rows it was measured on."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from rigged import chain_model, chain_of
from tiny import tiny_rows

from peft_instruct.data.templates import ALPACA
from peft_instruct.data.tokens import prompt_ids
from peft_instruct.data.types import Example, PromptCompletion
from peft_instruct.data.units import text_ids
from peft_instruct.errors import DatasetError, ModelError
from peft_instruct.evaluation.scores import Scores, evaluate_rows, evenly, is_exact_match
from peft_instruct.inference.complete import complete
from peft_instruct.model.base import Base, load_base
from peft_instruct.model.device import choose_compute
from peft_instruct.model.location import Location
from peft_instruct.recipe.data_section import DataSection
from peft_instruct.recipe.model_section import ModelSection
from peft_instruct.recipe.schema import GenerationSection

CPU = torch.device("cpu")
ROWS = [ALPACA.render(Example(r["instruction"], r["input"], r["output"], f"row {n}"))
        for n, r in enumerate(tiny_rows()[::3])]  # fmt: skip


@pytest.fixture(scope="module")
def base(tiny_base_folder: Path) -> Base:
    location = Location(str(tiny_base_folder), tiny_base_folder)
    return load_base(ModelSection(base=str(tiny_base_folder)), location, choose_compute("cpu", "fp32"))


def row(prompt: str, completion: str, group: str = "", accepted: tuple[str, ...] = ()) -> PromptCompletion:
    return PromptCompletion(prompt, completion, f"at {prompt}", accepted=accepted, group=group)


def measure(model: Any, tokenizer: Any, rows: list[PromptCompletion], complete: Any = None, **given: Any) -> Scores:
    options = {"batch_size": 4, "generate_rows": 0} | {
        k: given.pop(k) for k in ("batch_size", "generate_rows") if k in given
    }
    data = DataSection(train="rows.json", **{"max_length": 160, **given})
    return evaluate_rows(model, tokenizer, rows, complete=complete, data=data, device=CPU, **options)


def by_hand(model: Any, tokenizer: Any, rows: list[PromptCompletion]) -> tuple[float, float]:
    """Loss and accuracy from one forward pass a row and the definition of cross-entropy."""
    nats, correct, count = 0.0, 0, 0
    for each in rows:
        (prompt,), (completion,) = prompt_ids(tokenizer, [each.prompt]), text_ids(tokenizer, [each.completion])
        ids = [*prompt, *completion, tokenizer.eos_token_id]
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0].double()
        for position in range(len(prompt), len(ids)):
            before = logits[position - 1]
            nats -= float(before[ids[position]] - before.exp().sum().log())
            correct += int(before.argmax()) == ids[position]
            count += 1
    return nats / count, correct / count


def test_the_loss_is_the_same_for_every_batch_size_and_equals_cross_entropy_by_hand(base: Base) -> None:
    loss, accuracy = by_hand(base.model, base.tokenizer, ROWS)
    for batch_size in (1, 2, 8):
        scores = measure(base.model, base.tokenizer, ROWS, batch_size=batch_size)
        # fp32 sums in another order; 1e-5 is a hundred roundings.
        assert scores.loss == pytest.approx(loss, rel=1e-5)
        assert scores.perplexity == pytest.approx(math.exp(loss), rel=1e-4)
        assert scores.token_accuracy == pytest.approx(accuracy, abs=1e-12)
        assert scores.num_rows == len(ROWS)


def test_a_model_that_knows_every_answer_has_its_closed_form(base: Base) -> None:
    tokenizer = base.tokenizer
    model = chain_model(tokenizer, chain_of(tokenizer, "a", "bcd"))
    scores = measure(model, tokenizer, [row("a", "bcd"), row("a", "bca")])
    # Of 4 + 4 tokens, stop tokens included, the model misses the last letter of the second row and the stop after it.
    assert scores.num_tokens == 8
    assert scores.token_accuracy == 6 / 8
    # ln_f turns a one-hot of V entries into `high` at its place and `low` elsewhere; the head adds up, for each
    # token, the entries of those that lead to it.
    size = len(tokenizer)
    deviation = math.sqrt((1 / size) * (1 - 1 / size) + 1e-5)
    high, low = (1 - 1 / size) / deviation, -(1 / size) / deviation
    chain = chain_of(tokenizer, "a", "bcd")
    indegree = torch.zeros(size)
    for token in range(size):
        indegree[chain.get(token, token)] += 1
    a, b, c, d = (tokenizer.convert_tokens_to_ids(letter) for letter in "abcd")
    steps = [(a, b), (b, c), (c, d), (d, tokenizer.eos_token_id), (a, b), (b, c), (c, a), (a, tokenizer.eos_token_id)]
    nats = 0.0
    for last, target in steps:
        logits = indegree.double() * low
        logits[chain[last]] += high - low
        nats += float(logits.logsumexp(0) - logits[target])
    assert scores.loss == pytest.approx(nats / 8, rel=1e-4)


def test_the_share_that_stops_and_matches_is_known_for_a_rigged_model(base: Base) -> None:
    tokenizer = base.tokenizer
    model = chain_model(tokenizer, {**chain_of(tokenizer, "a", "bcd"), **chain_of(tokenizer, "x", "yz", stops=False)})
    rows = [
        row("a", " bcd\n", "stops"),
        row("a", "other", "stops", accepted=("no", "bcd ")),
        row("a", "other", "stops"),
        row("x", "yzyzy", "runs on"),
        row("x", "yzyzy", ""),
    ]

    def completed(prompts: list[str]) -> list[tuple[str, bool]]:
        done = complete(
            model, tokenizer, prompts, GenerationSection(max_new_tokens=5), positions=64, device=CPU, batch_size=2
        )  # fmt: skip
        return [(each.completion, each.stopped) for each in done]

    scores = measure(model, tokenizer, rows, completed, generate_rows=100)
    assert scores.num_completed == 5
    assert scores.stop_share == 3 / 5
    # The stop token follows `d` in the chain and has one logit more than the others; nothing else ends where it should.
    assert scores.stop_probability is not None and 0 < scores.stop_probability < 1
    assert scores.exact_match == 4 / 5
    assert {match.group: (match.num_rows, match.exact_match) for match in scores.groups} == {
        "stops": (3, 2 / 3),
        "runs on": (1, 1.0),
    }
    assert [attempt.is_exact for attempt in scores.attempts] == [True, True, False, True, True]
    assert scores.attempts[0].completion == "bcd"


@pytest.mark.parametrize(
    ("completion", "matches"),
    [
        ("Four", True),
        ("  Four\n", True),
        ("4", True),
        ("4 ", True),
        ("four", False),
        ("Four.", False),
        ("Fo ur", False),
        ("", False),
        ("The answer is Four", False),
    ],
)
def test_an_exact_match_is_letter_for_letter_but_for_the_space_around(completion: str, matches: bool) -> None:
    assert is_exact_match(completion, row("2 + 2?", "Four ", accepted=(" 4",))) is matches


def test_completions_are_of_an_even_selection_and_the_loss_of_all_rows(base: Base) -> None:
    asked: list[str] = []

    def completed(prompts: list[str]) -> list[tuple[str, bool]]:
        asked.extend(prompts)
        return [("", True)] * len(prompts)

    scores = measure(base.model, base.tokenizer, ROWS, completed, generate_rows=5)
    step = len(ROWS) / 5
    assert asked == [ROWS[int(number * step)].prompt for number in range(5)]
    assert (scores.num_rows, scores.num_completed) == (len(ROWS), 5)
    assert scores.loss == measure(base.model, base.tokenizer, ROWS).loss


def test_evenly_takes_from_the_whole_and_never_twice() -> None:
    for length in range(40):
        for count in range(45):
            taken = evenly(range(length), count)
            assert len(taken) == min(count, length)
            assert taken == sorted(set(taken))
            if 0 < count < length:
                gaps = [after - before for before, after in zip(taken, [*taken[1:], length], strict=True)]
                assert max(gaps) - min(gaps) <= 1


def test_nothing_completed_is_no_share_and_plain_text_is_never_completed(base: Base) -> None:
    scores = measure(base.model, base.tokenizer, [row("", "A plain text.")], complete=None, generate_rows=10)
    assert (scores.num_completed, scores.exact_match, scores.stop_share) == (0, None, None)
    assert scores.num_rows == 1


def test_what_the_length_limit_did_is_counted(base: Base) -> None:
    rows = [row("a", "b"), row("long " * 40, "short"), row("a", "long " * 40)]
    truncated = measure(base.model, base.tokenizer, rows, max_length=40)
    assert (truncated.num_rows, truncated.num_truncated, truncated.num_dropped) == (3, 2, 0)
    dropped = measure(base.model, base.tokenizer, rows, max_length=40, overlong="drop")
    assert (dropped.num_rows, dropped.num_truncated, dropped.num_dropped) == (1, 0, 2)
    with pytest.raises(DatasetError, match="at long"):
        measure(base.model, base.tokenizer, rows, max_length=40, overlong="error")


def test_packed_texts_are_measured_to_their_end(base: Base) -> None:
    """As training is on them: no document is too long."""
    texts = [row("", "one two three " * 30), row("", "four")]
    num_tokens = sum(map(len, text_ids(base.tokenizer, [text.completion for text in texts]))) + len(texts)
    packed = measure(base.model, base.tokenizer, texts, max_length=40, overlong="error", format="text", packing=True)
    assert packed.num_rows == -(-num_tokens // 40)
    # The first token of each row is predicted by nothing.
    assert (packed.num_tokens, packed.num_truncated) == (num_tokens - packed.num_rows, 0)


def test_a_model_of_nan_has_no_scores(base: Base) -> None:
    model = chain_model(base.tokenizer, {})
    model.lm_head.weight.data[3, 5] = math.nan
    with pytest.raises(ModelError, match="loss is nan"):
        measure(model, base.tokenizer, ROWS[:1])


def test_the_record_is_json_without_the_attempts(base: Base) -> None:
    scores = measure(base.model, base.tokenizer, [row("a", "b", "letters")], lambda p: [("b", True)], generate_rows=1)
    record = json.loads(json.dumps(scores.record()))
    assert record["groups"] == {"letters": {"num_rows": 1, "exact_match": 1.0}}
    assert record["stop_share"] == 1.0
    assert "attempts" not in record


def test_rows_that_are_left_out_are_not_answered_either(base: Base) -> None:
    asked: list[str] = []

    def completed(prompts: list[str]) -> list[tuple[str, bool]]:
        asked.extend(prompts)
        return [("", True)] * len(prompts)

    rows = [row("a", "b"), row("long " * 40, "short"), row("c", "d")]
    scores = measure(base.model, base.tokenizer, rows, completed, generate_rows=10, max_length=40, overlong="drop")
    assert asked == [rows[0].prompt, rows[2].prompt]
    assert (scores.num_rows, scores.num_dropped, scores.num_completed) == (2, 1, 2)
