"""Moments that would end the first step after a resume are refused; what is let through takes that step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from copy import deepcopy
from typing import Any

import pytest
import torch
from accelerate.optimizer import AcceleratedOptimizer
from torch import nn
from transformers.optimization import Adafactor

from peft_instruct.training.moments import check_moments, check_none_missing
from peft_instruct.training.muon import MuonAndAdamW


class Tiny(nn.Module):
    """A table (also the head), a matrix of 4,096 values, which bitsandbytes keeps in 8 bits, and a vector."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(5, 64)
        self.block = nn.Linear(64, 64)

    def get_output_embeddings(self) -> nn.Module:
        return self.table


def in_8_bits(model: nn.Module) -> torch.optim.Optimizer:
    optimizer: torch.optim.Optimizer = pytest.importorskip("bitsandbytes").optim.AdamW(model.parameters(), optim_bits=8)
    return optimizer


OPTIMIZERS: dict[str, Callable[[nn.Module], torch.optim.Optimizer]] = {
    "adamw": lambda model: torch.optim.AdamW(model.parameters(), fused=True),
    "sgd": lambda model: torch.optim.SGD(model.parameters()),
    "adafactor": lambda model: Adafactor(
        model.parameters(), lr=1e-3, scale_parameter=False, relative_step=False, warmup_init=False
    ),
    "muon": lambda model: MuonAndAdamW(model, 1e-3, 0.0, (0.9, 0.999), 1e-8),
    "adamw_8bit": in_8_bits,
}


def stepped(name: str) -> torch.optim.Optimizer:
    model = Tiny()
    optimizer = OPTIMIZERS[name](model)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    return optimizer


def moments_in(value: Any) -> Iterator[dict[str, Any]]:
    """Every mapping of names to what is kept of a parameter, at whatever depth: bitsandbytes has one in one."""
    if isinstance(value, dict):
        if "step" in value or any(isinstance(item, torch.Tensor) for item in value.values()):
            yield value
        for item in value.values():
            yield from moments_in(item)


def others(value: Any) -> Iterator[Any]:
    yield from (None, "x", [1.0], -1)
    if isinstance(value, torch.Tensor):
        yield from (torch.zeros(3), value.reshape(1, *value.shape), torch.zeros_like(value, dtype=torch.int16))
        if value.ndim:
            yield value[:-1].clone()


def forged(state: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """(key, `state` with one thing that is kept of a parameter taken away or replaced)."""
    for number, kept in enumerate(moments_in(state)):
        for key, value in kept.items():
            copied = deepcopy(state)
            del list(moments_in(copied))[number][key]
            yield key, copied
            for other in others(value):
                copied = deepcopy(state)
                list(moments_in(copied))[number][key] = other
                yield key, copied


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_moments_of_another_shape_and_missing_ones_are_refused(name: str) -> None:
    whole = stepped(name)
    check_moments(whole)
    given = deepcopy(whole.state_dict())
    whole.load_state_dict(deepcopy(given))
    check_moments(whole)
    refused: set[str] = set()
    for key, content in forged(given):
        taking = stepped(name)
        try:
            taking.load_state_dict(content)
            check_moments(taking)
        except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError):  # as in `loading`
            refused.add(key)
            continue
        taking.step()
    read = {key for kept in moments_in(given) for key in kept} - {"RMS"}  # Adafactor's is computed anew in each step
    assert refused == read


def test_what_the_trainer_wraps_is_looked_at() -> None:
    optimizer = stepped("adamw")
    wrapped = AcceleratedOptimizer.__new__(AcceleratedOptimizer)
    wrapped.optimizer = optimizer
    check_moments(wrapped)
    next(iter(optimizer.state.values())).pop("exp_avg_sq")
    with pytest.raises(ValueError, match="exp_avg_sq is NoneType"):
        check_moments(wrapped)


def with_gradients_of(optimizer: torch.optim.Optimizer, num_parameters: int) -> torch.optim.Optimizer:
    """`optimizer` with gradients of its first parameters alone, as a backward pass that does not reach the others."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for number, parameter in enumerate(parameters):
        parameter.grad = torch.ones_like(parameter) if number < num_parameters else None
    return optimizer


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_parameter_that_no_gradient_reaches_has_no_moments_and_goes_on_so(name: str) -> None:
    unreached = with_gradients_of(OPTIMIZERS[name](Tiny()), 2)
    unreached.step()
    taking = with_gradients_of(OPTIMIZERS[name](Tiny()), 2)
    taking.load_state_dict(deepcopy(unreached.state_dict()))
    check_moments(taking)
    check_none_missing(taking, may_be_unused=False)
    taking.step()


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("num_kept", [0, 1, 2])
def test_a_parameter_that_learns_and_has_no_moments_is_refused(name: str, num_kept: int) -> None:
    """It would be begun anew in silence; SGD without momentum keeps nothing of any."""
    forged = with_gradients_of(OPTIMIZERS[name](Tiny()), num_kept)
    forged.step()
    taking = with_gradients_of(OPTIMIZERS[name](Tiny()), 3)
    taking.load_state_dict(deepcopy(forged.state_dict()))
    check_moments(taking)
    if name == "sgd":
        check_none_missing(taking, may_be_unused=False)
        return
    with pytest.raises(ValueError, match=r"keeps nothing of a parameter \(.*\) that learns"):
        check_none_missing(taking, may_be_unused=False)


@pytest.mark.parametrize(("num_kept", "is_refused"), [(0, False), (1, True)])
def test_an_optimizer_of_which_every_step_was_skipped_may_keep_nothing_at_all(num_kept: int, is_refused: bool) -> None:
    optimizer = with_gradients_of(OPTIMIZERS["adamw"](Tiny()), num_kept)
    optimizer.step()
    with_gradients_of(optimizer, 3)
    with pytest.raises(ValueError) if is_refused else nullcontext():
        check_none_missing(optimizer, may_be_unused=True)
