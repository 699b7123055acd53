"""What a recipe may say of how it learns, and of the ways to learn the same in less time."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from peft_instruct.recipe.section import Fraction, Positive, Section

Minutes = Annotated[str, Field(pattern=r"^[1-9][0-9]{0,5}min$")]


class EarlyStopping(Section):
    patience: Positive = 3
    """Evaluations in a row without improvement before training stops."""
    min_delta: Annotated[float, Field(ge=0)] = 0.0
    """The least fall of the validation loss that counts as improvement."""


class TrainingSection(Section):
    epochs: Annotated[float, Field(gt=0)] = 3.0
    """Passes over the training rows; `max_steps` wins."""
    max_steps: Positive | None = None
    """Optimizer steps; null trains for `epochs`."""
    batch_size: Positive = 8
    """Rows per forward pass and device."""
    batch_tokens: Positive | None = None
    """In place of `batch_size`: as many rows of like length per forward pass as come to so many tokens with their
    padding, at least one."""
    accumulation: Positive = 1
    """Forward passes per optimizer step."""
    micro_batch: Literal["auto", "fixed"] = "auto"
    """A batch too large for memory: `auto` computes it in smaller passes, to the same result; `fixed` never does."""
    learning_rate: Annotated[float, Field(gt=0)]
    """Peak learning rate. Default: 2e-4 for lora, 5e-5 for full."""
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    """How the learning rate falls after the warm-up."""
    warmup: Annotated[float, Field(ge=0)] = 0.03
    """Below 1 a share of all steps, from 1 on a number of steps."""
    optimizer: Literal["adamw", "adamw_8bit", "adafactor", "sgd", "muon"] = "adamw"
    """`adamw` is torch's fused AdamW, `adamw_8bit` bitsandbytes'; `muon` is for training from scratch."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """AdamW's decoupled weight decay (not applied to biases and layer norms)."""
    adam_beta1: Fraction = 0.9
    adam_beta2: Fraction = 0.999
    adam_epsilon: Annotated[float, Field(gt=0)] = 1e-8
    max_gradient_norm: Annotated[float, Field(ge=0)] = 1.0
    """Gradients are clipped to this norm; 0 does not clip."""
    neftune_alpha: Annotated[float, Field(gt=0)] | None = None
    """Noise on the embeddings while training (Jain et al. 2023); 5 is usual."""
    gradient_checkpointing: Literal["auto"] | bool = "auto"
    """Recompute activations in backward: less memory, about a third more time; `auto` does it from the step on that
    does not fit in passes of one row."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Arithmetic of the matrices; weights and optimizer of what trains stay in fp32."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """`auto` takes CUDA, then MPS, then the CPU."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """Order of rows, split, initialisation of the adapter, dropout."""
    log_every: Positive = 10
    """Steps between lines of metrics.jsonl."""
    evaluate_every: Positive | Literal["epoch", "never"] = "epoch"
    """Steps between validation losses."""
    save_every: Positive | Literal["epoch", "never"] | Minutes = "10min"
    """Steps (or minutes, as `10min`) between checkpoints, which are gone when a run is done; with `keep_best` each
    evaluation writes one too. A signal while it trains makes it save even with `never`."""
    keep_best: bool = False
    """Hand over the weights of the lowest validation loss instead of the last ones."""
    ledger: bool = False
    """Write the loss of each training row before and after to ledger.jsonl (`data worst` reads it); costs two forward
    passes over the training rows."""
    early_stopping: EarlyStopping | None = None
    """Stop when the validation loss no longer falls; implies `keep_best`."""

    @model_validator(mode="after")
    def _one_size_of_batch(self) -> TrainingSection:
        if self.batch_tokens is not None and "batch_size" in self.model_fields_set:
            raise ValueError("batch_tokens: batch_size is set, too. Keep one of them")
        return self

    @model_validator(mode="after")
    def _stopping_needs_evaluations(self) -> TrainingSection:
        if (self.early_stopping or self.keep_best) and self.evaluate_every == "never":
            key = "early_stopping" if self.early_stopping else "keep_best"
            raise ValueError(f"{key} needs a validation loss: set evaluate_every to a number or to epoch")
        return self


class SpeedSection(Section):
    """Ways of computing the same in less time; each can be switched off to see that it is the same."""

    completion_head: bool = True
    """Off CUDA, score the learned positions only (TRL scores all of them there); likewise compute what follows the last
    attention (without dropout, and where activations are not recomputed)."""
    lora_product: bool = True
    """On the CPU, compute a LoRA layer as one function, forward and backward (without dropout, not DoRA)."""
    packed_weights: bool = True
    """On an x86 CPU, keep frozen weights of up to 2 GiB in the order in which they are multiplied as well."""
    joined_rows: bool = True
    """On the CPU, lay the rows of a batch one after another, so that nothing is computed for padding."""
    shared_preamble: bool = True
    """Compute the tokens that prompts of one kind begin with once per batch (without dropout, and off CUDA)."""
    length_buckets: bool = True
    """Batches of rows of like length, so that little is padded; the order stays shuffled."""
    cache: bool = True
    """Keep prepared rows for the next run, by content, never stale; PEFT_INSTRUCT_CACHE names the folder, or `off`."""
    frozen_weights: Literal["auto", "fp32"] = "auto"
    """How a frozen base is held under LoRA: `auto` in `training.precision`, so that nothing is cast at each step."""
