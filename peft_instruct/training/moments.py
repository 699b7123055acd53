"""What an optimizer keeps of each parameter, looked at once a checkpoint has been loaded.

The optimizers take over whatever stands there (torch 2.13, `Optimizer.load_state_dict`; bitsandbytes 0.50
likewise), and fail in the first step, read past the end of a tensor, or begin a parameter's moments anew in silence.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from accelerate.optimizer import AcceleratedOptimizer
from transformers.optimization import Adafactor

from peft_instruct.training.muon import MuonAndAdamW

BLOCK = 256
"""Values that share a scale in bitsandbytes' 8-bit moments, and entries of its map (0.50, optim/optimizer.py)."""
STEP = "step"

Forms = dict[str, str]
"""Of what a step reads, by name: type, and shape of a tensor."""


def check_moments(optimizer: torch.optim.Optimizer) -> None:
    """Refuse moments of another shape than their parameters', and such as lack one of their tensors.

    A parameter of which nothing is kept is let through here; see `check_none_missing`.

    Raises:
        ValueError: naming the first.
    """
    for part in _parts(optimizer):
        for parameter, kept in part.state.items():
            # What belongs to no parameter is in there too, and read by nobody.
            if isinstance(parameter, torch.Tensor) and kept != {}:
                _check(part, parameter, kept)


def check_none_missing(optimizer: torch.optim.Optimizer, *, may_be_unused: bool) -> None:
    """Refuse a parameter of which nothing is kept, in the first step after a resume, once its gradients are there.

    The optimizers make a parameter's moments in the first step that has a gradient of it (torch 2.13, `_init_group`;
    bitsandbytes 0.50 likewise). What no pass reaches, such as cross-attention without an encoder, lawfully has none:
    only the gradients tell the two apart.

    Args:
        may_be_unused: nothing kept of any parameter is let through: fp16's loss scale may have skipped every step.

    Raises:
        ValueError: naming the shape of the first.
    """
    parts = list(_parts(optimizer))
    if may_be_unused and not any(kept for part in parts for kept in part.state.values()):
        return
    for part in parts:
        for parameter in (parameter for group in part.param_groups for parameter in group["params"]):
            if parameter.grad is not None and not part.state.get(parameter) and _forms(part, parameter, {}):
                raise ValueError(f"the optimizer keeps nothing of a parameter {tuple(parameter.shape)} that learns")


def _parts(optimizer: Any) -> Iterator[torch.optim.Optimizer]:
    inner = optimizer.optimizer if isinstance(optimizer, AcceleratedOptimizer) else optimizer
    yield from (inner.muon, inner.adamw) if isinstance(inner, MuonAndAdamW) else (inner,)


def _check(optimizer: torch.optim.Optimizer, parameter: torch.Tensor, kept: Any) -> None:
    if not isinstance(kept, dict):
        raise ValueError(f"the optimizer keeps a {type(kept).__name__} of a parameter. expected its moments")
    for name, form in _forms(optimizer, parameter, kept).items():
        value = kept.get(name)
        found = _form(tuple(value.shape), value.dtype) if isinstance(value, torch.Tensor) else type(value).__name__
        if found != form:
            raise ValueError(f"the optimizer's {name} is {found}. expected {form}")
        if name == STEP and not 0 <= float(kept[name]) < math.inf:
            raise ValueError(f"the optimizer's {name} is {float(kept[name])}. expected a number of steps")


def _forms(optimizer: torch.optim.Optimizer, parameter: torch.Tensor, kept: dict[str, Any]) -> Forms:
    shape = tuple(parameter.shape)
    whole = _form(shape, parameter.dtype)
    if isinstance(optimizer, torch.optim.AdamW):
        return {"exp_avg": whole, "exp_avg_sq": whole, STEP: _form((), torch.float32)}
    if isinstance(optimizer, torch.optim.Muon):
        return {"momentum_buffer": whole}
    if isinstance(optimizer, Adafactor):
        if len(shape) < 2:
            return {"exp_avg_sq": whole, STEP: "int"}
        rows, columns = shape[:-1], shape[:-2] + shape[-1:]
        of_rows, of_columns = _form(rows, parameter.dtype), _form(columns, parameter.dtype)
        return {"exp_avg_sq_row": of_rows, "exp_avg_sq_col": of_columns, STEP: "int"}
    if type(optimizer).__module__.startswith("bitsandbytes"):
        return _forms_in_8_bits(shape, kept)
    return {}  # SGD without momentum


def _forms_in_8_bits(shape: tuple[int, ...], kept: dict[str, Any]) -> Forms:
    moment = kept.get("state1")
    is_small = not isinstance(moment, torch.Tensor) or moment.dtype != torch.uint8
    forms = {STEP: "int"}
    for number in (1, 2):
        forms[f"state{number}"] = _form(shape, torch.float32 if is_small else torch.uint8)
        if not is_small:
            forms[f"qmap{number}"] = _form((BLOCK,), torch.float32)
            forms[f"absmax{number}"] = _form((math.ceil(math.prod(shape) / BLOCK),), torch.float32)
    return forms


def _form(shape: tuple[int, ...], dtype: torch.dtype) -> str:
    return f"{dtype} {shape}"
