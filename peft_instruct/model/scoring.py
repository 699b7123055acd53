"""Teacher-forced scores of rows: sums over tokens, so that no figure depends on the batch size.

transformers averages the means of batches (trainer.py:2999): the same model on the same rows then has another
validation loss for every batch size.
"""

# B rows of a batch, T tokens, N learned tokens, C of them at a time, V vocabulary

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from peft_instruct.data.types import IGNORED_LABEL, Tokens
from peft_instruct.model.base import answering

MOST_LEARNED = 1024
"""Tokens of a pass: logits of all of them are in memory at once, which else would take more than a step of training."""
ROWS_IN_FP32 = 64
"""Of logits at a time: as many stay in the processor's cache."""


@dataclass(frozen=True)
class TokenScores:
    """Sums over the learned tokens of some rows.

    Attributes:
        nats: summed negative log-likelihood.
        num_tokens: tokens that it was summed over, stop tokens included.
        num_correct: tokens that were the model's first choice.
        num_stops: stop tokens among them.
        stop_mass: summed probability of these stop tokens, each where it stands.
    """

    nats: float = 0.0
    num_tokens: int = 0
    num_correct: int = 0
    num_stops: int = 0
    stop_mass: float = 0.0

    @property
    def loss(self) -> float:
        """Mean negative log-likelihood per completion token, in nats."""
        return self.nats / self.num_tokens if self.num_tokens else math.nan

    @property
    def perplexity(self) -> float:
        return math.exp(min(self.loss, 700.0))

    @property
    def token_accuracy(self) -> float:
        return self.num_correct / self.num_tokens if self.num_tokens else math.nan

    @property
    def stop_probability(self) -> float | None:
        """Mean probability of the stop token where a completion ends; None where none of the rows ends in one."""
        return self.stop_mass / self.num_stops if self.num_stops else None

    @classmethod
    def total(cls, parts: Iterable[TokenScores]) -> TokenScores:
        """The sums over several sets of rows."""
        found = list(parts)
        return TokenScores(
            math.fsum(part.nats for part in found),
            sum(part.num_tokens for part in found),
            sum(part.num_correct for part in found),
            sum(part.num_stops for part in found),
            math.fsum(part.stop_mass for part in found),
        )


@dataclass(frozen=True)
class RowScores(TokenScores):
    """The sums of one row.

    Attributes:
        margin: nats by which the row's own token is less likely than the model's first choice, where that is most; at
            most 0, and 0 where every token is the first choice (the margin of Pleiss et al. 2020, at one place).
    """

    margin: float = 0.0


def score(
    model: torch.nn.Module,
    rows: Sequence[Tokens],
    *,
    pad_id: int,
    device: torch.device,
    stop_id: int | None = None,
    batch_size: int = 8,
) -> TokenScores:
    """Score the completion tokens of rows; see `score_rows`."""
    return TokenScores.total(
        score_rows(model, rows, pad_id=pad_id, device=device, stop_id=stop_id, batch_size=batch_size)
    )


def score_rows(
    model: torch.nn.Module,
    rows: Sequence[Tokens],
    *,
    pad_id: int,
    device: torch.device,
    stop_id: int | None = None,
    batch_size: int = 8,
) -> list[RowScores]:
    """The scores of each row, in their order; computed longest rows first, so that little is padded.

    Args:
        stop_id: the token that ends a completion; without it no stops are counted.
    """
    order = sorted(range(len(rows)), key=lambda place: -len(rows[place].input_ids))
    found: dict[int, RowScores] = {}
    with answering(model):
        for places in _passes(rows, order, batch_size):
            input_ids_BT, mask_BT, labels_BT = padded([rows[place] for place in places], pad_id, device)
            learned_BT = labels_BT[:, 1:] != IGNORED_LABEL
            targets_N = labels_BT[:, 1:][learned_BT]
            with _head_only_where(learned_BT, model):
                logits_NV = model(input_ids=input_ids_BT, attention_mask=mask_BT, use_cache=False).logits
            scored = _per_row(logits_NV, targets_N, learned_BT, stop_id)
            found.update(zip(places, scored, strict=True))
    return [found[place] for place in range(len(rows))]


def _passes(rows: Sequence[Tokens], order: Sequence[int], batch_size: int) -> Iterator[list[int]]:
    """Places of rows in their order, at most `batch_size` of them and, of more than one, MOST_LEARNED tokens."""
    places: list[int] = []
    num_learned = 0
    for place in order:
        own = sum(label != IGNORED_LABEL for label in rows[place].labels)
        if places and (len(places) == batch_size or num_learned + own > MOST_LEARNED):
            yield places
            places, num_learned = [], 0
        places.append(place)
        num_learned += own
    if places:
        yield places


@contextmanager
def _head_only_where(learned_BT: torch.Tensor, model: Any) -> Iterator[None]:
    """Logits are (N, V): the head is the largest matrix of a GPT-2, and half of an instruction row is its prompt."""
    hook = model.get_output_embeddings().register_forward_pre_hook(
        lambda _, inputs: (inputs[0][:, :-1][learned_BT], *inputs[1:])
    )
    try:
        yield
    finally:
        hook.remove()


def _per_row(
    logits_NV: torch.Tensor, targets_N: torch.Tensor, learned_BT: torch.Tensor, stop_id: int | None
) -> Iterator[RowScores]:
    """Sums by row of the N learned tokens, in fp64: of a row of one token as of ten thousand."""
    parts = zip(logits_NV.split(ROWS_IN_FP32), targets_N.split(ROWS_IN_FP32), strict=True)
    # One copy off the device for the whole batch.
    columns = torch.cat([_columns(logits_CV.float(), targets_C, stop_id) for logits_CV, targets_C in parts], dim=1)
    for row in columns.cpu().double().split(learned_BT.sum(1).tolist(), dim=1):
        nats, num_correct, num_stops, stop_mass, _ = row.sum(1).tolist()
        margin = row[4].min().item() if row.shape[1] else 0.0
        yield RowScores(nats, row.shape[1], int(num_correct), int(num_stops), stop_mass, margin)


def _columns(logits_CV: torch.Tensor, targets_C: torch.Tensor, stop_id: int | None) -> torch.Tensor:
    """Of each token nats, whether it is the first choice, whether a stop, its probability if so, margin; (5, C)."""
    nats_C = torch.nn.functional.cross_entropy(logits_CV, targets_C, reduction="none")
    chosen_C = logits_CV.max(-1)
    is_other_C = chosen_C.indices != targets_C
    margin_C = logits_CV.gather(1, targets_C[:, None])[:, 0] - chosen_C.values
    is_stop_C = torch.zeros_like(is_other_C) if stop_id is None else targets_C == stop_id
    return torch.stack([nats_C, (~is_other_C).float(), is_stop_C.float(), (-nats_C).exp() * is_stop_C, margin_C])


def padded(
    rows: Sequence[Tokens], pad_id: int, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """input_ids, attention mask and labels, (B, T) each, padded on the right: positions then need no care."""
    width = max(len(row.input_ids) for row in rows)
    ids = [[*row.input_ids, *[pad_id] * (width - len(row.input_ids))] for row in rows]
    mask = [[1] * len(row.input_ids) + [0] * (width - len(row.input_ids)) for row in rows]
    labels = [[*row.labels, *[IGNORED_LABEL] * (width - len(row.labels))] for row in rows]
    return (
        torch.tensor(ids, device=device),
        torch.tensor(mask, device=device),
        torch.tensor(labels, device=device),
    )
