"""The formula against GPT-2's published shape, and against what torch itself counts."""

from __future__ import annotations

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch.utils.flop_counter import FlopCounterMode
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from peft_instruct.bench.flops import Matrices, TokenCounts, matrices_of

WIDTH, LAYERS, VOCABULARY, RANK, LENGTH = 32, 2, 96, 4, 16
TARGETS = ["c_attn", "c_proj", "c_fc"]


def small_gpt2() -> GPT2LMHeadModel:
    config = GPT2Config(
        vocab_size=VOCABULARY, n_positions=LENGTH, n_embd=WIDTH, n_layer=LAYERS, n_head=4,
        attn_implementation="eager",
    )  # fmt: skip
    return GPT2LMHeadModel(config)


def with_adapter(model: torch.nn.Module, rank: int) -> torch.nn.Module:
    return get_peft_model(model, LoraConfig(r=rank, target_modules=TARGETS, fan_in_fan_out=True))


def counted_by_torch(model: torch.nn.Module) -> int:
    """FLOPs of every matrix product of one row, forward and backward, a label on every position."""
    ids = torch.arange(LENGTH).unsqueeze(0)
    with FlopCounterMode(display=False) as counter:
        model(input_ids=ids, use_cache=False).logits.sum().backward()
    return int(counter.get_total_flops())


# torch multiplies all T² pairs and masks half of them away, and its head sees every position.
AS_TORCH_COMPUTES = TokenCounts(
    num_tokens=LENGTH, num_completion_tokens=LENGTH, num_positions=LENGTH, num_pairs=LENGTH * LENGTH
)


def test_gpt2_124m_has_85_million_block_weights_and_a_head_of_39_million() -> None:
    with torch.device("meta"):
        model = GPT2LMHeadModel(GPT2Config())
    found = matrices_of(model, model.config)
    # Per block 3 + 1 + 4 + 4 squares of the width 768, of which 9 stand behind attention; the head is 50,257 by 768.
    assert found == Matrices(12 * 12 * 768**2, 50257 * 768, 0, layers=12, attention_width=768, late_blocks=9 * 768**2)


def test_lora_of_rank_16_on_all_of_gpt2_124m_costs_4_n_and_6_a_per_token() -> None:
    with torch.device("meta"):
        model = GPT2LMHeadModel(GPT2Config())
        found = matrices_of(with_adapter(model, rank=16), model.config)
    assert found.adapter == 2_359_296
    prompt_token = TokenCounts(num_tokens=1, num_completion_tokens=0, num_positions=1, num_pairs=0)
    learned_token = TokenCounts(num_tokens=1, num_completion_tokens=1, num_positions=1, num_pairs=0)
    assert found.flops(learned_token) == 4 * (84_934_656 + 38_597_376) + 6 * 2_359_296
    # Behind the last attention: 9 of the block's squares, and of the adapter 2 + 5 + 5 widths by its rank.
    late = 4 * 9 * 768**2 + 6 * 12 * 768 * 16
    assert found.flops(prompt_token) == 4 * 84_934_656 + 6 * 2_359_296 - late


def test_full_training_needs_what_torch_counts() -> None:
    model = small_gpt2()
    assert matrices_of(model, model.config).flops(AS_TORCH_COMPUTES) == counted_by_torch(model)


def test_lora_needs_what_torch_counts_but_for_the_first_matrix() -> None:
    base = small_gpt2()
    model = with_adapter(base, RANK)
    # Nothing in front of the first matrix learns, so torch leaves out the gradient of its input: 2 FLOPs a weight.
    never_asked_for = 2 * LENGTH * (WIDTH * 3 * WIDTH + WIDTH * RANK)
    assert matrices_of(model, base.config).flops(AS_TORCH_COMPUTES) - never_asked_for == counted_by_torch(model)


def test_heads_wider_than_the_residual_stream_are_counted_at_their_own_width() -> None:
    config = LlamaConfig(
        vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=4,
        num_key_value_heads=2, head_dim=16,
    )  # fmt: skip
    with torch.device("meta"):
        found = matrices_of(LlamaForCausalLM(config), config)
    assert found.attention_width == 4 * 16
    assert found.blocks == 32 * 64 + 2 * 32 * 32 + 64 * 32 + 3 * 32 * 64
    assert found.head == 64 * 32


@pytest.mark.parametrize("adapter", [0, 7])
def test_padding_costs_nothing(adapter: int) -> None:
    matrices = Matrices(blocks=100, head=10, adapter=adapter, layers=1, attention_width=4)
    tight = TokenCounts(num_tokens=8, num_completion_tokens=3, num_positions=8, num_pairs=20)
    padded = TokenCounts(num_tokens=8, num_completion_tokens=3, num_positions=64, num_pairs=20)
    assert matrices.flops(tight) == matrices.flops(padded)


def test_a_preamble_that_is_computed_once_costs_as_much_as_in_one_row() -> None:
    """Three rows of 5 tokens of which the first two are the same: 2 more rows, 2 + 1 pairs within their preambles."""
    matrices = Matrices(blocks=100, head=10, adapter=7, layers=1, attention_width=4)
    shared = TokenCounts(15, 3, 15, 3 * 15, num_spared=4, num_spared_pairs=6)
    once = TokenCounts(11, 3, 11, 3 * 15 - 6)
    assert matrices.flops(shared) == matrices.flops(once)
    assert shared + shared == TokenCounts(30, 6, 30, 90, 8, 12)
