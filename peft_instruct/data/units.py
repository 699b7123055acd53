"""Words, or whole texts, and their ids: each is tokenised once, in the background."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future
from itertools import chain, islice
from typing import Any

import numpy as np

from peft_instruct.data.words import texts_of

Flat = tuple[Sequence[int] | np.ndarray, Sequence[int] | np.ndarray]
"""Ids of many texts one behind the other, and how many each has."""
Tokenizer = Any  # transformers.PreTrainedTokenizerBase; named here so that this room needs no transformers

WORDS_AT_ONCE = 512
"""Words that one thread of the tokenizer takes."""


def text_ids(tokenizer: Tokenizer, texts: Sequence[str]) -> list[list[int]]:
    """Ids of texts in one batched call, nothing added, special tokens in the text read as text."""
    if not texts:
        return []
    encoded = tokenizer(
        list(texts),
        add_special_tokens=False,
        split_special_tokens=True,
        return_attention_mask=False,
        verbose=False,
    )
    return list(encoded["input_ids"])


class Units:
    """Words, or whole texts, or ids that stand for themselves, each with its ids once they are there."""

    def __init__(self, tokenizer: Tokenizer, tokenizing: Executor) -> None:
        self._tokenizer, self._tokenizing = tokenizer, tokenizing
        self._places: dict[bytes | int, int] = {}
        self._awaited: list[Future[Flat]] = []
        self._ids, self._ends = np.empty(0, np.int32), np.zeros(1, np.int64)

    def __len__(self) -> int:
        return len(self._places)

    def numbers(self, units: Sequence[Any], ids_of: Callable[[Tokenizer, Sequence[Any]], Flat]) -> np.ndarray:
        """The place of each unit, int32; those that are new are given to the tokenizer."""
        places, num_known = self._places, len(self._places)
        found = np.array([places.setdefault(unit, len(places)) for unit in units], np.int32)
        if len(places) > num_known:
            new = list(islice(places, num_known, None))
            self._awaited.append(self._tokenizing.submit(ids_of, self._tokenizer, new))
        return found

    def ids(self, num_units: int) -> tuple[np.ndarray, np.ndarray]:
        """Of that many units at least, one behind the other: ids, int32, and where each one's end, from 0 on, int64."""
        while len(self._ends) <= num_units:
            ids, counts = self._awaited.pop(0).result()
            self._ids = np.append(self._ids, np.array(ids, np.int32))
            self._ends = np.append(self._ends, self._ends[-1] + np.cumsum(counts))
        return self._ids, self._ends


def is_cut_before_spaces(tokenizer: Tokenizer) -> bool:
    """Whether the pieces of a text (data/words.py), tokenised apart, have the ids of the whole.

    True of GPT-2's byte-level BPE: its pattern parts a text there whatever stands around, and merges stay within a part
    (tokenizers, pre_tokenizers/byte_level.rs). Of the words of a data set nine in ten have come before.
    """
    from tokenizers import models, pre_tokenizers

    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None or not all(token.special for token in tokenizer.added_tokens_decoder.values()):
        return False
    parts, model = backend.pre_tokenizer, backend.model
    return (
        isinstance(parts, pre_tokenizers.ByteLevel)
        and (parts.add_prefix_space, parts.use_regex) == (False, True)
        and isinstance(model, models.BPE)
        and not model.dropout
        and backend.normalizer is None
    )


def word_ids(tokenizer: Tokenizer, words: Sequence[bytes]) -> Flat:
    """As `text_ids`, in half the time for texts that are words."""
    some = [texts_of(words[start : start + WORDS_AT_ONCE]) for start in range(0, len(words), WORDS_AT_ONCE)]
    encoded = tokenizer(
        some,
        is_split_into_words=True,
        add_special_tokens=False,
        split_special_tokens=True,
        return_attention_mask=False,
        verbose=False,
    )
    counts = [np.bincount(encoded.word_ids(number), minlength=len(those)) for number, those in enumerate(some)]
    return np.concatenate([np.array(ids, np.int32) for ids in encoded["input_ids"]]), np.concatenate(counts)


def whole_ids(tokenizer: Tokenizer, texts: Sequence[bytes]) -> Flat:
    ids = text_ids(tokenizer, texts_of(texts))
    return list(chain.from_iterable(ids)), list(map(len, ids))


def own_ids(_: Tokenizer, tokens: Sequence[int]) -> Flat:
    return tokens, [1] * len(tokens)
