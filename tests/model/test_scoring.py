"""Scores are sums over completion tokens: no figure depends on how rows are batched or padded."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import tiny_rows

from peft_instruct.data.templates import PLAIN
from peft_instruct.data.tokens import tokenize
from peft_instruct.data.types import IGNORED_LABEL, PromptCompletion, Tokens
from peft_instruct.environment import HubState
from peft_instruct.model import scoring
from peft_instruct.model.base import Base, load_base
from peft_instruct.model.device import choose_compute
from peft_instruct.model.location import locate
from peft_instruct.model.scoring import padded, score, score_rows
from peft_instruct.recipe.model_section import ModelSection

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def base(tiny_base_folder: Path) -> Base:
    location = locate(str(tiny_base_folder), "main", HubState(False))
    return load_base(ModelSection(base=str(tiny_base_folder)), location, choose_compute("cpu", "fp32"))


@pytest.fixture(scope="module")
def rows(base: Base) -> list[Tokens]:
    """Rows of many lengths."""
    pairs = [
        PromptCompletion(PLAIN.prompt(row["instruction"], row["input"]), row["output"] * (1 + number % 5), str(number))
        for number, row in enumerate(tiny_rows()[:40])
    ]
    kept, _ = tokenize(pairs, base.tokenizer, max_length=128)
    assert len({len(tokens.input_ids) for tokens in kept}) > 10
    return kept


def _score(base: Base, rows: list[Tokens], **options: Any) -> Any:
    return score(base.model, rows, pad_id=base.tokenizer.pad_token_id, device=CPU, **options)


def test_the_score_is_the_hand_written_cross_entropy_of_each_row(base: Base, rows: list[Tokens]) -> None:
    nats, num_tokens, num_correct = 0.0, 0, 0
    with torch.no_grad():
        for tokens in rows:
            logits = base.model.eval()(input_ids=torch.tensor([tokens.input_ids])).logits[0].double()
            log_probabilities = logits.log_softmax(-1)
            for position, label in enumerate(tokens.labels[1:]):
                if label != IGNORED_LABEL:
                    nats -= float(log_probabilities[position, label])
                    num_tokens += 1
                    num_correct += int(logits[position].argmax() == label)
    scores = _score(base, rows)
    assert scores.num_tokens == num_tokens
    assert scores.num_correct == num_correct
    # fp32 log-probabilities of a few nats each, summed: relative rounding of about 1e-6.
    assert scores.nats == pytest.approx(nats, rel=1e-5)


def test_rows_are_scored_one_by_one_in_their_order(base: Base, rows: list[Tokens]) -> None:
    """Each against its own softmax: loss, P(stop) where it ends, the token that the model holds most against."""
    stop = base.tokenizer.eos_token_id
    cut = [replace(rows[0], input_ids=rows[0].input_ids[:-1], labels=rows[0].labels[:-1])]
    found = score_rows(base.model, [*rows, *cut], pad_id=stop, stop_id=stop, device=CPU, batch_size=5)
    for tokens, scores in zip([*rows, *cut], found, strict=True):
        with torch.no_grad():
            logits = base.model.eval()(input_ids=torch.tensor([tokens.input_ids])).logits[0].double()
        probabilities = logits[tokens.prompt_length - 1 : -1].softmax(-1)
        own = torch.tensor(tokens.labels[tokens.prompt_length :])
        assert scores.nats == pytest.approx(float(-probabilities[range(len(own)), own].log().sum()), rel=1e-5)
        is_cut = tokens.labels[-1] != stop
        assert scores.num_stops == (0 if is_cut else 1)
        expected = None if is_cut else pytest.approx(float(probabilities[-1, stop]), rel=1e-4)
        assert scores.stop_probability == expected
        ratios = probabilities[range(len(own)), own] / probabilities.max(-1).values
        assert scores.margin == pytest.approx(float(ratios.min().log()), rel=1e-4, abs=1e-6)
        assert scores.margin <= 0
    whole = score(base.model, [*rows, *cut], pad_id=stop, stop_id=stop, device=CPU, batch_size=3)
    assert whole.stop_probability == pytest.approx(sum(s.stop_mass for s in found) / len(rows), rel=1e-5)
    assert found[-1].num_tokens == found[0].num_tokens - 1


def test_the_head_is_computed_for_learned_tokens_alone(base: Base, rows: list[Tokens]) -> None:
    computed: list[int] = []
    head = base.model.get_output_embeddings()
    hook = head.register_forward_hook(lambda _, inputs, logits: computed.append(len(logits)))
    try:
        scores = _score(base, rows, batch_size=8)
    finally:
        hook.remove()
    assert sum(computed) == scores.num_tokens and len(computed) == len(rows) / 8
    whole = base.model(input_ids=torch.tensor([rows[0].input_ids])).logits
    assert whole.shape[:2] == (1, len(rows[0].input_ids)), "afterwards it is the model's own again"


@pytest.mark.parametrize("batch_size", [2, 3, 8, 64])
def test_no_figure_depends_on_the_batch_size(base: Base, rows: list[Tokens], batch_size: int) -> None:
    one, many = _score(base, rows, batch_size=1), _score(base, rows, batch_size=batch_size)
    assert (many.num_tokens, many.num_correct) == (one.num_tokens, one.num_correct)
    # Padding changes the shape of the matrix products and with it their rounding, nothing else.
    assert many.loss == pytest.approx(one.loss, rel=1e-6)


def test_no_figure_depends_on_the_order_of_rows(base: Base, rows: list[Tokens]) -> None:
    assert _score(base, rows[::-1]).loss == pytest.approx(_score(base, rows).loss, rel=1e-6)


def test_scores_of_parts_add_up(base: Base, rows: list[Tokens]) -> None:
    parts = [_score(base, rows[:13]), _score(base, rows[13:])]
    whole = _score(base, rows)
    assert sum(part.num_tokens for part in parts) == whole.num_tokens
    assert sum(part.nats for part in parts) == pytest.approx(whole.nats, rel=1e-6)


def test_a_model_that_knows_nothing_scores_the_logarithm_of_its_vocabulary(base: Base, rows: list[Tokens]) -> None:
    from copy import deepcopy

    model = deepcopy(base.model)
    with torch.no_grad():
        model.transformer.wte.weight.zero_()  # the head is the same matrix: every logit is 0
    scores = score(model, rows, pad_id=0, stop_id=base.tokenizer.eos_token_id, device=CPU)
    assert scores.loss == pytest.approx(math.log(512), rel=1e-6)
    assert scores.stop_probability == pytest.approx(1 / 512, rel=1e-5)
    assert scores.perplexity == pytest.approx(512, rel=1e-5)


def test_the_pad_token_is_scored_where_it_is_the_stop_token(base: Base) -> None:
    """Padding is masked by position, never by id."""
    assert base.tokenizer.pad_token_id == base.tokenizer.eos_token_id
    pairs = [PromptCompletion("a\n", "b", "1"), PromptCompletion("a\n", "b" * 30, "2")]
    kept, _ = tokenize(pairs, base.tokenizer, max_length=128)
    _, mask_BT, labels_BT = padded(kept, base.tokenizer.pad_token_id, CPU)
    assert (labels_BT == base.tokenizer.eos_token_id).sum(-1).tolist() == [1, 1]
    assert mask_BT.sum(-1).tolist() == [len(tokens.input_ids) for tokens in kept]
    assert _score(base, kept).num_tokens == sum(sum(label != IGNORED_LABEL for label in row.labels) for row in kept)


def test_padding_stands_on_the_right_and_teaches_nothing() -> None:
    rows = [Tokens((1, 2, 3), (-100, 2, 3), 1, "a"), Tokens((4,), (4,), 0, "b")]
    input_ids_BT, mask_BT, labels_BT = padded(rows, 9, CPU)
    assert input_ids_BT.tolist() == [[1, 2, 3], [4, 9, 9]]
    assert mask_BT.tolist() == [[1, 1, 1], [1, 0, 0]]
    assert labels_BT.tolist() == [[-100, 2, 3], [4, -100, -100]]


def test_scoring_leaves_the_model_in_the_mode_it_was_in(base: Base, rows: list[Tokens]) -> None:
    base.model.train()
    first = _score(base, rows).loss
    assert base.model.training
    base.model.eval()
    assert _score(base, rows).loss == first, "dropout plays no part"


def test_no_rows_have_no_loss(base: Base) -> None:
    scores = _score(base, [])
    assert scores.num_tokens == 0
    assert math.isnan(scores.loss) and math.isnan(scores.token_accuracy)


def test_a_pass_holds_few_logits_at_once(base: Base, rows: list[Tokens], monkeypatch: pytest.MonkeyPatch) -> None:
    """Logits are the largest thing of a pass; how many stand there together is no part of the result."""
    computed: list[int] = []
    whole = _score(base, rows, batch_size=8)
    monkeypatch.setattr(scoring, "MOST_LEARNED", 50)
    hook = base.model.get_output_embeddings().register_forward_hook(
        lambda _, inputs, logits: computed.append(len(logits))
    )
    try:
        parts = _score(base, rows, batch_size=8)
    finally:
        hook.remove()
    longest = max(sum(label != IGNORED_LABEL for label in row.labels) for row in rows)
    assert sum(computed) == parts.num_tokens == whole.num_tokens
    assert max(computed) <= max(50, longest) and len(computed) > len(rows) / 8
    assert parts.loss == pytest.approx(whole.loss, rel=1e-6)
