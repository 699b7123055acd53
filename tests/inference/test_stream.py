"""Streaming: whole characters, the same text as without it, and errors that come out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from rigged import byte_ids, chain_model, chain_of

from peft_instruct.inference.complete import complete, decoded
from peft_instruct.inference.stream import HALF_A_CHARACTER, TextPieces, stream
from peft_instruct.model.tokenizer import load_tokenizer
from peft_instruct.recipe.schema import GenerationSection

WHERE = {"positions": 64, "device": torch.device("cpu")}


@pytest.fixture(scope="module")
def tokenizer(tiny_base_folder: Path) -> Any:
    return load_tokenizer(tiny_base_folder)


def test_an_emoji_and_a_chinese_character_come_out_whole(tokenizer: Any) -> None:
    model = chain_model(tokenizer, chain_of(tokenizer, "!", "a🙂東z"))
    pieces: list[str] = []
    generation = stream(model, tokenizer, "!", GenerationSection(max_new_tokens=20), pieces.append, **WHERE)
    assert pieces == ["a", "🙂", "東", "z"]
    assert generation.completion == "a🙂東z"
    assert generation.stopped
    assert generation.num_tokens == 1 + 4 + 3 + 1 + 1


def test_a_completion_that_ends_inside_a_character_says_so_once_at_the_end(tokenizer: Any) -> None:
    model = chain_model(tokenizer, chain_of(tokenizer, "!", "a🙂"))
    pieces: list[str] = []
    generation = stream(model, tokenizer, "!", GenerationSection(max_new_tokens=3), pieces.append, **WHERE)
    assert pieces[0] == "a"
    assert "".join(pieces) == generation.completion
    assert HALF_A_CHARACTER in pieces[-1]
    assert not generation.stopped


@pytest.mark.parametrize("temperature", [0.0, 1.3])
def test_a_streamed_completion_is_the_completion(tokenizer: Any, temperature: float) -> None:
    model = chain_model(tokenizer, chain_of(tokenizer, "!", "abcdefg"))
    options = GenerationSection(max_new_tokens=30, temperature=temperature)
    pieces: list[str] = []
    streamed = stream(model, tokenizer, "!", options, pieces.append, seed=5, **WHERE)
    assert [streamed] == complete(model, tokenizer, ["!"], options, seed=5, **WHERE)
    assert "".join(pieces) == streamed.completion


def test_an_error_while_streaming_is_raised_to_the_caller(tokenizer: Any) -> None:
    def closed(text: str) -> None:
        raise BrokenPipeError(text)

    model = chain_model(tokenizer, chain_of(tokenizer, "!", "ab"))
    with pytest.raises(BrokenPipeError):
        stream(model, tokenizer, "!", GenerationSection(max_new_tokens=5), closed, **WHERE)


@pytest.fixture(scope="module")
def pieces_of(tokenizer: Any) -> Any:
    """Ids, some at a time -> the pieces of text, the rest last."""

    def pieces(ids: list[int]) -> list[str]:
        told = TextPieces(tokenizer)
        return [*(told.add([each]) for each in ids), told.rest()]

    return pieces


@given(text=st.text(max_size=30))
def test_pieces_of_any_text_are_whole_and_join_to_it(tokenizer: Any, pieces_of: Any, text: str) -> None:
    pieces = pieces_of(byte_ids(tokenizer, text))
    assert "".join(pieces) == text
    if HALF_A_CHARACTER not in text:
        assert HALF_A_CHARACTER not in "".join(pieces)


@given(ids=st.lists(st.integers(0, 511), max_size=40))
def test_pieces_of_any_ids_join_to_what_they_decode_to(tokenizer: Any, pieces_of: Any, ids: list[int]) -> None:
    assert "".join(pieces_of(ids)) == decoded(tokenizer, ids)
