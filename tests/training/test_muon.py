"""Muon on the matrices, AdamW on the rest, behind one optimizer."""

from __future__ import annotations

import copy
from typing import Any

import torch

from peft_instruct.training.muon import MuonAndAdamW, split_parameters


def test_each_parameter_is_in_one_part_and_only_block_matrices_are_muons(make_trainer: Any) -> None:
    model = make_trainer("method.kind=full", "training.optimizer=muon").model
    parts = split_parameters(model)
    assert sorted(id(p) for part in parts for p in part) == sorted(id(p) for p in model.parameters())
    names = {id(p): name for name, p in model.named_parameters()}
    assert {names[id(p)].rsplit(".h.", 1)[-1][2:] for p in parts[0]} == {
        "attn.c_attn.weight", "attn.c_proj.weight", "mlp.c_fc.weight", "mlp.c_proj.weight",
    }  # fmt: skip
    assert {names[id(p)] for p in parts[1]} == {"transformer.wte.weight", "transformer.wpe.weight"}


def test_it_trains_and_the_schedule_reaches_both_parts(make_trainer: Any) -> None:
    trainer = make_trainer(
        "method.kind=full", "training.optimizer=muon", "training.max_steps=8", "training.log_every=1"
    )
    trainer.train()
    losses = [log["loss"] for log in trainer.state.log_history if "loss" in log]
    assert losses[-1] < losses[0]
    optimizer = trainer.optimizer.optimizer
    assert isinstance(optimizer, MuonAndAdamW)
    rates = {group["lr"] for part in (optimizer.muon, optimizer.adamw) for group in part.param_groups}
    assert len(rates) == 1  # both at the end of the same cosine
    assert rates.pop() < 0.01


def test_the_moments_of_both_are_looked_at_before_a_save(make_trainer: Any) -> None:
    trainer = make_trainer("method.kind=full")
    trainer.optimizer = optimizer = MuonAndAdamW(trainer.model, 1e-2, 0.1, (0.9, 0.99), 1e-8)
    for parameter in trainer.model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    assert len(optimizer.state) == len(list(trainer.model.parameters()))
    assert trainer._moments_not_finite() == []
    for part, moment in ((optimizer.muon, "momentum_buffer"), (optimizer.adamw, "exp_avg")):
        next(iter(part.state.values()))[moment].view(-1)[0] = torch.inf
    assert trainer._moments_not_finite() == ["optimizer momentum_buffer", "optimizer exp_avg"]


def test_a_saved_state_continues_as_the_original_does(make_trainer: Any) -> None:
    """Two optimizers on equal models, one restored from the other's state: the next step is the same, bit for bit."""
    models = [make_trainer("method.kind=full").model for _ in range(2)]
    optimizers = [MuonAndAdamW(model, 1e-2, 0.1, (0.9, 0.99), 1e-8) for model in models]
    gradients = [torch.randn_like(p) for p in models[0].parameters()]

    def step(number: int) -> None:
        for parameter, gradient in zip(models[number].parameters(), gradients, strict=True):
            parameter.grad = gradient.clone()
        optimizers[number].step()

    step(0)
    # Loading takes tensors over, and the momentum would be shared.
    optimizers[1].load_state_dict(copy.deepcopy(optimizers[0].state_dict()))
    models[1].load_state_dict(models[0].state_dict())
    step(0)
    step(1)
    assert all(a.equal(b) for a, b in zip(models[0].parameters(), models[1].parameters(), strict=True))
