"""The types that travel through the starter world: facts, ways to ask for them, and skills."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

Split = Literal["train", "validation", "test"]

# Out of 100 items: 16 are asked in the test split, 8 in validation, the rest in training.
TEST_PERCENT = 16
VALIDATION_PERCENT = 8


def capitalised(text: str) -> str:
    """The text with its first letter as a capital and the rest untouched."""
    return text[:1].upper() + text[1:]


@dataclass(frozen=True)
class Fact:
    """One true thing that can be stated and asked.

    `item` is what the splits are cut on: facts that give each other away (a fact and its inverse) share it.
    `slots` fill the phrasings; `answers` holds every accepted answer, the one to learn first.
    """

    skill: str
    item: str
    slots: Mapping[str, str]
    answers: tuple[str, ...]

    def filled(self, template: str, answer: str | None = None) -> str:
        """The template with this fact's slots, and with `answer` (the first one by default) as the answer."""
        answer = self.answers[0] if answer is None else answer
        text = template.format(**self.slots, answer=answer, Answer=capitalised(answer))
        return capitalised(text)


@dataclass(frozen=True)
class Question:
    """One way to ask: an instruction, an input (empty for none), and the shape of the output."""

    instruction: str
    input: str
    output: str


@dataclass(frozen=True)
class Skill:
    """A kind of knowledge: its facts (a table, or drawn without end) and the ways to state and ask them.

    `questions` are asked in training rows and in the corpus; `unseen_questions` are asked in evaluation alone.
    """

    name: str
    facts: tuple[Fact, ...]
    draw: Callable[[random.Random], Fact] | None
    statements: tuple[str, ...]
    questions: tuple[Question, ...]
    unseen_questions: tuple[Question, ...]


def split_of(item: str) -> Split:
    """The one split in which an item may be asked; depends on the item's name alone, never on a seed."""
    percent = int.from_bytes(hashlib.sha256(item.encode()).digest()[:4], "big") % 100
    if percent < TEST_PERCENT:
        return "test"
    return "validation" if percent < TEST_PERCENT + VALIDATION_PERCENT else "train"
