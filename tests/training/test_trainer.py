"""What SFTTrainer computes with our labels, our collator and our head on the learned positions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from trl import SFTTrainer

from peft_instruct.data.types import IGNORED_LABEL, Tokens
from peft_instruct.model.scoring import score
from peft_instruct.training import trainer as trainer_room
from peft_instruct.training.collator import CompletionOnlyCollator
from peft_instruct.training.trainer import CompletionTrainer


def adapter_weights(trainer: CompletionTrainer) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in trainer.model.named_parameters() if p.requires_grad}


def largest_difference(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    assert one.keys() == other.keys() and one
    return max(float((one[name] - other[name]).abs().max()) for name in one)


def gradients(trainer: Any, compute_loss: Any, batch: dict[str, Any]) -> tuple[float, dict[str, torch.Tensor]]:
    trainer.model.zero_grad()
    trainer.model.train()
    loss = compute_loss(trainer.model, dict(batch), num_items_in_batch=torch.tensor(40))
    loss.backward()
    return float(loss.detach()), {n: p.grad.clone() for n, p in trainer.model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("joined", ["true", "false"])
def test_a_batch_is_not_filled_up_beyond_the_positions(make_trainer: Any, tmp_path: Path, joined: str) -> None:
    """GPT-2 looks its positions up in a table, which ends there: on CUDA the process would."""
    texts = tmp_path / "texts.jsonl"
    texts.write_text("".join(f'{{"text": "{f"one two {n} " * 80}"}}\n' for n in range(8)), encoding="utf-8")
    trainer = make_trainer(
        "model.init=random", "model.architecture.layers=1", "model.architecture.width=8", "model.architecture.heads=1",
        "model.architecture.positions=50", "method.kind=full", f"data.train={texts}", "data.format=text",
        "data.max_length=50", "data.overlong=truncate", f"speed.joined_rows={joined}", "training.max_steps=1",
    )  # fmt: skip
    widths = {batch["input_ids"].shape[1] for batch in trainer.get_train_dataloader()}
    assert widths == {50}
    trainer.train()


def test_the_only_step_of_a_run_is_no_warmup(make_trainer: Any) -> None:
    """A share of one step, rounded up, would be all of it, at a learning rate of 0."""
    trainer = make_trainer("training.max_steps=1", "training.warmup=0.03")
    before = adapter_weights(trainer)
    trainer.train()
    assert largest_difference(adapter_weights(trainer), before) > 0


@pytest.mark.parametrize("method", ["lora", "full"])
def test_the_head_on_learned_positions_gives_the_loss_and_gradients_of_trl(make_trainer: Any, method: str) -> None:
    """fp32, the same sum over the same positions: only the order of additions differs, so 1e-5 relative."""
    from trl.trainer.utils import add_fused_lm_head

    trainer = make_trainer(f"method.kind={method}", "training.max_steps=1")
    batch = next(iter(trainer.get_train_dataloader()))
    loss, ours = gradients(trainer, trainer.compute_loss, batch)
    causal_lm = trainer.model.get_base_model() if method == "lora" else trainer.model
    del causal_lm.forward
    add_fused_lm_head(causal_lm, outputs=("log_probs", "entropy", "is_top1"))
    trl_loss, theirs = gradients(trainer, lambda *a, **k: SFTTrainer.compute_loss(trainer, *a, **k), batch)
    assert loss == pytest.approx(trl_loss, rel=1e-5)
    scale = max(float(g.abs().max()) for g in theirs.values())
    assert largest_difference(ours, theirs) <= 1e-5 * scale
    assert scale > 0


def test_the_loss_is_the_cross_entropy_of_the_completion_alone(make_trainer: Any) -> None:
    """Against the definition, written out: mean over the labels that are not -100, shifted by one."""
    trainer = make_trainer("training.max_steps=1")
    batch = next(iter(trainer.get_train_dataloader()))
    trainer.model.eval()
    with torch.no_grad():
        ours = float(trainer.compute_loss(trainer.model, dict(batch)))
        logits = trainer.model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    by_hand = torch.nn.functional.cross_entropy(
        logits[:, :-1].flatten(0, 1), batch["labels"][:, 1:].flatten(), ignore_index=IGNORED_LABEL
    )
    assert ours == pytest.approx(float(by_hand), rel=1e-5)


def test_of_whole_texts_the_first_token_is_no_part_of_the_mean(make_trainer: Any, tmp_path: Path) -> None:
    """Nothing predicts it. transformers counts it for GPT-2, whose class has another name than Llama's."""
    texts = tmp_path / "texts.jsonl"
    texts.write_text("".join(f'{{"text": "one two {n}"}}\n' for n in range(8)), encoding="utf-8")
    trainer = make_trainer(
        f"data.train={texts}", "data.format=text", "training.batch_size=8",
        "training.accumulation=1", "training.max_steps=1", "training.log_every=1", "model.dropout=0",
    )  # fmt: skip
    trainer.validation_rows = trainer.train_rows
    loss = trainer.evaluate()["eval_loss"]
    trainer.train()
    logged = next(log["loss"] for log in trainer.state.log_history if "loss" in log)
    assert logged == pytest.approx(loss, rel=1e-5)


