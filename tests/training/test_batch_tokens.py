"""Batches by tokens (`training.batch_tokens`) through the Trainer: its steps, its loss, and going on."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import torch
from steady import furthest, trained

from peft_instruct.data.types import IGNORED_LABEL
from peft_instruct.training.checkpoints import checkpoint_folder, verify

BUDGET = 400
SHARED = (f"training.batch_tokens={BUDGET}", "training.accumulation=2", "training.max_steps=null", "training.epochs=2",
          "training.evaluate_every=never", "training.log_every=1")  # fmt: skip


def logged(trainer: Any) -> list[dict[str, Any]]:
    return [log for log in trainer.state.log_history if "loss" in log]


def test_steps_are_known_before_passes_keep_the_budget_and_a_stopped_run_goes_on_exactly(
    make_trainer: Any, tmp_path: Path
) -> None:
    """With dropout, in the middle of the second epoch and of its order of batches."""
    noisy = (*SHARED, "model.dropout=0.1", "method.dropout=0.1", "training.save_every=7")
    whole = make_trainer(*noisy, folder=tmp_path / "whole")
    shapes: list[torch.Size] = []
    whole.model.get_base_model().transformer.register_forward_pre_hook(
        lambda _, args, given: shapes.append(given["joined_rows"].token.shape), with_kwargs=True
    )
    num_batches = len(whole.get_train_dataloader())
    whole.learn()
    assert whole.state.max_steps == whole.state.global_step == 2 * math.ceil(num_batches / 2)
    assert num_batches >= 6 and whole.state.global_step < 4 * 7 / 2
    assert max(rows * width for rows, width in shapes) <= BUDGET
    assert sum(rows for rows, _ in shapes) == 2 * len(whole.train_rows)
    assert logged(whole)[-1]["num_tokens"] == 2 * sum(len(row.input_ids) for row in whole.train_rows)

    again = make_trainer(*noisy, folder=tmp_path / "again")
    stopped = verify(checkpoint_folder(tmp_path / "whole" / "checkpoints", 7))
    again.saving = dataclasses.replace(again.saving, resumed=stopped)
    again.learn()
    assert logged(again) == logged(whole)
    assert furthest(trained(whole.model), trained(again.model)) == 0


def test_the_loss_of_a_step_is_the_mean_over_its_learned_tokens(make_trainer: Any, tmp_path: Path) -> None:
    """SGD moves by rate x gradient, and the gradient is that of the mean written out over the rows of all passes."""
    plain = ("training.max_steps=1", "training.optimizer=sgd", "training.learning_rate=0.1", "training.warmup=0",
             "training.schedule=constant", "training.max_gradient_norm=0", "training.accumulation=3")  # fmt: skip
    trainer = make_trainer(*SHARED, *plain, folder=tmp_path / "a")
    passes = list(trainer.get_train_dataloader())[:3]
    assert len({len(batch["input_ids"]) for batch in passes}) > 1
    reference = make_trainer(*SHARED, *plain, folder=tmp_path / "b")
    reference.release_model()
    num_tokens = sum(int((batch["labels"] != IGNORED_LABEL).sum()) for batch in passes)
    for batch in passes:
        logits = reference.model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        loss = torch.nn.functional.cross_entropy(
            logits[:, :-1].flatten(0, 1), batch["labels"][:, 1:].flatten(), ignore_index=IGNORED_LABEL, reduction="sum"
        )
        (loss / num_tokens).backward()
    expected = {name: p.detach() - 0.1 * p.grad for name, p in reference.model.named_parameters() if p.requires_grad}
    trainer.train()
    assert furthest(trained(trainer.model), expected) <= 1e-6


def test_batches_come_in_the_order_of_the_seed(make_trainer: Any) -> None:
    trainer, orders = make_trainer(*SHARED), []
    for seed in (1, 1, 2):
        trainer.args.seed = seed
        orders.append([batch["input_ids"].tolist() for batch in trainer.get_train_dataloader()])
    assert orders[0] == orders[1] != orders[2]
