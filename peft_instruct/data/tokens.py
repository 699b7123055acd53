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
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Any

from peft_instruct.data.packing import pack
from peft_instruct.data.table import TableBuilder, TokenTable
from peft_instruct.data.types import LengthReport, Prompt, PromptCompletion, Span
from peft_instruct.errors import DatasetError
from peft_instruct.recipe.data_section import DataSection

Tokenizer = Any  # transformers.PreTrainedTokenizerBase; named here so that this room needs no transformers

_BEFORE_NEWLINES = re.compile(r"(?<=\S)(?=\n)")
ROWS_AT_ONCE = 4096
"""Rows of one batched call: the tokenizer keeps the texts and places of all tokens of a call, many times their ids."""
LEAST_PROMPT_FRACTION = 4
"""A truncated row keeps at least max_length / 4 of its prompt's end: the response header is in it."""


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


@dataclass(frozen=True)
class Stretch:
    """Ids of a prompt that are learned (an earlier answer with its stop token), or that are not."""

    ids: list[int]
    learned: bool


def prompt_ids(tokenizer: Tokenizer, prompts: Sequence[str]) -> list[list[int]]:
    """Ids of prompts, with the beginning-of-text token where the tokenizer itself puts one."""
    return [_joined(stretches) for stretches in prompt_stretches(tokenizer, prompts)]


def prompt_stretches(tokenizer: Tokenizer, prompts: Sequence[str]) -> list[list[Stretch]]:
    """The prompts as `prompt_ids` gives them, with what is learned of them, from one batched call."""
    start = start_ids(tokenizer)
    reader = _PromptReader(tokenizer)
    plans = [reader.plan(prompt) for prompt in prompts]
    encoded = text_ids(tokenizer, list(reader.texts))
    found = []
    for plan in plans:
        stretches: list[Stretch] = []
        for unit, learned in plan:
            ids = encoded[unit] if isinstance(unit, int) else unit
            if learned and stretches and stretches[-1].learned:  # the stop token goes with its answer
                ids = stretches.pop().ids + ids
            stretches.append(Stretch(ids, learned))
        begins = bool(start) and _joined(stretches[:1])[: len(start)] == start
        # A chat template may spell the beginning-of-text token itself; twice is once too often.
        found.append(stretches if begins or not start else [Stretch(start, False), *stretches])
    return found


class _PromptReader:
    """Turns prompts into the texts that are tokenised in one call, and the order in which their ids are joined.

    Attributes:
        texts: of all prompts read so far, and their places.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.texts: dict[str, int] = {}
        self._cuts = splits_before_newlines(tokenizer)
        self._named: re.Pattern[str] | None = None

    def plan(self, prompt: str) -> list[tuple[int | list[int], bool]]:
        """Places in `texts`, and ids of special tokens, each with whether it is learned."""
        if not isinstance(prompt, Prompt):
            return [(self._place(prompt), False)] if prompt else []
        plan: list[tuple[int | list[int], bool]] = []
        text = ""
        stop = [self.tokenizer.eos_token_id]
        for span in prompt.spans:
            if span.kind in ("answer", "unlearned_answer"):
                plan += [(self._place(text), False)] if text else []
                learned = span.kind == "answer"
                plan += [(self._place(span.text), learned), (stop, learned)]
                text = ""
                continue
            for number, piece in enumerate(self._pieces(span)):
                if number % 2:
                    plan += [(self._place(text), False)] if text else []
                    plan.append(([self._id(span, piece)], False))
                    text = ""
                    continue
                for part in self._parts(span, piece):
                    if self._cuts and part[:1] == "\n" and text and not text[-1].isspace():
                        plan.append((self._place(text), False))
                        text = ""
                    # Text is tokenised across spans, as other tools tokenise the rendered prompt.
                    text += part
        return plan + ([(self._place(text), False)] if text else [])

    def _place(self, text: str) -> int:
        """Where it stands in `texts`: the words of a template do so once."""
        return self.texts.setdefault(text, len(self.texts))

    def _parts(self, span: Span, piece: str) -> list[str]:
        return _BEFORE_NEWLINES.split(piece) if self._cuts and span.kind == "template" else [piece]

    def _pieces(self, span: Span) -> list[str]:
        """Text and names of special tokens in turn, text first."""
        if span.kind == "data":
            return [span.text]
        return ["", span.text] if span.kind == "token" else self._special_tokens().split(span.text)

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


def splits_before_newlines(tokenizer: Tokenizer) -> bool:
    """Whether text cut between a visible character and a newline has the ids of the whole.

    True of GPT-2's byte-level BPE: its pattern parts the two whatever stands around them, and merges stay within a part
    (tokenizers, pre_tokenizers/byte_level.rs). A third of an Alpaca row is the template's words, tokenised once then.
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