def test_a_batch_of_four_equals_four_accumulated_batches_of_one(make_trainer: Any, tmp_path: Path) -> None:
    """Tokens, not rows, weigh the loss; after 3 steps the adapters differ by rounding only (AdamW's first steps are
    sign-like, so a gradient near 0 could amplify it: SGD shows the gradients themselves)."""
    shared = ("training.max_steps=3", "training.optimizer=sgd", "training.learning_rate=0.1", "training.log_every=1")
    one = make_trainer("training.batch_size=4", *shared, folder=tmp_path / "a")
    before = adapter_weights(one)
    one.train()
    four = make_trainer("training.batch_size=1", "training.accumulation=4", *shared, folder=tmp_path / "b")
    four.train()
    assert largest_difference(adapter_weights(one), before) > 1e-3
    assert largest_difference(adapter_weights(one), adapter_weights(four)) <= 1e-6
    losses = [[log["loss"] for log in t.state.log_history if "loss" in log] for t in (one, four)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)


def test_the_validation_loss_is_the_same_for_every_batch_size(make_trainer: Any) -> None:
    """Padding and order of summation are all that differ: 1e-6 relative. transformers' own mean of means differs."""
    losses, stops = [], []
    for size in (1, 2, 8):
        trainer = make_trainer(f"training.batch_size={size}")
        found = trainer.evaluate()
        losses.append(found["eval_loss"])
        stops.append(found["eval_stop_probability"])
    assert losses == pytest.approx([losses[0]] * 3, rel=1e-6)
    assert stops == pytest.approx([stops[0]] * 3, rel=1e-5)
    assert 0 < stops[0] < 1


