"""The types that travel from a row to the model, each with the place its content came from."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

IGNORED_LABEL = -100
"""The label that cross-entropy leaves out (torch.nn.functional.cross_entropy, ignore_index)."""


ANSWERS = frozenset({"answer", "unlearned_answer"})
"""Kinds of spans that are earlier completions."""


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
class Exchange:
    """A message of the user and its answer, earlier in a conversation; `learned`: the answer is trained, too."""

    user: str
    answer: str
    learned: bool = True


@dataclass(frozen=True)
class Example:
    """An instruction, its optional input, and the output to learn; in a conversation, its last exchange.

    Attributes:
        accepted: every output that counts as right; empty means `output` alone.
        group: what exact match is also told by (a skill, a topic); empty where the data has none.
        system: what the conversation is told to be like before it begins.
        earlier: the exchanges before this one.
    """

    instruction: str
    input: str
    output: str
    origin: str
    accepted: tuple[str, ...] = ()
    group: str = ""
    system: str = ""
    earlier: tuple[Exchange, ...] = ()


@dataclass(frozen=True)
class Span:
    """A stretch of a prompt, and how it is read.

    Attributes:
        kind: `template`: words of the template, in which the name of a special token is that token; `data`: text of
            the rows, which stays text whatever it spells; `token`: `bos`, `eos` or `sep` of the tokenizer; `answer`
            and `unlearned_answer`: an earlier completion, tokenised apart and followed by the stop token.
    """

    kind: Literal["template", "data", "token", "answer", "unlearned_answer"]
    text: str

    def shown(self) -> str:
        return f"<{self.text}>" if self.kind == "token" else self.text


class Prompt(str):
    """The text before a completion that remembers who wrote which part of it, as `markupsafe.Markup` does.

    It reads, compares and hashes as its text; tokenising looks at the spans. What is cut or joined from it is plain
    text again, and plain text is all data: nothing becomes a special token by accident.
    """

    __slots__ = ("spans",)
    spans: tuple[Span, ...]

    def __new__(cls, spans: Iterable[Span]) -> Prompt:
        kept = tuple([span for span in spans if span.text or span.kind in ANSWERS])
        prompt = super().__new__(cls, "".join([span.shown() for span in kept]))
        prompt.spans = kept
        return prompt

    @property
    def has_answers(self) -> bool:
        """Whether it is a conversation, of which earlier answers are a part."""
        return not ANSWERS.isdisjoint([span.kind for span in self.spans])

    def __reduce__(self) -> tuple[type[Prompt], tuple[tuple[Span, ...]]]:
        return Prompt, (self.spans,)


@dataclass(frozen=True)
class PromptCompletion:
    """The two texts of a row, named as TRL's columns; plain text is a completion with an empty prompt.

    Attributes:
        prompt: a `Prompt` where a template made it; in a conversation it holds the earlier exchanges.
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
        input_ids: prompt, completion and stop token; in a conversation so for every exchange.
        labels: the same length; -100 where nothing is learned, else the id itself.
        prompt_length: tokens before the first one that is learned; 0 for plain text.
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
