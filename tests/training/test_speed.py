"""Every fast path against the plain one: the same loss, the same gradients, and a switch that turns it off."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from peft_instruct.data.types import IGNORED_LABEL
from peft_instruct.model import packed
from peft_instruct.training import completion_head


def loss_and_gradients(trainer: Any, batch: dict[str, Any]) -> tuple[float, dict[str, torch.Tensor]]:
    trainer.model.zero_grad()
    trainer.model.train()
    with torch.autocast("cpu", torch.bfloat16, enabled=trainer.args.bf16):
        loss = trainer.compute_loss(trainer.model, dict(batch), num_items_in_batch=torch.tensor(40))
    loss.backward()
    return float(loss.detach()), {n: p.grad.clone() for n, p in trainer.model.named_parameters() if p.grad is not None}


def relative_difference(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    """Norm of the difference of two gradients over the norm of one, all parameters together."""
    assert one.keys() == other.keys() and one
    difference = sum(float((one[name] - other[name]).square().sum()) for name in one)
    return (difference / sum(float(g.square().sum()) for g in one.values())) ** 0.5


def learned_adapter(trainer: Any) -> Any:
    """Away from LoRA's start, where B is zero and A has no gradient."""
    torch.manual_seed(3)
    for name, weights in trainer.model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weights, std=0.05)
    return trainer


FP32 = ("training.precision=fp32", "training.max_steps=1", "training.batch_size=4", "model.dropout=0")


@pytest.mark.parametrize(
    "off",
    [
        "speed.joined_rows=false",
        "speed.shared_preamble=false",
        "speed.completion_head=false",
        "speed.lora_product=false",
        "speed.packed_weights=false",
        "model.kernels=plain",
    ],
)
@pytest.mark.parametrize("method", ["lora", "full"])
def test_a_fast_path_has_the_loss_and_the_gradients_of_the_plain_one(make_trainer: Any, off: str, method: str) -> None:
    """fp32: the order of additions is all that differs."""
    fast = learned_adapter(make_trainer(f"method.kind={method}", *FP32))
    plain = learned_adapter(make_trainer(f"method.kind={method}", *FP32, off))
    batch = next(iter(fast.get_train_dataloader()))
    loss, gradients = loss_and_gradients(fast, batch)
    plain_loss, plain_gradients = loss_and_gradients(plain, batch)
    assert loss == pytest.approx(plain_loss, rel=1e-5)
    assert relative_difference(plain_gradients, gradients) <= 1e-5


def test_frozen_weights_in_bf16_give_the_gradients_of_autocast_within_its_own_rounding(make_trainer: Any) -> None:
    """The yardstick is what bf16 autocast itself is away from fp32 on the same batch."""
    exact = learned_adapter(make_trainer(*FP32))
    batch = next(iter(exact.get_train_dataloader()))
    bf16 = (*FP32, "training.precision=bf16")
    autocast = learned_adapter(make_trainer(*bf16, "speed.frozen_weights=fp32"))
    held = learned_adapter(make_trainer(*bf16))
    dtypes = {p.dtype for p in held.model.parameters() if not p.requires_grad}
    assert dtypes == {torch.bfloat16}
    assert {p.dtype for p in held.model.parameters() if p.requires_grad} == {torch.float32}
    loss, gradients = loss_and_gradients(exact, batch)
    autocast_loss, autocast_gradients = loss_and_gradients(autocast, batch)
    held_loss, held_gradients = loss_and_gradients(held, batch)
    rounding = relative_difference(gradients, autocast_gradients)
    assert 0 < rounding < 0.05
    assert relative_difference(gradients, held_gradients) <= 2.5 * rounding
    assert held_loss == pytest.approx(loss, rel=2e-3) and autocast_loss == pytest.approx(loss, rel=2e-3)


def test_frozen_weights_are_packed_both_ways_and_learned_ones_never(make_trainer: Any, monkeypatch: Any) -> None:
    if not packed.multiplies_packed(torch.empty(1)):
        pytest.skip("no oneDNN on x86")
    calls: list[int] = []
    plain = packed._pointwise
    monkeypatch.setattr(packed, "_pointwise", lambda *given: calls.append(1) or plain(*given))
    counts = []
    for settings in ((), ("speed.packed_weights=false",), ("method.kind=full",)):
        trainer = learned_adapter(make_trainer(*FP32, *settings))
        calls.clear()
        loss_and_gradients(trainer, next(iter(trainer.get_train_dataloader())))
        counts.append(len(calls))
    adapted = sum(hasattr(module, "lora_A") for module in learned_adapter(make_trainer(*FP32)).model.modules())
    # The first layer's inputs need no gradient; the head is one product forward and one for the gradient.
    assert counts == [2 * adapted - 1 + 2, 0, 0]


def test_a_head_that_is_cast_at_every_step_is_not_packed(make_trainer: Any, monkeypatch: Any) -> None:
    """In fp32 it would stand there twice more, and be multiplied in bf16 all the same."""
    if not packed.multiplies_packed(torch.empty(1)):
        pytest.skip("no oneDNN on x86")
    made: list[int] = []
    plain = packed._reordered
    monkeypatch.setattr(packed, "_reordered", lambda weight: made.append(1) or plain(weight))
    make_trainer("training.precision=bf16", "speed.frozen_weights=fp32")
    assert not made
    make_trainer(*FP32)
    assert len(made) == 2