def test_rows_that_do_not_fit_together_are_validated_fewer_at_a_time(
    make_trainer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = make_trainer("training.batch_size=8").evaluate()
    sizes: list[int] = []

    def scored(*args: Any, batch_size: int, **kwargs: Any) -> Any:
        sizes.append(batch_size)
        if batch_size > 2:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return score(*args, batch_size=batch_size, **kwargs)

    monkeypatch.setattr(trainer_room, "score", scored)
    trainer = make_trainer("training.batch_size=8")
    found = trainer.evaluate()
    assert sizes == [8, 4, 2]
    assert found["eval_loss"] == pytest.approx(whole["eval_loss"], rel=1e-6)
    # Training found out already.
    trainer.rows_at_once = 1
    trainer.evaluate()
    assert sizes[3:] == [1]


def test_training_is_repeatable_bit_for_bit_with_dropout(make_trainer: Any, tmp_path: Path) -> None:
    overrides = ("training.max_steps=3", "model.dropout=0.1", "method.dropout=0.1")
    runs = []
    for name in ("a", "b"):
        trainer = make_trainer(*overrides, folder=tmp_path / name)
        trainer.train()
        runs.append(adapter_weights(trainer))
    assert largest_difference(*runs) == 0


def test_early_stopping_hands_over_the_best_weights(make_trainer: Any) -> None:
    """A rate that worsens the loss after a few steps: training ends early and the best evaluation is what is left."""
    trainer = make_trainer(
        "training.max_steps=60", "training.learning_rate=0.3", "training.evaluate_every=2", "training.warmup=0",
        "training.schedule=constant", "training.early_stopping={patience: 2}",
    )  # fmt: skip
    said: list[str] = []
    trainer.say = said.append
    trainer.learn()
    losses = [log["eval_loss"] for log in trainer.state.log_history if "eval_loss" in log]
    assert (done := trainer.state.global_step) < 60
    assert [line for line in said if line.startswith(f"early stopping: {done} of 60 steps")]
    assert f"the weights are those of step {2 * (1 + losses.index(min(losses)))}, of the lowest validation loss" in said
    assert min(losses) < losses[-1]
    assert trainer.evaluate()["eval_loss"] == pytest.approx(min(losses), rel=1e-6)


def test_quantised_training_survives_an_evaluation_and_every_gradient_is_there(make_trainer: Any) -> None:
    """bitsandbytes 0.50 repacks 4-bit weights in the first evaluation on some CPUs; no gradient came after it."""
    trainer = make_trainer(
        "model.quantization=nf4",
        "training.precision=bf16",
        "training.max_steps=3", "training.evaluate_every=1",
        "training.warmup=0",
    )  # fmt: skip
    trainer.evaluate()
    before = adapter_weights(trainer)
    trainer.train()
    moved = [name for name, p in trainer.model.named_parameters() if p.requires_grad and not p.equal(before[name])]
    assert len(moved) == len(before)
    assert all(p.dtype == torch.float32 for p in trainer.model.parameters() if p.requires_grad)


def test_the_released_model_has_no_forward_of_the_trainer(make_trainer: Any) -> None:
    """accelerate leaves autocast around the model for good; logits would stay bf16."""
    trainer = make_trainer("training.precision=bf16", "training.max_steps=1", "speed.frozen_weights=fp32")
    batch = next(iter(trainer.get_train_dataloader()))
    trainer.train()
    ids = batch["input_ids"][:1]
    trainer.release_model()
    trainer.model.eval()
    with torch.no_grad():
        plain = trainer.model(input_ids=ids).logits
    assert plain.dtype == torch.float32
    assert not plain.equal(plain.bfloat16().float())
    for module in (trainer.model, trainer.model.get_base_model()):
        assert "forward" not in vars(module)


@pytest.mark.parametrize(
    ("ids", "labels", "prompt_length"),
    [([1, 2, 3], [-100, 2, 3], 2), ([1, 2, 3], [-100, -100, -100], 3), ([1, 2, 3], [-100, 3, 3], 1)],
)
def test_the_collator_refuses_labels_that_break_the_mask_contract(
    ids: list[int], labels: list[int], prompt_length: int
) -> None:
    collator = CompletionOnlyCollator(pad_token_id=0)
    with pytest.raises(ValueError):
        collator([{"input_ids": ids, "labels": labels, "prompt_length": prompt_length}])


def test_padding_is_masked_by_position_where_pad_is_the_stop_token() -> None:
    """The row's own stop token stays supervised and attended, although padding has the same id."""
    stop = 7
    rows = [Tokens((1, 2, 3, stop), (-100, -100, 3, stop), 2, "a"), Tokens((1, stop), (-100, stop), 1, "b")]
    batch = CompletionOnlyCollator(pad_token_id=stop)(
        [{"input_ids": list(r.input_ids), "labels": list(r.labels), "prompt_length": r.prompt_length} for r in rows]
    )
    assert batch["labels"].tolist() == [[-100, -100, 3, stop], [-100, stop, -100, -100]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 1], [1, 1, 0, 0]]
