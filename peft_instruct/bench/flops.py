"""How much arithmetic a step needs, by a closed formula.

    a weight's product with one token: 2 FLOPs forward, 2 for the gradient of its input, 2 for its own gradient

(Kaplan et al. 2020, arXiv:2001.08361, section 2.1). So a matrix that learns costs 6 per weight and token, a frozen one
beneath an adapter 4, since nobody asks for its own gradient: 6 N for full training, 4 N + 6 A for an adapter of A
weights. Attention multiplies queries with keys and weights with values: 12 · layers · width per pair of tokens
(Chowdhery et al. 2022, arXiv:2204.02311, appendix B, which counts all T² pairs; a causal model has T (T + 1) / 2).

Counted is what the result needs, so that waste lowers the figure and skill does not raise it: no padding, no
recomputation (gradient checkpointing), the language-model head, and what of the last block nothing else reads, only
where a token is learned, and a preamble that rows of a batch share once where it was computed once. Left out as
small: embeddings, norms, activation functions, softmax, optimizer, DoRA's column norms, GPT-Neo's local attention
windows (counted as global).
"""

from __future__ import annotations

from dataclasses import astuple, dataclass

import torch
from transformers import PreTrainedConfig
from transformers.pytorch_utils import Conv1D

from peft_instruct.model.last_block import after_last_attention

FORMULAS = {
    "lora": "(4 N + 6 A) per token + (4 H + 4 E + 6 F) per learned token + 12 L W per attended pair",
    "full": "6 N per token + 6 (H + E) per learned token + 12 L W per attended pair",
}
LEGEND = (
    "N weights of the blocks' matrices, A of the adapter, of both without those behind the last attention (E, and F of "
    "the adapter), H of the head, L layers, W attention width; a preamble that was computed once for several "
    "rows of a batch counts once"
)


@dataclass(frozen=True)
class TokenCounts:
    """What a batch, a step or a run holds.

    Attributes:
        num_tokens: real tokens, padding not counted.
        num_completion_tokens: tokens whose label is learned; the first of a row never is, nothing predicts it.
        num_positions: of the padded batches.
        num_pairs: pairs of a token with itself or an earlier one of its row.
        num_spared: tokens among them whose states were another row's, computed already.
        num_spared_pairs: pairs of such tokens.
    """

    num_tokens: int = 0
    num_completion_tokens: int = 0
    num_positions: int = 0
    num_pairs: int = 0
    num_spared: int = 0
    num_spared_pairs: int = 0

    def __add__(self, other: TokenCounts) -> TokenCounts:
        return TokenCounts(*(mine + others for mine, others in zip(astuple(self), astuple(other), strict=True)))


@dataclass(frozen=True)
class Matrices:
    """How many weights a model multiplies with.

    Attributes:
        blocks: of the linear layers of all blocks, without the adapter.
        head: of the language-model head, shared with the embedding or not.
        adapter: of the LoRA matrices; 0 in full training.
        late_blocks, late_adapter: of these behind the last attention, which the head alone reads.
        attention_width: heads times head size.
    """

    blocks: int
    head: int
    adapter: int
    layers: int
    attention_width: int
    late_blocks: int = 0
    late_adapter: int = 0

    @property
    def formula(self) -> str:
        return FORMULAS["lora" if self.adapter else "full"]

    def flops(self, counts: TokenCounts) -> int:
        """Forward and backward of `counts`, by `formula`."""
        per_frozen_weight = 4 if self.adapter else 6
        per_token = per_frozen_weight * self.blocks + 6 * self.adapter
        per_token_read = per_frozen_weight * self.late_blocks + 6 * self.late_adapter
        return (
            (per_token - per_token_read) * (counts.num_tokens - counts.num_spared)
            + (per_token_read + per_frozen_weight * self.head) * counts.num_completion_tokens
            + 12 * self.layers * self.attention_width * (counts.num_pairs - counts.num_spared_pairs)
        )


def matrices_of(model: torch.nn.Module, config: PreTrainedConfig) -> Matrices:
    """The matrices of a model, with or without an adapter; quantised ones count as what they stand for."""
    text = config.get_text_config()
    late = {each for module in after_last_attention(model, text) for each in module.modules()}
    blocks = head = adapter = late_blocks = late_adapter = 0
    for name, module in model.named_modules():
        size = _num_weights(module)
        if ".lora_" in name:
            adapter += size
            late_adapter += size if module in late else 0
        elif name.rpartition(".")[2] in ("lm_head", "embed_out"):
            head += size
        else:
            blocks += size
            late_blocks += size if module in late else 0
    heads = text.num_attention_heads
    head_size = getattr(text, "head_dim", None) or text.hidden_size // heads
    width = heads * head_size
    return Matrices(blocks, head, adapter, text.num_hidden_layers, width, late_blocks, late_adapter)


def _num_weights(module: torch.nn.Module) -> int:
    # By what the layer maps, not by its weight: a 4-bit weight holds two values in a byte.
    if isinstance(module, torch.nn.Linear):
        return module.in_features * module.out_features
    return module.nx * module.nf if isinstance(module, Conv1D) else 0
