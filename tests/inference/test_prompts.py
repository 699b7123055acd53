"""Prompts as the model is given them: the ids of training, and always room for a completion."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny import tiny_rows

from peft_instruct.data.templates import ALPACA
from peft_instruct.data.tokens import tokenize
from peft_instruct.data.types import Example
from peft_instruct.inference.complete import complete
from peft_instruct.inference.prompts import fit_prompts
from peft_instruct.model.base import load_base
from peft_instruct.model.device import choose_compute
from peft_instruct.model.location import Location
from peft_instruct.model.tokenizer import load_tokenizer
from peft_instruct.recipe.model_section import ModelSection
from peft_instruct.recipe.schema import GenerationSection

POSITIONS = 256
HEADER = "\n\n### Response:\n"
NASTY = [
    "<|endoftext|>",
    "ends in a colon:",
    "ends in spaces   ",
    "\n\n",
    "naïve café 東京 🙂",
    "{input} {instruction}",
]


@pytest.fixture(scope="module")
def tokenizer(tiny_base_folder: Path) -> Any:
    return load_tokenizer(tiny_base_folder)


def test_generation_and_training_see_identical_prompt_ids(tokenizer: Any) -> None:
    examples = [Example(row["instruction"], row["input"], row["output"], "here") for row in tiny_rows()]
    examples += [Example(text, other, "\n- " + text, "here") for text in NASTY for other in ("", *NASTY)]
    rows = [ALPACA.render(example) for example in examples]
    trained, _ = tokenize(rows, tokenizer, max_length=100_000)
    fitted = fit_prompts(tokenizer, [row.prompt for row in rows], positions=100_000, max_new_tokens=64)
    for tokens, prompt in zip(trained, fitted, strict=True):
        assert prompt.ids == tokens.input_ids[: tokens.prompt_length]
        assert prompt.num_cut == 0
        assert tokenizer.eos_token_id not in prompt.ids, "text of a user that spells the stop token stays text"


@pytest.mark.parametrize("num_words", [1, 40, 45, 50, 55, 60, 80, 300])
@pytest.mark.parametrize("max_new_tokens", [1, 16, 64, 200, 1000])
def test_a_prompt_near_or_past_the_limit_keeps_its_response_header(
    tokenizer: Any, num_words: int, max_new_tokens: int
) -> None:
    prompt = ALPACA.prompt("opposite " * num_words)
    whole = fit_prompts(tokenizer, [prompt], positions=100_000, max_new_tokens=1)[0].ids
    (fitted,) = fit_prompts(tokenizer, [prompt], positions=POSITIONS, max_new_tokens=max_new_tokens)
    assert len(fitted.ids) + fitted.limit <= POSITIONS
    assert fitted.limit >= min(max_new_tokens, POSITIONS // 4)
    assert fitted.ids == whole[fitted.num_cut :]
    assert tokenizer.decode(fitted.ids).endswith(HEADER)
    assert (fitted.num_cut == 0) == (len(whole) + min(max_new_tokens, POSITIONS // 4) <= POSITIONS)


def test_no_length_of_prompt_runs_out_of_positions(tiny_base_folder: Path) -> None:
    location = Location(str(tiny_base_folder), tiny_base_folder)
    base = load_base(ModelSection(base=str(tiny_base_folder)), location, choose_compute("cpu", "fp32"))
    prompts = [ALPACA.prompt("big " * num_words) for num_words in (0, 60, 70, 80, 90, 100, 120, 400)]
    device = torch.device("cpu")
    # 120 is more than a quarter of the positions: rows have limits of their own then, with 20 they share one.
    for max_new_tokens in (20, 120):
        options = GenerationSection(max_new_tokens=max_new_tokens)
        together = complete(base.model, base.tokenizer, prompts, options, positions=POSITIONS, device=device)
        alone = complete(
            base.model, base.tokenizer, prompts, options, positions=POSITIONS, device=device, batch_size=1
        )  # fmt: skip
        assert together == alone
        assert any(generation.num_cut for generation in together)
        assert not all(generation.num_cut for generation in together)


def test_an_empty_prompt_begins_where_a_text_begins(tokenizer: Any) -> None:
    (fitted,) = fit_prompts(tokenizer, [""], positions=POSITIONS, max_new_tokens=8)
    assert fitted.ids == (tokenizer.bos_token_id,)


@given(text=st.text(max_size=400), positions=st.integers(2, 300), max_new_tokens=st.integers(1, 400))
def test_prompt_and_completion_always_fit(text: str, positions: int, max_new_tokens: int) -> None:
    (fitted,) = fit_prompts(_Bytes(), [text], positions=positions, max_new_tokens=max_new_tokens)
    assert len(fitted.ids) >= 1
    assert fitted.limit >= 1
    assert len(fitted.ids) + fitted.limit <= positions
    assert fitted.limit <= max_new_tokens


class _Bytes:
    """A tokenizer of one token a byte."""

    bos_token_id = None
    eos_token_id = 256

    def __call__(self, texts: Any, **_: Any) -> dict[str, Any]:
        if isinstance(texts, str):
            return {"input_ids": list(texts.encode())}
        return {"input_ids": [list(text.encode()) for text in texts]}
