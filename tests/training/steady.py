"""Runs whose weights are held against one another after each step."""

from __future__ import annotations

from typing import Any

import torch

STEADY = ("training.warmup=0", "training.schedule=constant", "training.evaluate_every=never")
"""Every step at one rate, and nothing between them."""


def trained(model: Any) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}


def furthest(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    assert one.keys() == other.keys() and one
    return max(float((one[name] - other[name]).abs().max()) for name in one)
