"""Rows together, rows that leave early, and a cache with room: none of it changes a completion."""

from __future__ import annotations

import torch
from transformers import DynamicCache, GPT2Config, GPT2LMHeadModel, LlamaConfig

from peft_instruct.inference.batches import LEAST_ROWS, MOST_CACHE_BYTES, MOST_ROWS, batches, roomy_cache
from peft_instruct.inference.prompts import FittedPrompt
from peft_instruct.model.cache_name import as_cache

GPT2 = GPT2Config()


def prompts_of(*lengths: int, limit: int = 64) -> list[FittedPrompt]:
    return [FittedPrompt(tuple(range(length)), limit, 0) for length in lengths]


def test_every_prompt_is_in_one_batch_with_prompts_of_its_length_and_limit() -> None:
    fitted = prompts_of(*range(1, 100)) + prompts_of(5, 5, limit=3)
    found = list(batches(fitted, 8, GPT2))
    assert sorted(index for batch in found for index in batch) == list(range(101))
    assert all(len(batch) <= 8 and len({fitted[index].limit for index in batch}) == 1 for batch in found)
    lengths = [len(fitted[index].ids) for batch in found for index in batch if fitted[index].limit == 64]
    assert lengths == sorted(lengths, reverse=True)


def test_a_batch_holds_as_many_rows_as_their_keys_and_values_allow() -> None:
    """Closed form: a token of GPT-2 takes 12 layers × 2 × 768 × 4 bytes."""
    assert [len(batch) for batch in batches(prompts_of(*[50] * 200), None, GPT2)] == [64, 64, 64, 8]
    (first, *_) = batches(prompts_of(*[400] * 100), None, GPT2)
    assert len(first) == MOST_CACHE_BYTES // (464 * 12 * 2 * 768 * 4) == 23
    (first, *_) = batches(prompts_of(*[900] * 100), None, GPT2Config(n_layer=48, n_embd=1600, n_head=25))
    assert len(first) == LEAST_ROWS < MOST_ROWS
    grouped = LlamaConfig(num_hidden_layers=12, hidden_size=768, num_attention_heads=12, num_key_value_heads=6)
    (first, *_) = batches(prompts_of(*[400] * 100), None, grouped)
    assert len(first) == 47, "half the heads of keys and values, twice the rows and the odd one"


def test_no_batch_is_wider_than_the_models_positions() -> None:
    """The longest preamble and the longest part of their own may be those of two rows."""
    fitted = [FittedPrompt(tuple(range(80)), 20, 0, num_shared=shared) for shared in (10, 60, 10, 60, 0)]
    assert list(batches(fitted, None, GPT2Config(n_positions=160))) == [[4, 0, 2, 1, 3]]
    assert list(batches(fitted, None, GPT2Config(n_positions=159))) == [[4, 0, 2], [1, 3]]
    assert list(batches(fitted, 8, GPT2Config(n_positions=100))) == [[4], [0, 2], [1, 3]]


def test_a_cache_with_room_holds_what_the_plain_one_holds() -> None:
    config = GPT2Config(n_layer=2, n_embd=32, n_head=2, n_positions=32, vocab_size=64)
    torch.manual_seed(0)
    model = GPT2LMHeadModel(config).eval()
    plain, roomy = DynamicCache(config=config), roomy_cache(config, 12)
    with torch.no_grad():
        for ids in (torch.randint(64, (3, 5)), torch.randint(64, (3, 1)), torch.randint(64, (3, 1))):
            expected = model(input_ids=ids, **as_cache(plain)).logits
            assert torch.equal(model(input_ids=ids, **as_cache(roomy)).logits, expected)
        for cache in (plain, roomy):
            cache.batch_select_indices(torch.tensor([2, 0]))
        ids = torch.randint(64, (2, 1))
        expected = model(input_ids=ids, **as_cache(plain)).logits
        assert torch.equal(model(input_ids=ids, **as_cache(roomy)).logits, expected)
    assert roomy.get_seq_length() == 8
    assert torch.equal(roomy.layers[1].keys, plain.layers[1].keys)
    # One piece of memory for all of it.
    assert roomy.layers[0].keys.stride(1) == 12 * 16
