"""No number that is not finite reaches a weight or the disk."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from steady import STEADY, furthest, trained
from transformers import TrainerCallback

from peft_instruct.errors import PeftInstructError
from peft_instruct.training.guarded import MOST_SKIPPED_STEPS
from peft_instruct.training.trainer import CompletionTrainer


class Snapshots(TrainerCallback):
    """The trained weights as each optimizer step left them."""

    def __init__(self) -> None:
        self.weights: list[dict[str, torch.Tensor]] = []

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        self.weights.append(trained(model))


def poison(trainer: CompletionTrainer, row: Any) -> None:
    """A token that stands in no row but this one makes NaN of whatever it is in."""
    others = {token for other in trainer.train_rows if other.origin != row.origin for token in other.input_ids}
    mine = [token for token in row.input_ids if token not in others]
    embedding = trainer.model.get_base_model().transformer.wte

    def hook(module: Any, given: Any, out: torch.Tensor) -> torch.Tensor:
        return out.masked_fill((given[0] == mine[0]).unsqueeze(-1), math.nan) if mine else out

    assert mine
    embedding.register_forward_hook(hook)


def row_with_a_token_of_its_own(rows: Any) -> Any:
    counts: dict[int, int] = {}
    for row in rows:
        for token in set(row.input_ids):
            counts[token] = counts.get(token, 0) + 1
    return next(row for row in rows if any(counts[token] == 1 for token in row.input_ids))


@pytest.mark.parametrize("log_every", [1, 1000])
@pytest.mark.parametrize("accumulation", [1, 4])
def test_a_poisoned_row_is_named_and_no_weight_has_moved_since_the_step_before(
    make_trainer: Any, log_every: int, accumulation: int
) -> None:
    snapshots = Snapshots()
    trainer = make_trainer(
        "training.batch_size=2", f"training.accumulation={accumulation}", f"training.log_every={log_every}",
        "training.max_steps=30", *STEADY, callbacks=[snapshots],
    )  # fmt: skip
    row = row_with_a_token_of_its_own(trainer.train_rows)
    start = trained(trainer.model)
    poison(trainer, row)
    with pytest.raises(PeftInstructError) as caught:
        trainer.train()
    told = str(caught.value)
    assert f"the loss is nan at step {len(snapshots.weights) + 1}: the run has diverged" in told
    assert f"Rows: {row.origin}. No checkpoint was saved before." in told
    assert furthest(trained(trainer.model), [start, *snapshots.weights][-1]) == 0
    assert caught.value.exit_code == 1


def test_a_gradient_that_is_not_finite_stops_before_the_step_and_names_every_row_of_it(make_trainer: Any) -> None:
    trainer = make_trainer("training.batch_size=1", "training.accumulation=2", "training.max_steps=3", *STEADY)
    weights = next(p for p in trainer.model.parameters() if p.requires_grad)
    start = trained(trainer.model)
    weights.register_hook(lambda gradient: gradient * math.inf)
    with pytest.raises(PeftInstructError, match=r"the gradient norm is (nan|inf) at step 1: ") as caught:
        trainer.train()
    named = str(caught.value).partition("Rows: ")[2].partition(". No checkpoint")[0]
    assert len(named.split(", ")) == 2
    assert furthest(trained(trainer.model), start) == 0


def test_without_clipping_the_gradient_norm_is_watched_too(make_trainer: Any) -> None:
    trainer = make_trainer("training.max_gradient_norm=0", "training.max_steps=2", *STEADY)
    next(p for p in trainer.model.parameters() if p.requires_grad).register_hook(lambda gradient: gradient * math.nan)
    with pytest.raises(PeftInstructError, match="the gradient norm is nan at step 1"):
        trainer.train()


def test_a_validation_loss_that_is_not_finite_names_its_rows(make_trainer: Any) -> None:
    trainer = make_trainer("training.max_steps=2", "training.evaluate_every=1")
    row = trainer.validation_rows[3]
    score_of = trainer.rows_not_finite([row])
    assert score_of == []
    hidden = set(row.input_ids[-3:])

    def hook(module: Any, given: Any, out: torch.Tensor) -> torch.Tensor:
        ids = given[0]
        is_it = torch.stack([torch.tensor(hidden <= set(r.tolist()) and not trainer.model.training) for r in ids])
        return out.masked_fill(is_it[:, None, None], math.nan)

    trainer.model.get_base_model().transformer.wte.register_forward_hook(hook)
    with pytest.raises(PeftInstructError, match="the validation loss is nan at step 1") as caught:
        trainer.train()
    assert row.origin in str(caught.value)


def test_fp16_may_overflow_now_and_then_but_not_for_ever(make_trainer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = make_trainer("training.max_steps=1")
    object.__setattr__(trainer.args, "fp16", True)
    overflow, fine = torch.tensor(math.inf), torch.tensor(1.0)
    for norm in (*[overflow] * MOST_SKIPPED_STEPS, fine, *[overflow] * MOST_SKIPPED_STEPS):
        assert trainer._get_grad_norm(trainer.model, norm) is norm
    monkeypatch.setattr(trainer, "_get_learning_rate", lambda: 1e-3)
    with pytest.raises(PeftInstructError, match="the gradient norm is inf"):
        trainer._get_grad_norm(trainer.model, overflow)


def test_the_scale_of_fp16_goes_on_where_there_is_one_still(make_trainer: Any, tmp_path: Path) -> None:
    """A run that --resume-allow-changes takes on in another precision has none."""
    before, plain, scaled = (make_trainer("training.max_steps=1") for _ in range(3))
    before.train()
    before.accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    before._save_rng_state(str(tmp_path))
    scaled.accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=1.0)
    for after in (plain, scaled):
        after.create_optimizer_and_scheduler(1)
        after._load_optimizer_and_scheduler(str(tmp_path))
    assert plain.accelerator.scaler is None
    assert scaled.accelerator.scaler.state_dict()["scale"] == 8.0


def values_on_disk(folder: Path) -> Iterator[torch.Tensor]:
    from safetensors.torch import load_file

    for path in folder.rglob("*.safetensors"):
        yield from load_file(str(path)).values()
    for path in folder.rglob("optimizer.pt"):
        state = torch.load(path, weights_only=True)["state"]
        yield from (value for moments in state.values() for value in moments.values() if torch.is_tensor(value))


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_learning_rate_of_1e20_writes_nothing_that_is_not_finite(
    tiny_recipe: Path, tmp_path: Path, optimizer: str
) -> None:
    from peft_instruct.commands.train import train

    overrides = (
        "training.learning_rate=1e20", "training.warmup=0", f"training.optimizer={optimizer}", "training.save_every=1",
        "training.max_gradient_norm=0", "evaluation.rows=0", "samples.count=0", "training.evaluate_every=never",
    )  # fmt: skip
    with pytest.raises(PeftInstructError, match=r"training: .*(the run has diverged|are not finite after step)"):
        train(str(tiny_recipe), overrides, out=tmp_path / "out", say=lambda line: None)
    assert not (tmp_path / "out" / "manifest.json").exists()
    assert not (tmp_path / "out" / "adapter_model.safetensors").exists()
    assert all(torch.isfinite(values).all() for values in values_on_disk(tmp_path))


@pytest.mark.parametrize("what", ["a weight", "a moment"])
def test_a_checkpoint_that_is_not_finite_is_not_begun(make_trainer: Any, tmp_path: Path, what: str) -> None:
    class Poison(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
            if state.global_step == 2:
                weights = next(p for p in model.parameters() if p.requires_grad)
                moment = next(iter(trainer.optimizer.state.values()))["exp_avg_sq"]
                (weights.data if what == "a weight" else moment).view(-1)[0] = math.inf

    trainer = make_trainer("training.max_steps=3", "training.save_every=1", *STEADY, callbacks=[Poison()])
    with pytest.raises(PeftInstructError, match="1 tensors are not finite after step 2") as caught:
        trainer.train()
    assert "Last good checkpoint: checkpoint-1." in str(caught.value)
    names = {path.name for path in (tmp_path / "checkpoints").rglob("*") if path.is_file()}
    assert "adapter_model.safetensors" in names
    assert "training_args.bin" not in names
    assert not list((tmp_path / "checkpoints" / "checkpoint-2").glob("*"))
    assert all(torch.isfinite(values).all() for values in values_on_disk(tmp_path))