class Spy:
    """Records how many tokens each batch shared: all of its rows, or those of each kind where rows are joined."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.lengths: list[int] = []
        in_common, kinds_of = completion_head.num_in_common, completion_head.kinds_of

        def spying_on_all(rows: Any) -> int:
            self.lengths.append(in_common(rows))
            return self.lengths[-1]

        def spying_on_kinds(rows: Any) -> Any:
            kinds = kinds_of(rows)
            self.lengths += [kind.num_shared for kind in kinds]
            return kinds

        monkeypatch.setattr(completion_head, "num_in_common", spying_on_all)
        monkeypatch.setattr(completion_head, "kinds_of", spying_on_kinds)


def first_of_each_kind(trainer: Any, count: int) -> dict[str, torch.Tensor]:
    """A batch of so many rows without an input and so many with one."""
    preambles = [tuple(row["input_ids"][:20]) for row in trainer.train_dataset]
    kinds = sorted(set(preambles))
    assert len(kinds) == 2
    places = [place for kind in kinds for place in [i for i, each in enumerate(preambles) if each == kind][:count]]
    return dict(trainer.data_collator([trainer.train_dataset[place] for place in places]))


@pytest.mark.parametrize("joins", [True, False])
def test_the_preamble_is_what_the_rows_of_one_kind_begin_with_and_without_joined_rows_all(
    make_trainer: Any, monkeypatch: Any, joins: bool
) -> None:
    spy = Spy(monkeypatch)
    trainer = make_trainer(*FP32, f"speed.joined_rows={str(joins).lower()}")
    batch = first_of_each_kind(trainer, 5)
    loss_and_gradients(trainer, batch)
    ids, labels = batch["input_ids"], batch["labels"]
    kinds = (slice(0, 5), slice(5, 10)) if joins else (slice(0, 10),)
    same = [(ids[kind] == ids[kind][0]).all(0).int().argmin().item() for kind in kinds]
    assert sorted(spy.lengths) == sorted(same)
    assert (labels[:, : min(spy.lengths)] == IGNORED_LABEL).all()


@pytest.mark.parametrize(
    "noise",
    ["model.dropout=0.1", "method.dropout=0.1", "training.neftune_alpha=5", "training.gradient_checkpointing=true"],
)
def test_rows_with_noise_of_their_own_share_nothing(make_trainer: Any, monkeypatch: Any, noise: str) -> None:
    spy = Spy(monkeypatch)
    overrides = ("training.max_steps=1", "training.batch_size=4", "model.dropout=0", "speed.joined_rows=false")
    trainer = make_trainer(*overrides, noise)
    trainer.train()
    assert not any(spy.lengths)


def test_equal_rows_still_have_a_token_of_their_own(make_trainer: Any, monkeypatch: Any) -> None:
    spy = Spy(monkeypatch)
    trainer = make_trainer(*FP32)
    batch = next(iter(trainer.get_train_dataloader()))
    copies = {name: values[:1].expand(3, -1) for name, values in batch.items() if name != "prompt_length"}
    loss, _ = loss_and_gradients(trainer, copies)
    completion = int((copies["labels"][0] != IGNORED_LABEL).sum())
    assert 0 < spy.lengths[0] <= copies["input_ids"].shape[1] - completion
    assert loss > 0


@pytest.mark.parametrize("joins", [True, False])
def test_a_row_alone_is_one_pass(make_trainer: Any, monkeypatch: Any, joins: bool) -> None:
    spy = Spy(monkeypatch)
    trainer = make_trainer(*FP32, f"speed.joined_rows={str(joins).lower()}")
    batch = next(iter(trainer.get_train_dataloader()))
    loss_and_gradients(trainer, {name: values[:1] for name, values in batch.items() if name != "prompt_length"})
    assert spy.lengths == [0]


@pytest.mark.slow
@pytest.mark.parametrize("method", ["lora", "full"])
def test_training_with_and_without_ends_at_the_same_validation_loss(make_trainer: Any, method: str) -> None:
    """Within the spread of seeds: all fast paths on and off, two seeds each."""
    common = (
        f"method.kind={method}", "training.max_steps=200", "training.batch_size=4", "training.learning_rate=2e-3",
        "model.dropout=0", "training.evaluate_every=never", "training.precision=bf16",
    )  # fmt: skip
    off = (
        "speed.shared_preamble=false", "speed.completion_head=false", "speed.length_buckets=false",
        "speed.frozen_weights=fp32", "speed.lora_product=false", "speed.joined_rows=false",
        "speed.packed_weights=false", "model.kernels=plain",
    )  # fmt: skip
    losses: dict[str, list[float]] = {"fast": [], "plain": []}
    for seed in (1, 2, 3):
        for name, overrides in (("fast", ()), ("plain", off)):
            trainer = make_trainer(*common, f"training.seed={seed}", *overrides)
            start = trainer.evaluate()["eval_loss"]
            trainer.train()
            losses[name].append(trainer.evaluate()["eval_loss"])
            assert losses[name][-1] < 0.7 * start
    spread = max(losses["plain"]) - min(losses["plain"])
    means = [sum(found) / len(found) for found in losses.values()]
    print(losses)
    assert abs(means[0] - means[1]) <= max(spread, 0.02 * means[1])
