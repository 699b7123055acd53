"""PromptCompletion -> Tokens: the mask contract of this toolkit.

Prompt and completion are tokenised apart and their ids joined, so the boundary is exact by construction and the
prompt of training is the prompt of generation, id for id (a byte-level BPE that sees the joined text merges across
it: with GPT-2's, a prompt that ends in a colon swallows the first letter of nine in twenty-five completions). The
stop token is appended as an id. Text of the user that spells a special token stays text; only the template's own
words may name one. Every answer of a conversation is a completion with a stop token of its own.
"""

from __future__ import annotations

import re
import sys
from array import array
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice, pairwise

import numpy as np

from peft_instruct.data.limits import Encoded, fit
from peft_instruct.data.packing import pack
from peft_instruct.data.table import TokenTable, ranges
from peft_instruct.data.types import ANSWERS, LengthReport, Prompt, PromptCompletion, Span
from peft_instruct.data.units import Tokenizer, Units, is_cut_before_spaces, own_ids, whole_ids, word_ids
from peft_instruct.data.words import Words
from peft_instruct.recipe.data_section import DataSection

ROWS_AT_ONCE = 4096
"""Rows of one batched call: the tokenizer keeps the texts and places of all tokens of a call, many times their ids."""
MOST_KNOWN = 1 << 20
"""Words whose ids are kept from one batched call to the next: about 200 MB."""


def prompt_ids(tokenizer: Tokenizer, prompts: Sequence[str]) -> list[list[int]]:
    """Ids of prompts, with the beginning-of-text token where the tokenizer itself puts one."""
    with ThreadPoolExecutor(1) as tokenizing:
        encoder = _Encoder(tokenizer, tokenizing)
        for prompt in prompts:
            encoder.add_prompt(prompt)
            encoder.end()
        ids, _, ends = encoder.take().ids()
    return [ids[start:end].tolist() for start, end in pairwise(ends)]


