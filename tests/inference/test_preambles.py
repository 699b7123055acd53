"""What prompts begin with in common is computed once, and no completion changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from families import PROMPTS, decided_model, tiny_configs
from tiny import VOCABULARY
from transformers import PreTrainedConfig

import peft_instruct.inference.preambles as sharing
from peft_instruct.inference.complete import complete
from peft_instruct.inference.preambles import SHORTEST_PREAMBLE, laid_out, with_shared
from peft_instruct.inference.prompts import FittedPrompt, fit_prompts
from peft_instruct.model.tokenizer import load_tokenizer
from peft_instruct.recipe.schema import GenerationSection

CPU = torch.device("cpu")
BEGINNING = tuple(range(100, 100 + SHORTEST_PREAMBLE))
CONFIGS = tiny_configs(width=32, positions=256, vocabulary=VOCABULARY)


def prompts_of(*ids: tuple[int, ...]) -> list[FittedPrompt]:
    return [FittedPrompt(each, 8, 0) for each in ids]


def shared(*ids: tuple[int, ...], config: PreTrainedConfig = CONFIGS["gpt2"]) -> list[int]:
    return [prompt.num_shared for prompt in with_shared(prompts_of(*ids), config)]


def test_prompts_of_one_beginning_share_all_that_they_have_in_common() -> None:
    other = tuple(range(200, 200 + SHORTEST_PREAMBLE))
    found = shared((*BEGINNING, 1, 2, 3), (*other, 4, 5), (7, 8), (*BEGINNING, 1, 9), (*other, 4, 6, 6))
    assert found == [17, 17, 0, 17, 17]
    assert shared((*BEGINNING, 1), (*other, 1)) == [0, 0], "nobody to share it with"
    assert shared((*BEGINNING[:-1], 1), (*BEGINNING[:-1], 2)) == [0, 0], "one token too short"


def test_every_prompt_keeps_a_token_of_its_own() -> None:
    same = (*BEGINNING, 1, 2)
    assert shared(same, same) == [17, 17]
    assert shared(BEGINNING, same) == [0, 0]


def test_many_beginnings_share_within_their_memory_those_that_save_the_most(monkeypatch: pytest.MonkeyPatch) -> None:
    """Closed form: a token takes 2 layers × 2 × 32 × 4 bytes."""
    pairs = [(*range(start, start + 40), end) for start in range(0, 1000, 50) for end in (2000, 2001)]
    triple = [(*range(1500, 1530), end) for end in (2000, 2001, 2002)]
    assert shared(*pairs, *triple) == [40] * 40 + [30] * 3
    monkeypatch.setattr(sharing, "MOST_PREAMBLE_BYTES", 512 * (30 + 3 * 40 + 39))
    assert shared(*pairs, *triple) == [40] * 6 + [0] * 34 + [30] * 3


def test_a_batch_is_laid_out_as_its_cache_is_filled() -> None:
    batch = [FittedPrompt((1, 2, 3, 4), 8, 0, num_shared=3), FittedPrompt((5, 6), 8, 0), FittedPrompt((1, 7), 8, 0, 1)]
    ids, mask = laid_out(batch, 0)
    assert ids == [[1, 2, 3, 0, 4], [0, 0, 0, 5, 6], [0, 0, 1, 0, 7]]
    assert mask == [[1, 1, 1, 0, 1], [0, 0, 0, 1, 1], [0, 0, 1, 0, 1]]
    assert laid_out(prompts_of((1, 2), (3,)), 0) == ([[1, 2], [0, 3]], [[1, 1], [0, 1]])


@pytest.fixture(scope="module")
def tokenizer(tiny_base_folder: Path) -> Any:
    return load_tokenizer(tiny_base_folder)


@pytest.mark.parametrize("family", CONFIGS)
def test_a_shared_preamble_changes_no_completion_and_is_computed_once(tokenizer: Any, family: str) -> None:
    """Nor does the rest of the batch: each prompt alone shares nothing and has no padding."""
    model = decided_model(CONFIGS[family])
    num_computed: list[int] = []
    embedding = model.get_input_embeddings()
    embedding.register_forward_hook(lambda module, given, out: num_computed.append(given[0].numel()))
    num_logits: list[int] = []
    model.get_output_embeddings().register_forward_hook(lambda module, given, out: num_logits.append(out.shape[1]))

    def completed(prompts: list[Any], **options: int) -> list[Any]:
        section = GenerationSection(**options)
        return complete(model, tokenizer, prompts, section, positions=256, device=CPU, batch_size=20)

    alone = [each for prompt in PROMPTS for each in completed([prompt], max_new_tokens=12)]
    assert completed(PROMPTS, max_new_tokens=12) == alone
    assert len({each.completion for each in alone}) > 3, "the model tells prompts apart"
    fitted = with_shared(fit_prompts(tokenizer, PROMPTS, positions=256, max_new_tokens=1), CONFIGS[family])
    preambles = {prompt.ids[: prompt.num_shared] for prompt in fitted if prompt.num_shared}
    # Models that look back a limited number of places share nothing.
    assert len(preambles) == (0 if family in ("gpt_neo", "mistral") else 2)
    num_computed.clear()
    num_logits.clear()
    completed(PROMPTS, max_new_tokens=1)
    assert not preambles or num_logits == [1] * (len(preambles) + 1)
    longest_own = max(len(prompt.ids) - prompt.num_shared for prompt in fitted)
    assert sorted(num_computed) == [*sorted(map(len, preambles)), len(PROMPTS) * longest_own]


def test_prompts_that_fill_the_positions_share_their_beginnings(tokenizer: Any) -> None:
    """Two preambles of unlike length, the plain attention, and no position to spare."""
    config = tiny_configs(width=32, positions=96, vocabulary=VOCABULARY)["gpt2"]
    model = decided_model(config, attn_implementation="eager")
    prompts = ["~" * 60 + end * 20 for end in "{}"] + ["^" * 20 + end * 60 for end in "{}"]
    fitted = with_shared(fit_prompts(tokenizer, prompts, positions=96, max_new_tokens=16), config)
    assert [(len(each.ids), each.limit, each.num_shared) for each in fitted] == [(80, 16, 60)] * 2 + [(80, 16, 20)] * 2
    widths: list[int] = []
    model.transformer.h[0].attn.register_forward_hook(lambda module, given, out: widths.append(out[1].shape[-1]))
    options = GenerationSection(max_new_tokens=16)

    def completed(asked: list[str]) -> list[Any]:
        return complete(model, tokenizer, asked, options, positions=96, device=CPU)

    assert completed(prompts) == [each for prompt in prompts for each in completed([prompt])]
    assert max(widths) <= 96
