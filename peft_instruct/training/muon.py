"""Muon for the matrices of the blocks, AdamW for everything else, as one optimizer.

Muon (Jordan 2024) orthogonalises the momentum of a matrix before it is applied; with the update scaled to AdamW's
root mean square (Liu et al. 2025, "Muon is scalable for LLM training") one learning rate serves both. It is meant
for training from scratch. Embeddings, the head, biases and norms are AdamW's in every published use of it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
from torch import nn


class MuonAndAdamW(torch.optim.Optimizer):
    """Two optimizers behind the interface of one; a learning-rate schedule moves the groups of both."""

    def __init__(
        self,
        model: nn.Module,
        learning_rate: float,
        weight_decay: float,
        betas: tuple[float, float],
        epsilon: float,
    ) -> None:
        matrices, tables, vectors = split_parameters(model)
        self.muon = torch.optim.Muon(
            matrices, lr=learning_rate, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw"
        )
        groups = [
            {"params": tables, "weight_decay": weight_decay},
            {"params": vectors, "weight_decay": 0.0},
        ]
        self.adamw = torch.optim.AdamW(groups, lr=learning_rate, betas=betas, eps=epsilon, fused=True)
        super().__init__([*matrices, *tables, *vectors], {"lr": learning_rate})
        self._share_groups()

    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        self.muon.step()
        self.adamw.step()

    def state_dict(self) -> dict[str, Any]:
        return {"muon": self.muon.state_dict(), "adamw": self.adamw.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.muon.load_state_dict(state_dict["muon"])
        self.adamw.load_state_dict(state_dict["adamw"])
        self._share_groups()

    @property
    def state(self) -> defaultdict[torch.Tensor, Any]:
        """The moments of both, by parameter: what is checked before a save."""
        return defaultdict(dict, {**self.muon.state, **self.adamw.state})

    @state.setter
    def state(self, value: defaultdict[torch.Tensor, Any]) -> None:
        """torch's constructor puts an empty one here; each of the two has its own."""

    def _share_groups(self) -> None:
        """The very dictionaries of the two, so that what a schedule writes is what they read."""
        self.param_groups = [*self.muon.param_groups, *self.adamw.param_groups]


def split_parameters(model: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter], list[nn.Parameter]]:
    """Trainable parameters as (matrices of the blocks, embeddings and head, vectors); a tied one stands once."""
    tables = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    head = model.get_output_embeddings()  # type: ignore[operator]
    tables.add(id(head.weight))
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return (
        [p for p in trainable if p.ndim == 2 and id(p) not in tables],
        [p for p in trainable if id(p) in tables],
        [p for p in trainable if p.ndim != 2 and id(p) not in tables],
    )