def _joined(stretches: Sequence[Stretch]) -> list[int]:
    return [token for stretch in stretches for token in stretch.ids]


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
    return fit(encode(rows, tokenizer), tokenizer, max_length=max_length, overlong=overlong)


@dataclass(frozen=True)
class Encoded:
    """The ids of a row before any of them is cut: of its prompt, and of its completion with the stop token."""

    origin: str
    prompt: list[Stretch]
    completion: list[int]


def encode(rows: Sequence[PromptCompletion], tokenizer: Tokenizer) -> Iterator[Encoded]:
    """The ids of rows of any length, which is what takes the time."""
    stop = tokenizer.eos_token_id
    for start in range(0, len(rows), ROWS_AT_ONCE):
        some = rows[start : start + ROWS_AT_ONCE]
        prompts = prompt_stretches(tokenizer, [row.prompt for row in some])
        completions = text_ids(tokenizer, [row.completion for row in some])
        for row, prompt, completion in zip(some, prompts, completions, strict=True):
            yield Encoded(row.origin, prompt, [*completion, stop])


def fit(
    rows: Iterable[Encoded], tokenizer: Tokenizer, *, max_length: int, overlong: str = "truncate"
) -> tuple[TokenTable, LengthReport]:
    """As `tokenize`, of rows that are encoded already."""
    num_start = len(start_ids(tokenizer))
    kept = TableBuilder()
    report = LengthReport()
    overlong_rows: list[str] = []
    for row in rows:
        prompt, completion = row.prompt, row.completion
        report.num_rows += 1
        length = sum(len(stretch.ids) for stretch in prompt) + len(completion)
        report.longest = max(report.longest, length)
        if length > max_length:
            overlong_rows.append(f"{row.origin}: {length} tokens. expected at most max_length {max_length}.")
            if overlong == "drop":
                report.dropped.append(row.origin)
                continue
            prompt, completion = _cut(prompt, completion, max_length, num_start, row.origin, report)
        for stretch in (*prompt, Stretch(completion, True)):
            kept.extend(stretch.ids, repeat(stretch.learned, len(stretch.ids)))
        kept.end_row(row.origin)
    if overlong == "error" and overlong_rows:
        raise DatasetError.of("data.overlong: error", overlong_rows)
    table = kept.table()
    if not len(table):
        raise DatasetError(
            f"data.max_length: {max_length} leaves none of the {report.num_rows} rows (the longest has "
            f"{report.longest} tokens). Raise max_length, or set overlong: truncate."
        )
    report.num_tokens, report.num_completion_tokens = len(table.ids), int(table.learned.sum())
    return table, report


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


def _cut(
    prompt: list[Stretch], completion: list[int], max_length: int, num_start: int, origin: str, report: LengthReport
) -> tuple[list[Stretch], list[int]]:
    length = sum(len(stretch.ids) for stretch in prompt)
    keep = max(max_length - len(completion), min(length, max_length // LEAST_PROMPT_FRACTION))
    if keep < length:
        report.truncated.append(origin)
        prompt, length = _keep_end(prompt, keep, num_start), keep
    if length + len(completion) > max_length:
        report.stopless.append(origin)
        completion = completion[: max_length - length]
    return prompt, completion


def _keep_end(prompt: list[Stretch], count: int, num_start: int) -> list[Stretch]:
    """As `keep_end`; an answer that has lost its beginning is no longer learned."""
    ids = keep_end(_joined(prompt), count, num_start)
    kept: list[Stretch] = []
    end = len(ids)
    for stretch in reversed(prompt):
        begin = max(end - len(stretch.ids), num_start)
        if begin < end:
            kept.insert(0, Stretch(ids[begin:end], stretch.learned and end - begin == len(stretch.ids)))
            end = begin
    return [Stretch(ids[:end], False), *kept] if end else kept
