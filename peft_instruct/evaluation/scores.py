"""What is measured of a model on rows, over how many of them, and the measuring itself."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

import torch

from peft_instruct.data.tokens import model_rows
from peft_instruct.data.types import PromptCompletion
from peft_instruct.data.units import Tokenizer
from peft_instruct.errors import ModelError
from peft_instruct.model.scoring import score
from peft_instruct.recipe.data_section import DataSection

Complete = Callable[[list[str]], list[tuple[str, bool]]]
"""Prompts -> for each the completion's text and whether it ended by its stop token. Inference is another room, so
the command that measures hands it in."""

T = TypeVar("T")


@dataclass(frozen=True)
class Attempt:
    """One row and how the model completed its prompt.

    Attributes:
        asked: the instruction and its input, or the prompt of a row that has no template.
        expected: the row's own completion; other accepted ones are not listed.
        is_exact: see `is_exact_match`.
        stopped: ended by its stop token, not by the limit.
    """

    origin: str
    asked: str
    expected: str
    completion: str
    is_exact: bool
    stopped: bool
    group: str = ""


@dataclass(frozen=True)
class GroupMatch:
    """Exact match of the rows of one group."""

    group: str
    num_rows: int
    exact_match: float


@dataclass(frozen=True)
class Scores:
    """Scores of one model on one set of rows.

    Attributes:
        loss: mean negative log-likelihood per completion token, stop token included, in nats.
        token_accuracy: share of those tokens that were the model's first choice.
        stop_probability: mean probability of the stop token where a completion ends; None where the length limit has
            cut the ends of all.
        num_rows: rows that the above were measured on; packed ones where `data.packing` says so.
        num_tokens: completion tokens that they were measured on.
        num_truncated: rows of which the length limit cut something; still measured.
        num_dropped: rows that the length limit left out.
        num_completed: rows whose prompt was completed; exact match and stopping are over these.
        exact_match: share of them that match (`is_exact_match`); None where none was completed.
        stop_share: share of them that ended by the stop token itself; None likewise.
        groups: exact match by group, where the rows name groups.
        attempts: the completed rows, in the rows' order.
    """

    loss: float
    perplexity: float
    token_accuracy: float
    stop_probability: float | None
    num_rows: int
    num_tokens: int
    num_truncated: int
    num_dropped: int
    num_completed: int
    exact_match: float | None
    stop_share: float | None
    groups: tuple[GroupMatch, ...]
    attempts: tuple[Attempt, ...]

    def record(self) -> dict[str, Any]:
        """Every figure; the attempts are left out."""
        values = asdict(self)
        del values["attempts"]
        values["groups"] = {
            match.group: {"num_rows": match.num_rows, "exact_match": match.exact_match} for match in self.groups
        }
        return values


def evaluate_rows(
    model: torch.nn.Module,
    tokenizer: Tokenizer,
    rows: Sequence[PromptCompletion],
    *,
    complete: Complete,
    data: DataSection,
    device: torch.device,
    batch_size: int,
    generate_rows: int,
) -> Scores:
    """The loss over all rows that the length limit leaves, exact match and stopping over an even selection of them.

    Args:
        data: how rows become tokens; see `model_rows`.
        generate_rows: most rows whose prompt is completed; rows without a prompt (plain text) never are.

    Raises:
        DatasetError: no row is left, or `overlong: error` and a row is too long.
        ModelError: the loss is not a number.
    """
    tokens, lengths = model_rows(rows, tokenizer, data)
    scored = score(
        model,
        tokens,
        pad_id=tokenizer.pad_token_id,
        stop_id=tokenizer.eos_token_id,
        device=device,
        batch_size=batch_size,
    )
    if not math.isfinite(scored.loss):
        raise ModelError(f"evaluate: the loss is {scored.loss}: the model's weights hold NaN or infinity. Train again.")
    dropped = set(lengths.dropped)
    asking = [row for row in rows if row.prompt and row.origin not in dropped]
    attempts = _attempts(evenly(asking, generate_rows), complete)
    return Scores(
        loss=scored.loss,
        perplexity=scored.perplexity,
        token_accuracy=scored.token_accuracy,
        stop_probability=scored.stop_probability,
        num_rows=len(tokens),
        num_tokens=scored.num_tokens,
        num_truncated=len(set(lengths.truncated) | set(lengths.stopless)),
        num_dropped=len(lengths.dropped),
        num_completed=len(attempts),
        exact_match=_share([attempt.is_exact for attempt in attempts]),
        stop_share=_share([attempt.stopped for attempt in attempts]),
        groups=tuple(_groups(attempts)),
        attempts=tuple(attempts),
    )


def is_exact_match(completion: str, row: PromptCompletion) -> bool:
    """Whether a completion is the row's own, or one that the row accepts, letter for letter.

    White space around either is not counted; everything else is: case, punctuation, inner spaces.
    """
    return completion.strip() in {text.strip() for text in (row.completion, *row.accepted)}


def evenly(rows: Sequence[T], count: int) -> list[T]:
    """At most `count` of the rows, spread over all of them in their order: files are often sorted by kind."""
    if count >= len(rows):
        return list(rows)
    return [rows[number * len(rows) // count] for number in range(count)]


def _attempts(rows: Sequence[PromptCompletion], complete: Complete) -> list[Attempt]:
    if not rows:
        return []
    completed = complete([row.prompt for row in rows])
    return [
        Attempt(
            row.origin, row.asked or row.prompt, row.completion, text, is_exact_match(text, row), stopped, row.group
        )
        for row, (text, stopped) in zip(rows, completed, strict=True)
    ]


def _groups(attempts: Sequence[Attempt]) -> list[GroupMatch]:
    matches: dict[str, list[bool]] = {}
    for attempt in attempts:
        if attempt.group:
            matches.setdefault(attempt.group, []).append(attempt.is_exact)
    return [GroupMatch(group, len(found), sum(found) / len(found)) for group, found in sorted(matches.items())]


def _share(claims: Sequence[bool]) -> float | None:
    return sum(claims) / len(claims) if claims else None
