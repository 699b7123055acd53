"""PromptCompletion -> Tokens: the mask contract of this toolkit.

Prompt and completion are tokenised apart and their ids joined, so the boundary is exact by construction and the
prompt of training is the prompt of generation, id for id (a byte-level BPE that sees the joined text merges across
it: with GPT-2's, a prompt that ends in a colon swallows the first letter of nine in twenty-five completions). The
stop token is appended as an id. Text of the user that spells a special token stays text.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import Any

from peft_instruct.data.types import IGNORED_LABEL, LengthReport, PromptCompletion, Tokens
from peft_instruct.errors import DatasetError
from peft_instruct.recipe.schema import DataSection

Tokenizer = Any  # transformers.PreTrainedTokenizerBase; named here so that this room needs no transformers

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


def prompt_ids(tokenizer: Tokenizer, prompts: Sequence[str]) -> list[list[int]]:
    """Ids of prompts, with the beginning-of-text token where the tokenizer itself puts one."""
    start = start_ids(tokenizer)
    return [start + ids for ids in text_ids(tokenizer, prompts)]


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
) -> tuple[list[Tokens], LengthReport]:
    """The rows as ids and labels, and what the length limit did to them.

    Args:
        max_length: most tokens of a row, prompt, completion and stop token together.
        overlong: `truncate` cuts the prompt from its left down to max_length / 4 tokens, then the completion from
            its right (the row then lacks its stop token); `drop` leaves the row out; `error` refuses.

    Raises:
        DatasetError: `error`, naming every overlong row; or no row is left.
    """
    stop = tokenizer.eos_token_id
    num_start = len(start_ids(tokenizer))
    prompts = prompt_ids(tokenizer, [row.prompt for row in rows])
    completions = text_ids(tokenizer, [row.completion for row in rows])
    kept: list[Tokens] = []
    report = LengthReport(num_rows=len(rows))
    overlong_rows: list[str] = []
    for row, prompt, completion in zip(rows, prompts, completions, strict=True):
        completion = [*completion, stop]
        length = len(prompt) + len(completion)
        report.longest = max(report.longest, length)
        if length > max_length:
            overlong_rows.append(f"{row.origin}: {length} tokens. expected at most max_length {max_length}.")
            if overlong == "drop":
                report.dropped.append(row.origin)
                continue
            prompt, completion = _cut(prompt, completion, max_length, num_start, row.origin, report)
        tokens = _labelled(prompt, completion, row.origin)
        kept.append(tokens)
        report.num_tokens += len(tokens.input_ids)
        report.num_completion_tokens += len(completion)
    if overlong == "error" and overlong_rows:
        raise DatasetError.of("data.overlong: error", overlong_rows)
    if not kept:
        raise DatasetError(
            f"data.max_length: {max_length} leaves none of the {len(rows)} rows (the longest has {report.longest} "
            "tokens). Raise max_length, or set overlong: truncate."
        )
    return kept, report


def model_rows(
    rows: Sequence[PromptCompletion], tokenizer: Tokenizer, section: DataSection
) -> tuple[list[Tokens], LengthReport]:
    """The rows that a model learns from, as a recipe's data section says, packed where it says so.

    Raises:
        DatasetError: see `tokenize`.
    """
    # Packing cuts documents into rows itself, so none is too long.
    limit = sys.maxsize if section.packing else section.max_length
    tokens, report = tokenize(rows, tokenizer, max_length=limit, overlong=section.overlong)
    return (pack(tokens, section.max_length) if section.packing else tokens), report


def _cut(
    prompt: list[int], completion: list[int], max_length: int, num_start: int, origin: str, report: LengthReport
) -> tuple[list[int], list[int]]:
    keep = max(max_length - len(completion), min(len(prompt), max_length // LEAST_PROMPT_FRACTION))
    if keep < len(prompt):
        report.truncated.append(origin)
        prompt = keep_end(prompt, keep, num_start)
    if len(prompt) + len(completion) > max_length:
        report.stopless.append(origin)
        completion = completion[: max_length - len(prompt)]
    return prompt, completion


def _labelled(prompt: list[int], completion: list[int], origin: str) -> Tokens:
    return Tokens(
        input_ids=(*prompt, *completion),
        labels=(*([IGNORED_LABEL] * len(prompt)), *completion),
        prompt_length=len(prompt),
        origin=origin,
    )


def pack(rows: Sequence[Tokens], length: int) -> list[Tokens]:
    """Plain-text rows joined and cut into rows of exactly `length` tokens; the last may be shorter.

    Each document ends in its stop token, so a model can tell where the next begins; attention does cross over, as is
    usual in pretraining. No token is lost.
    """
    return list(_packed(rows, length))


def _packed(rows: Sequence[Tokens], length: int) -> Iterator[Tokens]:
    waiting: list[int] = []
    origin = ""
    for row in rows:
        if not waiting:
            origin = row.origin
        waiting.extend(row.input_ids)
        while len(waiting) >= length:
            yield _labelled([], waiting[:length], f"from {origin}")
            waiting, origin = waiting[length:], row.origin
    if waiting:
        yield _labelled([], waiting, f"from {origin}")
