"""A tree of plain values and tensors in one safetensors file: what continuing needs, and no pickle."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file

TREE = "tree"


def write_state(state: Any, path: Path) -> None:
    """Write None, numbers, texts, tensors, and lists, tuples and dicts of them; `read_state` gives the same again.

    Raises:
        TypeError: something else is in it.
    """
    tensors: dict[str, torch.Tensor] = {}
    names: dict[int, str] = {}  # a tensor that stands twice (bitsandbytes' maps) is written once

    def plain(value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            if id(value) not in names:
                names[id(value)] = str(len(names))
                tensors[names[id(value)]] = value.detach().cpu().contiguous()
            return {"tensor": names[id(value)]}
        if isinstance(value, dict):
            return {"dict": [[plain(key), plain(item)] for key, item in value.items()]}
        if isinstance(value, tuple):
            return {"tuple": [plain(item) for item in value]}
        if isinstance(value, list):
            return [plain(item) for item in value]
        if value is None or isinstance(value, bool | int | float | str):
            return value
        raise TypeError(f"a {type(value).__name__} cannot be written into a checkpoint")

    tree = json.dumps(plain(state))
    save_file(tensors, str(path), metadata={TREE: tree})


def read_state(path: Path) -> Any:
    """What `write_state` wrote, with every tensor on the CPU."""
    with safe_open(str(path), "pt") as stored:
        tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118  (not a dict)
        tree = json.loads(stored.metadata()[TREE])

    def whole(value: Any) -> Any:
        if isinstance(value, list):
            return [whole(item) for item in value]
        if not isinstance(value, dict):
            return value
        ((kind, content),) = value.items()
        if kind == "tensor":
            return tensors[content]
        if kind == "tuple":
            return tuple(whole(item) for item in content)
        return {whole(key): whole(item) for key, item in content}

    return whole(tree)
