"""Which matrices of a block carry an adapter, per model family; every matrix that is named must be there."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn
from transformers import DynamicCache, PreTrainedConfig
from transformers.cache_utils import DynamicLayer

from peft_instruct.errors import RecipeError


@dataclass(frozen=True)
class Family:
    """Module names inside a transformer block, and whether they are Conv1D (weight stored as in × out)."""

    attention: tuple[str, ...]
    feed_forward: tuple[str, ...]
    conv1d: bool = False


_LLAMA_LIKE = Family(("q_proj", "k_proj", "v_proj", "o_proj"), ("gate_proj", "up_proj", "down_proj"))
FAMILIES = {
    # `c_proj` is both attention's and the feed-forward's output in GPT-2; the path tells them apart.
    "gpt2": Family(("attn.c_attn", "attn.c_proj"), ("mlp.c_fc", "mlp.c_proj"), conv1d=True),
    "gpt_neo": Family(
        ("attention.q_proj", "attention.k_proj", "attention.v_proj", "attention.out_proj"),
        ("mlp.c_fc", "mlp.c_proj"),
    ),
    "gptj": Family(("q_proj", "k_proj", "v_proj", "out_proj"), ("fc_in", "fc_out")),
    "gpt_neox": Family(("query_key_value", "attention.dense"), ("dense_h_to_4h", "dense_4h_to_h")),
    "llama": _LLAMA_LIKE,
    "mistral": _LLAMA_LIKE,
    "qwen2": _LLAMA_LIKE,
    "qwen3": _LLAMA_LIKE,
}
TIED_OR_HEAD = ("wte", "lm_head", "embed_in", "embed_out", "embed_tokens")


def sees_all(config: PreTrainedConfig) -> bool:
    """Whether every layer looks back to the beginning, as far as its cache says: no sliding windows."""
    return all(type(layer) is DynamicLayer for layer in DynamicCache(config=config.get_text_config()).layers)


def resolve_targets(model: nn.Module, model_type: str, targets: str | list[str]) -> list[str]:
    """The full names of the modules that get an adapter.

    Args:
        targets: `all`, `attention`, or names as they end in `model.named_modules()`.

    Raises:
        RecipeError: an unknown family without explicit names, a name that matches nothing, or an embedding.
    """
    if isinstance(targets, str):
        family = FAMILIES.get(model_type)
        if family is None:
            raise RecipeError(
                f"method.targets: {targets} is not known for model type {model_type!r} (known: {', '.join(FAMILIES)}). "
                f"Name the modules; this model has {', '.join(_linear_suffixes(model))}."
            )
        wanted = list(family.attention + (family.feed_forward if targets == "all" else ()))
    else:
        wanted = targets
    linear = [name for name, module in model.named_modules() if _is_linear(module)]
    matched = {name: [full for full in linear if full == name or full.endswith(f".{name}")] for name in wanted}
    problems = [f"{name!r} matches no module" for name, found in matched.items() if not found]
    problems += [
        # PEFT knows tied weights as embed_tokens and lm_head only: an adapter on wte trains, and merges wrongly.
        f"{name!r} is the embedding or the head, which GPT-2 shares: an adapter there cannot be merged"
        for name in wanted
        if name.rpartition(".")[2] in TIED_OR_HEAD
    ]
    if problems:
        raise RecipeError(
            f"method.targets: {'; '.join(problems)}. This model has {', '.join(_linear_suffixes(model))}."
        )
    return sorted({full for found in matched.values() for full in found}, key=linear.index)


def is_conv1d_family(model_type: str) -> bool:
    family = FAMILIES.get(model_type)
    return family is not None and family.conv1d


def _is_linear(module: nn.Module) -> bool:
    # By name: transformers' Conv1D is no nn.Linear, and bitsandbytes' layers need not be imported to be known.
    return isinstance(module, nn.Linear) or type(module).__name__ in ("Conv1D", "Linear4bit", "Linear8bitLt")


def _linear_suffixes(model: nn.Module) -> list[str]:
    names = (name.rpartition(".")[2] for name, module in model.named_modules() if _is_linear(module))
    return [name for name in dict.fromkeys(names) if name not in TIED_OR_HEAD]
