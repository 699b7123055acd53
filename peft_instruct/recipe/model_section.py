"""What a recipe may say of who learns, and through which weights."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from peft_instruct.recipe.section import Fraction, Positive, Section

LORA_ONLY_KEYS = ("rank", "alpha", "dropout", "targets", "dora", "rslora")


class Architecture(Section):
    """A GPT-2 architecture for `model.init: random`."""

    layers: Positive = 4
    """Transformer blocks."""
    width: Positive = 256
    """Size of the residual stream; a multiple of `heads`."""
    heads: Positive = 4
    """Attention heads per block."""
    positions: Positive = 512
    """Longest sequence in tokens."""

    @model_validator(mode="after")
    def _width_fits_heads(self) -> Architecture:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of heads {self.heads}")
        return self


class ModelSection(Section):
    base: Annotated[str, Field(min_length=1)]
    """Who learns: a hub id (`gpt2`), a folder, or `starter` (the small GPT-2 in this package)."""
    revision: str = "main"
    """Branch, tag or commit of a hub id."""
    tokenizer: str | None = None
    """A tokenizer other than the base's own: a hub id or a folder."""
    init: Literal["pretrained", "random"] = "pretrained"
    """`random` trains from scratch with the base's architecture, or with `architecture`."""
    architecture: Architecture | None = None
    """The shape of a model made from scratch; `base` then only lends its tokenizer."""
    attention: Literal["auto", "sdpa", "eager"] = "auto"
    """Attention implementation of transformers; `auto` takes sdpa, and plain products where those are faster."""
    kernels: Literal["fast", "plain"] = "fast"
    """`fast` computes the same in fewer kernels where that pays; `plain` leaves the model as transformers makes it."""
    dropout: Fraction | None = None
    """Dropout of the base while it trains; null keeps what its config says (0.1 for gpt2)."""
    quantization: Literal["none", "nf4", "int8"] = "none"
    """Hold the frozen base in 4 or 8 bits (bitsandbytes); LoRA only."""


class MethodSection(Section):
    kind: Literal["lora", "full"] = "lora"
    """`lora` trains an adapter, `full` trains every weight."""
    rank: Positive = 16
    """Rank of the LoRA update; adapter size grows linearly with it."""
    alpha: Annotated[float, Field(gt=0)] = 32.0
    """The update is scaled by alpha / rank (alpha / sqrt(rank) with `rslora`)."""
    dropout: Fraction = 0.0
    """Dropout in front of the LoRA matrices."""
    targets: Literal["all", "attention"] | Annotated[list[str], Field(min_length=1)] = "all"
    """Which matrices get an adapter: all linear ones of a block, attention's only, or module names."""
    dora: bool = False
    """Weight-decomposed LoRA (Liu et al. 2024)."""
    rslora: bool = False
    """Rank-stabilised scaling (Kalajdzievski 2023)."""

    @model_validator(mode="after")
    def _no_lora_keys_when_full(self) -> MethodSection:
        idle = sorted(self.model_fields_set & set(LORA_ONLY_KEYS))
        if self.kind == "full" and idle:
            raise ValueError(f"{', '.join(idle)}: no effect with kind: full. Remove, or set kind: lora")
        return self
