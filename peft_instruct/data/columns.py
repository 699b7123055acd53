"""Rows as a few arrays, ready for a file, and rows again one by one when they are asked for."""

# R rows or texts, B bytes of all texts, S spans of all prompts

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from operator import attrgetter
from typing import get_args, get_type_hints, overload

import numpy as np

from peft_instruct.data.types import Prompt, PromptCompletion, Span
from peft_instruct.data.words import utf8

Arrays = Mapping[str, np.ndarray]
TEXTS = ("completion", "origin", "asked", "group")
_KINDS = get_args(get_type_hints(Span)["kind"])
_NUMBER_OF_KIND = {kind: number for number, kind in enumerate(_KINDS)}
_PLAIN = len(_KINDS)
"""In place of a kind: the prompt is no `Prompt` but this text."""


@dataclass(frozen=True, eq=False)
class Texts(Sequence[str]):
    """Texts, read from their array when they are asked for.

    Attributes:
        content: all of them in UTF-8, (B,) uint8.
        ends: where each one ends, (R,) int64.
    """

    content: np.ndarray
    ends: np.ndarray

    @classmethod
    def of(cls, texts: Sequence[str]) -> Texts:
        content, bounds = utf8(texts)
        return cls(np.frombuffer(content, np.uint8), bounds[1:])

    @classmethod
    def within(cls, arrays: Arrays, name: str) -> Texts:
        return cls(arrays[name], arrays[f"{name}_ends"])

    def arrays(self, name: str) -> dict[str, np.ndarray]:
        return {name: self.content, f"{name}_ends": self.ends}

    def __len__(self) -> int:
        return len(self.ends)

    @overload
    def __getitem__(self, place: int) -> str: ...
    @overload
    def __getitem__(self, place: slice) -> list[str]: ...
    def __getitem__(self, place: int | slice) -> str | list[str]:
        if isinstance(place, slice):
            return [self[number] for number in range(*place.indices(len(self)))]
        number = range(len(self))[place]
        return self.content[_start(self.ends, number) : self.ends[number]].tobytes().decode()


class RowColumns(Sequence[PromptCompletion]):
    """Rows that are made of their arrays when they are asked for."""

    def __init__(self, arrays: Arrays, split: str) -> None:
        def texts(name: str) -> Texts:
            return Texts.within(arrays, f"{split}_{name}")

        self._texts = tuple(map(texts, TEXTS))
        self._spans, self._kinds, self._span_ends = (
            texts("span"),
            arrays[f"{split}_kind"],
            arrays[f"{split}_prompt_ends"],
        )
        self._accepted, self._accepted_ends = texts("accepted"), arrays[f"{split}_row_accepted_ends"]

    def __len__(self) -> int:
        return len(self._span_ends)

    @overload
    def __getitem__(self, place: int) -> PromptCompletion: ...
    @overload
    def __getitem__(self, place: slice) -> list[PromptCompletion]: ...
    def __getitem__(self, place: int | slice) -> PromptCompletion | list[PromptCompletion]:
        if isinstance(place, slice):
            return [self[number] for number in range(*place.indices(len(self)))]
        number = range(len(self))[place]
        completion, origin, asked, group = (texts[number] for texts in self._texts)
        accepted = tuple(self._accepted[_start(self._accepted_ends, number) : self._accepted_ends[number]])
        return PromptCompletion(self._prompt(number), completion, origin, asked, accepted, group)

    def _prompt(self, number: int) -> str:
        spans = slice(_start(self._span_ends, number), int(self._span_ends[number]))
        kinds, texts = self._kinds[spans].tolist(), self._spans[spans]
        return texts[0] if kinds == [_PLAIN] else Prompt(map(Span, map(_KINDS.__getitem__, kinds), texts))


def arrays_of(rows: Sequence[PromptCompletion], split: str) -> dict[str, np.ndarray]:
    """What `RowColumns` reads, by names that begin with the split's."""
    prompts = [row.prompt.spans if isinstance(row.prompt, Prompt) else (row.prompt,) for row in rows]
    spans: list[Span | str] = list(chain.from_iterable(prompts))
    kinds = [_PLAIN if isinstance(span, str) else _NUMBER_OF_KIND[span.kind] for span in spans]
    span_texts = [span if isinstance(span, str) else span.text for span in spans]
    accepted = [row.accepted for row in rows]
    arrays: dict[str, np.ndarray] = {
        f"{split}_kind": np.array(kinds, np.uint8),
        f"{split}_prompt_ends": np.cumsum(list(map(len, prompts)), dtype=np.int64),
        f"{split}_row_accepted_ends": np.cumsum(list(map(len, accepted)), dtype=np.int64),
        **Texts.of(span_texts).arrays(f"{split}_span"),
        **Texts.of(list(chain.from_iterable(accepted))).arrays(f"{split}_accepted"),
    }
    for name in TEXTS:
        arrays |= Texts.of(list(map(attrgetter(name), rows))).arrays(f"{split}_{name}")
    return arrays


def _start(ends: np.ndarray, number: int) -> int:
    return int(ends[number - 1]) if number else 0
