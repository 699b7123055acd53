"""What one forward and backward pass needs in memory, in the terms that a recipe can change."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from peft_instruct.data.types import IGNORED_LABEL
from peft_instruct.training.chunked_loss import ROWS_OF_BLOCK, can_chunk

ADAM_MOMENTS = 2
ACTIVATIONS_PER_TOKEN_AND_WIDTH = 34
"""Bytes in 16 bits per token, layer and unit of width, without the attention scores, which fused attention does not
keep (Korthikanti et al. 2022, "Reducing Activation Recomputation", eq. 1)."""
TILE_ON_CUDA = (4096, 32_768)
"""Positions and words whose logits TRL's kernel holds at once (trl 1.16, kernels/chunked_logprob.py:347)."""


def pass_memory(
    model: Any, batches: Sequence[dict[str, Any]], rows: int, checkpointing: bool, dtype: torch.dtype
) -> str:
    """The arithmetic of a pass, as text: what stays, and what grows with rows and tokens.

    Args:
        batches: of the step that did not fit; the widest of them is counted.
        rows: of the pass.
        dtype: that activations are computed in; outside a forward pass autocast does not tell it.
    """
    config = model.config.get_text_config()
    widest = max(batches, key=lambda batch: batch["input_ids"].shape[1])
    num_tokens = rows * widest["input_ids"].shape[1]
    learned = int((widest["labels"] != IGNORED_LABEL).sum()) * rows // len(widest["labels"])
    held = sum(p.numel() * p.element_size() for p in model.parameters())
    trained = sum(p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)
    logits, shape = _logits(model, learned, config.vocab_size, dtype)
    per_token = 2 if checkpointing else ACTIVATIONS_PER_TOKEN_AND_WIDTH
    activations = num_tokens * config.num_hidden_layers * config.hidden_size * per_token * dtype.itemsize // 2
    return (
        f"needed: weights {_size(held)}, gradients and optimizer {_size(trained * (1 + ADAM_MOMENTS))}, and for each "
        f"pass logits {_size(logits)} ({shape}) and activations about {_size(activations)} ({num_tokens:,} tokens x "
        f"{config.num_hidden_layers} layers)"
    )


def _logits(model: Any, learned: int, words: int, dtype: torch.dtype) -> tuple[int, str]:
    """(bytes held at once, what they are): a block whose gradient takes its place, or all with their gradient."""
    is_cuda = next(model.parameters()).device.type == "cuda"
    if is_cuda or can_chunk(model.get_output_embeddings(), dtype):
        most_rows, most_words = TILE_ON_CUDA if is_cuda else (ROWS_OF_BLOCK, words)
        rows, words = min(learned, most_rows), min(words, most_words)
        return rows * words * dtype.itemsize, f"{rows:,} learned tokens x {words:,} words x {dtype.itemsize} bytes"
    return 2 * learned * words * 4, f"{learned:,} learned tokens x {words:,} words x 4 bytes, twice"


def _size(num_bytes: int) -> str:
    return f"{num_bytes / 1e9:.2f} GB" if num_bytes >= 1e7 else f"{num_bytes / 1e6:.2f} MB"
