"""How prompts are put together for generation: rows of like length, as many at once as their keys and values allow.

A step of generation reads every weight once whatever the number of rows, so rows together cost less each
(benchmarks/generation.py). On a CPU no more is gained past 64: their keys and values outgrow its caches anyway.
"""

# B rows of a batch, H heads of keys and values, T tokens, D width of a head

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

import torch
from transformers import DynamicCache, PreTrainedConfig
from transformers.cache_utils import DynamicLayer

from peft_instruct.inference.prompts import FittedPrompt

LEAST_ROWS, MOST_ROWS = 8, 64
MOST_CACHE_BYTES = 768 << 20
"""Of the keys and values of one batch: 64 rows of 160 tokens for GPT-2 124M in fp32."""


def batches(fitted: Sequence[FittedPrompt], size: int | None, config: PreTrainedConfig) -> Iterator[list[int]]:
    """Indices of prompts with about as many tokens of their own, the most first.

    Rows of one batch share one limit: a row that has stopped is fed padding until it is let go, and a longer prompt
    would run out of positions on it. With its longest preamble, longest part of their own and limit a batch is no wider
    than the model's positions, as each of its rows alone: of a wider one transformers warns that it may fail.

    Args:
        size: rows of a batch; None takes as many as MOST_CACHE_BYTES hold.
    """
    text: Any = config.get_text_config()
    own = [len(prompt.ids) - prompt.num_shared for prompt in fitted]
    ordered = sorted(range(len(fitted)), key=lambda index: (fitted[index].limit, -own[index]))
    for limit, group in groupby(ordered, key=lambda index: fitted[index].limit):
        indices = list(group)
        preamble = max(fitted[index].num_shared for index in indices)
        while indices:
            longest = text.max_position_embeddings - own[indices[0]] - limit
            rows = size or _rows_that_fit(min(preamble, longest) + own[indices[0]] + limit, config)
            rows = _num_up_to(longest, [fitted[index].num_shared for index in indices[:rows]])
            yield indices[:rows]
            indices = indices[rows:]


def _num_up_to(longest: int, preambles: Sequence[int]) -> int:
    """How many come before the first that is longer; the first of all fits with its own limit."""
    return next((place for place, length in enumerate(preambles) if place and length > longest), len(preambles))


def _rows_that_fit(num_tokens: int, config: PreTrainedConfig) -> int:
    return max(LEAST_ROWS, min(MOST_ROWS, MOST_CACHE_BYTES // (num_tokens * token_bytes(config))))


def token_bytes(config: PreTrainedConfig) -> int:
    """Of the keys and values of one token in fp32."""
    text: Any = config.get_text_config()
    heads = text.num_attention_heads
    width = getattr(text, "head_dim", None) or text.hidden_size // heads
    kept_heads = getattr(text, "num_key_value_heads", None) or heads
    return int(text.num_hidden_layers * 2 * kept_heads * width * torch.float32.itemsize)


def roomy_cache(config: PreTrainedConfig, room: int) -> DynamicCache:
    """The cache that `generate` makes itself, with room for `room` tokens from the start."""
    cache = DynamicCache(config=config)
    cache.layers = [RoomyLayer(room) if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache


class RoomyLayer(DynamicLayer):
    """Keys and values in one piece of memory: transformers' own layer copies all of them at every token.

    Attributes:
        keys, values: (B, H, T, D), views of what is in use.
    """

    def __init__(self, room: int) -> None:
        super().__init__()
        self.room = room

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        super().lazy_initialization(key_states, value_states)
        self._all_keys, self._all_values = (
            states.new_empty(*states.shape[:2], self.room, states.shape[3]) for states in (key_states, value_states)
        )

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        start = self.get_seq_length()
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        end = start + key_states.shape[2]
        self._all_keys[:, :, start:end] = key_states
        self._all_values[:, :, start:end] = value_states
        self.keys, self.values = self._all_keys[:, :, :end], self._all_values[:, :, :end]
        return self.keys, self.values

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        end = self.get_seq_length()
        self._all_keys, self._all_values = self._all_keys[indices], self._all_values[indices]
        self.keys, self.values = self._all_keys[:, :, :end], self._all_values[:, :, :end]
