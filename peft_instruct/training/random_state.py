"""The random generators of this process, all that draw for a run: dropout, NEFTune, the order of rows."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch


def random_state() -> dict[str, Any]:
    """Their states, as `write_state` takes them."""
    state: Any = np.random.get_state()
    name, keys, position, has_gauss, cached = state
    return {
        "python": random.getstate(),
        "numpy": (name, keys.tolist(), position, has_gauss, cached),
        "cpu": torch.random.get_rng_state(),
        # Asked of a run on the CPU, it would take hold of a GPU.
        "cuda": torch.cuda.random.get_rng_state() if torch.cuda.is_initialized() else None,
        # transformers leaves this one out, so that dropout on MPS would not continue as it was.
        "mps": torch.mps.get_rng_state() if torch.backends.mps.is_available() else None,
    }


def set_random_state(state: dict[str, Any]) -> None:
    """The inverse of `random_state`; a device that is not here is passed over."""
    random.setstate(state["python"])
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, np.array(keys, dtype=np.uint32), *rest))
    torch.random.set_rng_state(state["cpu"])
    if state["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.random.set_rng_state(state["cuda"])
    if state["mps"] is not None and torch.backends.mps.is_available():
        torch.mps.set_rng_state(state["mps"])
