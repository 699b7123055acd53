"""A tiny model of every known family, all of one shape, and prompts to give to it."""

from __future__ import annotations

from typing import Any

import torch
from tiny import tiny_rows
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    GPTJConfig,
    GPTNeoConfig,
    GPTNeoXConfig,
    LlamaConfig,
    MistralConfig,
    PreTrainedConfig,
    Qwen2Config,
    Qwen3Config,
)

from peft_instruct.data.templates import ALPACA

WINDOW = 16
"""Places that the models with local attention look back."""
PROMPTS = [ALPACA.prompt(row["instruction"], row["input"]) for row in tiny_rows()[::7]] + ["Hi", "", "A: 東京 🙂"]
"""Most begin with one of two preambles, some with nothing in common."""


def tiny_configs(*, width: int, positions: int, vocabulary: int) -> dict[str, PreTrainedConfig]:
    """By model type: 2 layers, 2 heads, MLPs of 4 x `width` (of 3 x where they are gated), one head of keys and values
    where that can be chosen."""
    llama = {
        "vocab_size": vocabulary, "hidden_size": width, "intermediate_size": 3 * width, "num_hidden_layers": 2,
        "num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": positions,
        "head_dim": width // 2,
    }  # fmt: skip
    gpt2 = {"vocab_size": vocabulary, "n_positions": positions, "n_embd": width, "n_layer": 2, "n_head": 2}
    return {
        "gpt2": GPT2Config(**gpt2),
        "gptj": GPTJConfig(**gpt2, rotary_dim=width // 4),
        "gpt_neo": GPTNeoConfig(
            vocab_size=vocabulary, max_position_embeddings=positions, hidden_size=width, num_layers=2, num_heads=2,
            attention_types=[[["global", "local"], 1]], window_size=WINDOW,
        ),
        "gpt_neox": GPTNeoXConfig(
            vocab_size=vocabulary, max_position_embeddings=positions, hidden_size=width, intermediate_size=4 * width,
            num_hidden_layers=2, num_attention_heads=2,
        ),
        "llama": LlamaConfig(**llama),
        "mistral": MistralConfig(**llama, sliding_window=WINDOW),
        "qwen2": Qwen2Config(**llama),
        "qwen3": Qwen3Config(**llama),
    }  # fmt: skip


def decided_model(config: PreTrainedConfig, **options: Any) -> Any:
    """A random model whose argmax is not rounding, as it would be with weights of 0.02 and so few of them."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32, **options)
    for weights in model.parameters():
        if weights.ndim == 2:
            weights.data.mul_(10.0)
    return model