@dataclass(frozen=True)
class _Taken:
    """Prompts and completions that may still be with the tokenizer.

    Attributes:
        numbers: of their units, one behind the other, (W,) int32.
        num_units: how many there were, then, of which ids are needed.
        part_ends: where each part's units end, from 0 on, (A + 1,) int64.
        learned: whether a part is learned, (A,) bool.
        ends: where the parts of each prompt and of each completion end, from 0 on, int64.
    """

    units: Units
    numbers: np.ndarray
    num_units: int
    part_ends: np.ndarray
    learned: np.ndarray
    ends: np.ndarray

    def ids(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Ids, (N,) int32, whether each is learned, (N,) bool, and the ends of prompts and completions, int64."""
        unit_ids, unit_ends = self.units.ids(self.num_units)
        lengths = np.diff(unit_ends)[self.numbers]
        ids = unit_ids[ranges(unit_ends[self.numbers], lengths)]
        part_ends = np.append(0, np.cumsum(lengths))[self.part_ends]
        return ids, np.repeat(self.learned, np.diff(part_ends)), part_ends[self.ends]


class _Encoder:
    """Takes prompts and completions and gives their ids: what comes in many of them is tokenised once."""

    # A parts added since the last `take`, W units of them

    def __init__(self, tokenizer: Tokenizer, tokenizing: Executor) -> None:
        self.tokenizer = tokenizer
        self._start = start_ids(tokenizer)
        self._by_words = is_cut_before_spaces(tokenizer)
        self._named: re.Pattern[str] | None = None
        self._split: dict[str, list[str]] = {}
        self._tokenizing = tokenizing
        self._units = Units(tokenizer, tokenizing)
        self._begin()

    def add_prompt(self, prompt: str) -> None:
        parts = list(self._parts(prompt))
        for token in self._start:
            # A chat template may spell the beginning-of-text token itself; twice is once too often.
            if parts[:1] != [(token, False)]:
                self.add(token, False)
        for part, learned in parts:
            self.add(part, learned)

    def add(self, part: str | int, learned: bool) -> None:
        """A text that is tokenised apart, or an id."""
        self._texts.append(part if isinstance(part, str) else "")
        self._ids.append(-1 if isinstance(part, str) else part)
        self._learned.append(learned)

    def end(self) -> None:
        """The prompt, or the completion, is whole."""
        self._ends.append(len(self._texts))

    def take(self) -> _Taken:
        """All that was added since the last time, cut into units; those that are new are being tokenised."""
        words = Words.of(self._texts, cut=self._by_words)
        numbers_W = self._units.numbers(words.distinct, word_ids if self._by_words else whole_ids)[words.numbers]
        parts = np.flatnonzero(np.array(self._ids) >= 0)
        known = self._units.numbers([self._ids[part] for part in parts.tolist()], own_ids)
        counts_A = np.diff(words.ends)
        counts_A[parts] += 1
        taken = _Taken(
            self._units,
            np.insert(numbers_W, words.ends[parts], known),
            len(self._units),
            np.append(0, np.cumsum(counts_A)),
            np.array(memoryview(self._learned), dtype=np.bool_),
            np.array(self._ends),
        )
        self._begin()
        if not self._by_words or len(self._units) > MOST_KNOWN:  # whole texts do not come again
            self._units = Units(self.tokenizer, self._tokenizing)
        return taken

    def _begin(self) -> None:
        self._texts: list[str] = []
        self._ids, self._learned, self._ends = array("i"), bytearray(), array("q", [0])

    def _parts(self, prompt: str) -> Iterator[tuple[str | int, bool]]:
        """Texts that are tokenised apart, and ids of special tokens, each with whether it is learned."""
        if not isinstance(prompt, Prompt) or self._are_text(prompt.spans):
            if prompt:
                yield prompt, False
            return
        text = ""
        for span in prompt.spans:
            if span.kind in ANSWERS:
                if text:
                    yield text, False
                learned = span.kind == "answer"
                yield from ((span.text, learned), (self.tokenizer.eos_token_id, learned))
                text = ""
                continue
            for number, piece in enumerate(self._pieces(span)):
                if number % 2:
                    if text:
                        yield text, False
                    yield self._id(span, piece), False
                    text = ""
                else:
                    # Text is tokenised across spans, as other tools tokenise the rendered prompt.
                    text += piece
        if text:
            yield text, False

    def _are_text(self, spans: Sequence[Span]) -> bool:
        """Whether there is no special token in them, and no answer."""
        for span in spans:
            if span.kind != "data" and (span.kind != "template" or len(self._pieces(span)) > 1):
                return False
        return True

    def _pieces(self, span: Span) -> list[str]:
        """Text and names of special tokens in turn, text first."""
        if span.kind == "data":
            return [span.text]
        if span.kind == "token":
            return ["", span.text]
        # A template has few texts.
        if span.text not in self._split:
            self._split[span.text] = self._special_tokens().split(span.text)
        return self._split[span.text]

    def _id(self, span: Span, piece: str) -> int:
        if span.kind == "token":
            found = getattr(self.tokenizer, f"{piece}_token_id", None)
            # GPT-2 has no separator of its own, and the toolkit adds no token to a vocabulary.
            return int(self.tokenizer.eos_token_id if found is None else found)
        return int(self.tokenizer.convert_tokens_to_ids(piece))

    def _special_tokens(self) -> re.Pattern[str]:
        if self._named is None:
            names = sorted(special_tokens(self.tokenizer), key=len, reverse=True)
            self._named = re.compile(f"({'|'.join(map(re.escape, names))})" if names else "((?!))")
        return self._named


def special_tokens(tokenizer: Tokenizer) -> set[str]:
    """The texts that `tokenizer(text)` would read as one special token."""
    added = {str(token) for token in tokenizer.added_tokens_decoder.values() if token.special}
    return {name for name in {*added, *tokenizer.all_special_tokens} if name}


def start_ids(tokenizer: Tokenizer) -> list[int]:
    """What the tokenizer itself puts before a text: its beginning-of-text token, or nothing."""
    added = tokenizer("", add_special_tokens=True)["input_ids"]
    # GPT-2's tokenizer adds nothing, Llama's adds bos; one that also adds eos would end every prompt.
    return [int(added[0])] if added and added[0] == tokenizer.bos_token_id else []


def keep_end(prompt: list[int], count: int, num_start: int) -> list[int]:
    """The last tokens of a prompt, `count` in all, behind the `num_start` that every prompt begins with."""
    return prompt if len(prompt) <= count else prompt[:num_start] + prompt[len(prompt) - count + num_start :]


def tokenize(
    rows: Sequence[PromptCompletion], tokenizer: Tokenizer, *, max_length: int, overlong: str = "truncate"
) -> tuple[TokenTable, LengthReport]:
    """The rows as ids and labels, and what the length limit did to them.

    Args:
        max_length: most tokens of a row, prompt, completion and stop token together.
        overlong: `truncate` cuts the prompt from its left down to max_length / 4 tokens, then the completion from
            its right (the row then lacks its stop token); `drop` leaves the row out; `error` refuses.

    Raises:
        DatasetError: `error`, naming every overlong row; or no row is left.
    """
    return fit(encode(rows, tokenizer), max_length=max_length, overlong=overlong)


def encode(rows: Sequence[PromptCompletion], tokenizer: Tokenizer) -> Encoded:
    """The ids of rows of any length, which is what takes the time."""
    ids, learned = [np.empty(0, np.int32)], [np.empty(0, np.bool_)]
    offsets, completions = [np.zeros(1, np.int64)], [np.empty(0, np.int64)]
    with ThreadPoolExecutor(1) as tokenizing:
        for taken in _one_behind(_cut(rows, _Encoder(tokenizer, tokenizing))):
            some_ids, some_learned, ends = taken.ids()
            ends += offsets[-1][-1]
            ids.append(some_ids)
            learned.append(some_learned)
            completions.append(ends[1::2])
            offsets.append(ends[2::2])
    table = TokenTable(
        np.concatenate(ids), np.concatenate(learned), np.concatenate(offsets), [row.origin for row in rows]
    )
    return Encoded(table, np.concatenate(completions), len(start_ids(tokenizer)))


def _cut(rows: Sequence[PromptCompletion], encoder: _Encoder) -> Iterator[_Taken]:
    """Prompts and completions in turn, some rows at a time."""
    stop = encoder.tokenizer.eos_token_id
    for start in range(0, len(rows), ROWS_AT_ONCE):
        for row in rows[start : start + ROWS_AT_ONCE]:
            encoder.add_prompt(row.prompt)
            encoder.end()
            encoder.add(row.completion, True)
            encoder.add(stop, True)
            encoder.end()
        yield encoder.take()


def _one_behind(some: Iterator[_Taken]) -> Iterator[_Taken]:
    """Each when the next is cut: it has been tokenised meanwhile."""
    held = list(islice(some, 1))
    for taken in some:
        yield held.pop()
        held.append(taken)
    yield from held


def model_rows(
    rows: Sequence[PromptCompletion], tokenizer: Tokenizer, section: DataSection
) -> tuple[TokenTable, LengthReport]:
    """The rows that a model learns from, as a recipe's data section says, packed where it says so.

    Raises:
        DatasetError: see `tokenize`.
    """
    # Packing cuts documents into rows itself, so none is too long.
    limit = sys.maxsize if section.packing else section.max_length
    tokens, report = tokenize(rows, tokenizer, max_length=limit, overlong=section.overlong)
    return (pack(tokens, section.max_length) if section.packing else tokens), report
