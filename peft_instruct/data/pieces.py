"""Tokens -> the stretches that a person looks at: what is only read, what is learned, and where it stops."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

from peft_instruct.data.types import IGNORED_LABEL, Tokens
from peft_instruct.data.units import Tokenizer

PieceKind = Literal["prompt", "learned", "stop"]


@dataclass(frozen=True)
class Piece:
    """A stretch of one kind: `prompt` is read and not learned, `stop` is a learned stop token."""

    kind: PieceKind
    text: str
    ids: tuple[int, ...]


def pieces_of(row: Tokens, tokenizer: Tokenizer) -> tuple[Piece, ...]:
    """The row's ids decoded stretch by stretch, in order: joined, the ids of the pieces are those of the row."""
    kinds = _kinds(row, set(tokenizer.all_special_ids))
    return tuple(
        Piece(kind, tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False), ids)
        for kind, run in groupby(zip(kinds, row.input_ids, strict=True), key=lambda pair: pair[0])
        for ids in [tuple(token for _, token in run)]
    )


def _kinds(row: Tokens, special: set[int]) -> Iterator[PieceKind]:
    for token, label in zip(row.input_ids, row.labels, strict=True):
        # Text never becomes a special token (see tokens.py), so a learned one is a stop.
        yield "prompt" if label == IGNORED_LABEL else "stop" if token in special else "learned"
