"""Rows one after another against padded rows: the same loss and the same gradients."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations, islice, pairwise
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_speed import FP32, learned_adapter, loss_and_gradients, relative_difference
from transformers import GPT2Config, GPT2LMHeadModel, GPTNeoXConfig, GPTNeoXForCausalLM, LlamaConfig, LlamaForCausalLM

from peft_instruct.model import joined_rows, kernels, row_attention
from peft_instruct.model.joined_rows import Kind, join_rows
from peft_instruct.training.completion_head import are_plain_rows

SIZES = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
MODELS = {
    "gpt2": lambda: GPT2LMHeadModel(GPT2Config(vocab_size=64, n_embd=32, n_layer=2, n_head=4, n_positions=64)),
    "gpt_neox": lambda: GPTNeoXForCausalLM(GPTNeoXConfig(vocab_size=64, max_position_embeddings=64, **SIZES)),
    "llama, two queries per key": lambda: LlamaForCausalLM(
        LlamaConfig(vocab_size=64, num_key_value_heads=2, max_position_embeddings=64, **SIZES)
    ),
}
LENGTHS = (9, 4, 21, 5, 7)
APART = (Kind((0, 1, 2, 3, 4), 0),)
SHARED = {
    "nothing shared": APART,
    "all share": (Kind((0, 1, 2, 3, 4), 3),),
    "two kinds": (Kind((3, 0), 4), Kind((1, 2, 4), 3)),
    "one of two kinds": (Kind((1, 3, 0), 2), Kind((4, 2), 0)),
}


def batch(kinds: Sequence[Kind]) -> tuple[torch.Tensor, torch.Tensor]:
    """ids and mask (5, 21), the rows of a kind beginning with the same tokens."""
    torch.manual_seed(1)
    ids = torch.randint(1, 64, (len(LENGTHS), max(LENGTHS)))
    for kind in kinds:
        ids[list(kind.rows), : kind.num_shared] = ids[kind.rows[0], : kind.num_shared]
    mask = (torch.arange(max(LENGTHS)) < torch.tensor(LENGTHS)[:, None]).long()
    return ids * mask, mask


def cut_everywhere(rows: Sequence[tuple[int, ...]]) -> Iterator[list[Sequence[tuple[int, ...]]]]:
    """Every way to cut a sequence into pieces."""
    for count in range(len(rows)):
        for cuts in combinations(range(1, len(rows)), count):
            yield [rows[start:end] for start, end in pairwise((0, *cuts, len(rows)))]


@given(st.lists(st.lists(st.integers(0, 1), max_size=9).map(tuple), min_size=1, max_size=8), st.integers(0, 6))
def test_kinds_spare_the_most_of_all_ways_to_cut_rows_in_their_order(
    beginnings: list[tuple[int, ...]], least: int
) -> None:
    def spared(num_rows: int, shared: int) -> int:
        return (num_rows - 1) * shared - least if num_rows > 1 and shared else 0

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(joined_rows, "LEAST_SPARED", least)
        kinds = joined_rows.kinds_of(beginnings)
    assert sorted(row for kind in kinds for row in kind.rows) == list(range(len(beginnings)))
    for kind in kinds:
        assert len({beginnings[row][: kind.num_shared] for row in kind.rows}) == 1 or not kind.num_shared
    best = max(
        sum(spared(len(rows), joined_rows.num_in_common(rows)) for rows in parted)
        for parted in cut_everywhere(sorted(beginnings))
    )
    assert sum(spared(len(kind.rows), kind.num_shared) for kind in kinds) == best


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["widths as they are", "widths filled up"])
@pytest.mark.parametrize(
    "blocks",
    [(32, 128, 384, 1 << 16), (4, 8, 10, 1), (4, 8, 10, 200)],
    ids=["all at a time", "a row at a time, in blocks, some of them computed twice", "two at a time"],
)
@pytest.mark.parametrize("shared", SHARED)
@pytest.mark.parametrize("name", MODELS)
def test_every_family_computes_of_joined_rows_what_it_computes_of_padded_ones(
    name: str,
    shared: str,
    blocks: tuple[int, int, int, int],
    dtype: torch.dtype,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    multiple, queries, longest_kept, most_scores = blocks
    monkeypatch.setattr(joined_rows, "MULTIPLE", multiple)
    monkeypatch.setattr(joined_rows, "QUERIES", queries)
    monkeypatch.setattr(row_attention, "LONGEST_KEPT", longest_kept)
    monkeypatch.setattr(joined_rows, "MOST_SCORES", most_scores)
    torch.manual_seed(0)
    model = MODELS[name]().eval()
    kernels.use_fast_kernels(model)
    kinds = SHARED[shared]
    ids, mask = batch(kinds)
    weights = torch.randn(*ids.shape, 32)
    rows = join_rows(ids, mask, kinds, dtype)
    num_computed = sum(LENGTHS) - sum((len(kind.rows) - 1) * kind.num_shared for kind in kinds)
    assert rows.ids.shape[1] == num_computed + -num_computed % multiple
    found = []
    for joined in (True, False):
        model.zero_grad()
        if joined:
            given = {"input_ids": rows.ids, "position_ids": rows.positions, "joined_rows": rows}
            four_dimensions = torch.ones(1, 1, 1, 1, dtype=torch.bool)
            hidden = model.base_model(**given, attention_mask=four_dimensions, use_cache=False).last_hidden_state
            hidden = hidden[0][rows.token]
        else:
            hidden = model.base_model(input_ids=ids, attention_mask=mask).last_hidden_state
        (hidden * weights * mask[..., None]).sum().backward()
        gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
        found.append((hidden.detach() * mask[..., None], gradients))
    torch.testing.assert_close(found[0][0], found[1][0], rtol=1e-5, atol=1e-5)
    assert relative_difference(found[1][1], found[0][1]) <= 1e-5
    assert rows.num_calls == [2]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["widths as they are", "widths filled up"])
@pytest.mark.parametrize("dropout", [0.0, 0.4])
@pytest.mark.parametrize("kinds", [((5, 0),), ((5, 3),), ((3, 3), (2, 2))])
def test_the_gradients_of_attention_are_its_derivatives(
    kinds: tuple[tuple[int, int], ...], dropout: float, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(joined_rows, "MULTIPLE", 2)
    monkeypatch.setattr(joined_rows, "QUERIES", 4)
    monkeypatch.setattr(row_attention, "LONGEST_KEPT", 6)
    monkeypatch.setattr(joined_rows, "MOST_SCORES", 60)  # the row of 9 alone, the others together
    mask = (torch.arange(9) < torch.tensor([5, 9, 4, 4, 6])[:, None]).long()
    numbers = iter(range(5))
    parted = [Kind(tuple(islice(numbers, count)), shared) for count, shared in kinds]
    rows = join_rows(torch.ones_like(mask), mask, parted, dtype)
    torch.manual_seed(0)
    shape = (2, rows.ids.shape[1], 3)
    states = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for _ in range(3)]

    def attention(*states: torch.Tensor) -> torch.Tensor:
        torch.manual_seed(1)  # the same weights are dropped every time
        return row_attention.attention_of_joined_rows(*states, rows, dropout, None)

    assert torch.autograd.gradcheck(attention, states)
    if dropout:
        kept = attention(*states).detach()
        assert not torch.allclose(kept, row_attention.attention_of_joined_rows(*states, rows, 0.0, None))


@pytest.mark.parametrize(
    ("shared", "own", "num_states"),
    [
        (40, 4, 40 + 8 * 4 + 40),  # the sequence, and its beginning by itself; not 8 (40 + 4)
        (4, 40, 4 + 8 * (4 + 40)),  # side by side, and no sequence beside them
    ],
    ids=["a long beginning of short rows", "a short one of long rows"],
)
def test_what_backward_keeps_is_bounded_by_the_tokens(shared: int, own: int, num_states: int) -> None:
    ids = torch.ones(8, shared + own, dtype=torch.long)
    rows = join_rows(ids, ids, (Kind(tuple(range(8)), shared),), torch.float32)
    query, key, value = (torch.randn(1, rows.ids.shape[1], 128, requires_grad=True) for _ in range(3))
    kept: list[int] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda each: kept.append(each.numel()) or each, lambda each: each):
        row_attention.attention_of_joined_rows(query, key, value, rows, 0.0, None)
    weights = shared * shared + 8 * own * (shared + own)
    assert sum(kept) - weights <= 3 * 128 * (num_states + joined_rows.MULTIPLE)


@pytest.mark.parametrize("method", ["lora", "full"])
@pytest.mark.parametrize(
    "settings",
    [(), ("speed.shared_preamble=false",), ("training.gradient_checkpointing=true",), ("speed.lora_product=false",)],
    ids=["as it is", "nothing shared", "activations recomputed", "PEFT's own layers"],
)
def test_a_step_has_the_loss_and_the_gradients_of_padded_rows(
    make_trainer: Any, method: str, settings: tuple[str, ...]
) -> None:
    given = (f"method.kind={method}", *FP32, *settings)
    padded = learned_adapter(make_trainer(*given, "speed.joined_rows=false"))
    joined = learned_adapter(make_trainer(*given, "speed.joined_rows=true"))
    rows = padded.data_collator([padded.train_dataset[place] for place in (0, 7, 11, 2, 30)])
    assert not rows["attention_mask"].all(), "of several lengths"
    loss, gradients = loss_and_gradients(joined, rows)
    plain_loss, plain_gradients = loss_and_gradients(padded, rows)
    assert loss == pytest.approx(plain_loss, rel=1e-5)
    assert relative_difference(plain_gradients, gradients) <= 1e-5


def test_what_cannot_be_joined_is_padded(make_trainer: Any) -> None:
    model = make_trainer(*FP32).model
    model = getattr(model, "get_base_model", lambda: model)()
    ids, mask = batch(APART)
    assert are_plain_rows(model, {"input_ids": ids, "attention_mask": mask})
    assert not are_plain_rows(model, {"input_ids": ids, "attention_mask": mask.flip(1)}), "padded on the left"
    assert not are_plain_rows(model, {"input_ids": ids, "attention_mask": mask, "position_ids": ids}), "packed already"


def test_with_an_attention_that_is_not_ours_rows_are_padded(make_trainer: Any) -> None:
    """Joined, such a model would not be told where rows begin, which is an error (see below)."""
    trainer = make_trainer(*FP32)
    rows = trainer.data_collator([trainer.train_dataset[place] for place in (0, 7, 11)])
    joined, _ = loss_and_gradients(trainer, rows)
    plain = make_trainer(*FP32, "model.kernels=plain")
    assert plain.model.config._attn_implementation == "sdpa"
    padded, _ = loss_and_gradients(plain, rows)
    assert padded == pytest.approx(joined, rel=1e-5)


def test_a_model_that_does_not_tell_its_attention_is_found_out(make_trainer: Any, monkeypatch: Any) -> None:
    trainer = make_trainer(*FP32, "speed.joined_rows=true")
    rows = next(iter(trainer.get_train_dataloader()))
    inner = getattr(trainer.model, "get_base_model", lambda: trainer.model)().base_model
    plain = inner.forward
    monkeypatch.setattr(inner, "forward", lambda *args, joined_rows=None, **kwargs: plain(*args, **kwargs))
    with pytest.raises(RuntimeError, match="was not told where rows begin"):
        loss_and_gradients(trainer, rows)
