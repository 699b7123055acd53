"""The types that travel from a row to the model, each with the place its content came from."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

IGNORED_LABEL = -100
"""The label that cross-entropy leaves out (torch.nn.functional.cross_entropy, ignore_index)."""


@dataclass(frozen=True)
class Row:
    """One record of a source, as it stands there.

    Attributes:
        values: column name -> value.
        origin: `file:line` (1-based), or `hub id row N`.
    """

    values: dict[str, Any]
    origin: str


@dataclass(frozen=True)
class Example:
    """An instruction, its optional input, and the output to learn.

    Attributes:
        accepted: every output that counts as right; empty means `output` alone.
        group: what exact match is also told by (a skill, a topic); empty where the data has none.
    """

    instruction: str
    input: str
    output: str
    origin: str
    accepted: tuple[str, ...] = ()
    group: str = ""


@dataclass(frozen=True)
class PromptCompletion:
    """The two texts of a row, named as TRL's columns; plain text is a completion with an empty prompt.

    Attributes:
        asked: the instruction and its input without the template around them, for people to read.
        accepted, group: as of the Example.
    """

    prompt: str
    completion: str
    origin: str
    asked: str = ""
    accepted: tuple[str, ...] = ()
    group: str = ""


@dataclass(frozen=True)
class Tokens:
    """A row as the model sees it.

    Attributes:
        input_ids: prompt, completion and stop token.
        labels: the same length; -100 where nothing is learned, else the id itself.
        prompt_length: tokens of the prompt; 0 for plain text.
    """

    input_ids: tuple[int, ...]
    labels: tuple[int, ...]
    prompt_length: int
    origin: str


@dataclass
class LengthReport:
    """What the length limit did, row by row. Nothing is lost without standing here.

    Attributes:
        truncated: origins of rows of which prompt tokens were cut.
        stopless: origins of rows whose completion was cut, so that they do not teach stopping.
        dropped: origins of rows left out, because the policy says so.
    """

    num_rows: int = 0
    num_tokens: int = 0
    num_completion_tokens: int = 0
    longest: int = 0
    truncated: list[str] = field(default_factory=list)
    stopless: list[str] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)
