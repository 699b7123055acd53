"""What one forward and backward pass needs in memory, in the terms that a recipe can change."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from peft_instruct.data.types import IGNORED_LABEL

ADAM_MOMENTS = 2
ACTIVATIONS_PER_TOKEN_AND_WIDTH = 34
"""Bytes in 16 bits per token, layer and unit of width, without the attention scores, which fused attention does not
keep (Korthikanti et al. 2022, "Reducing Activation Recomputation", eq. 1)."""


def pass_memory(model: Any, batches: Sequence[dict[str, Any]], rows: int, checkpointing: bool) -> str:
    """The arithmetic of a pass, as text: what stays, and what grows with rows and tokens.

    Args:
        batches: of the step that did not fit; the widest of them is counted.
        rows: of the pass.
    """
    config = model.config.get_text_config()
    widest = max(batches, key=lambda batch: batch["input_ids"].shape[1])
    num_tokens = rows * widest["input_ids"].shape[1]
    learned = int((widest["labels"] != IGNORED_LABEL).sum()) * rows // len(widest["labels"])
    held = sum(p.numel() * p.element_size() for p in model.parameters())
    trained = sum(p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)
    # Logits and their gradient.
    logits = 2 * learned * config.vocab_size * 4
    fp32 = 1 if torch.is_autocast_enabled() else 2
    per_token = 2 if checkpointing else ACTIVATIONS_PER_TOKEN_AND_WIDTH
    activations = num_tokens * config.num_hidden_layers * config.hidden_size * per_token * fp32
    return (
        f"needed: weights {_size(held)}, gradients and optimizer {_size(trained * (1 + ADAM_MOMENTS))}, and for each "
        f"pass logits {_size(logits)} ({learned:,} learned tokens x {config.vocab_size:,} words x 4 bytes, twice) and "
        f"activations about {_size(activations)} ({num_tokens:,} tokens x {config.num_hidden_layers} layers)"
    )


def _size(num_bytes: int) -> str:
    return f"{num_bytes / 1e9:.2f} GB" if num_bytes >= 1e7 else f"{num_bytes / 1e6:.2f} MB"
