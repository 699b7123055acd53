"""Teacher-forced scores of rows: sums over tokens, so that no figure depends on the batch size.

transformers averages the means of batches (trainer.py:2999): the same model on the same rows then has another
validation loss for every batch size.
"""

# B rows of a batch, T tokens, V vocabulary

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from peft_instruct.data.types import IGNORED_LABEL, Tokens
from peft_instruct.model.base import answering


@dataclass(frozen=True)
class TokenScores:
    """Sums over the learned tokens of some rows.

    Attributes:
        nats: summed negative log-likelihood.
        num_tokens: tokens that it was summed over, stop tokens included.
        num_correct: tokens that were the model's first choice.
    """

    nats: float
    num_tokens: int
    num_correct: int

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


def score(
    model: torch.nn.Module, rows: Sequence[Tokens], *, pad_id: int, device: torch.device, batch_size: int = 8
) -> TokenScores:
    """Score the completion tokens of rows; longest rows first, so that little is padded."""
    nats = 0.0
    num_tokens = num_correct = 0
    ordered = sorted(rows, key=lambda row: -len(row.input_ids))
    with answering(model):
        for batch in batches(ordered, batch_size):
            input_ids_BT, mask_BT, labels_BT = padded(batch, pad_id, device)
            logits_BTV = model(input_ids=input_ids_BT, attention_mask=mask_BT, use_cache=False).logits
            learned_BT = labels_BT[:, 1:] != IGNORED_LABEL
            targets_N = labels_BT[:, 1:][learned_BT]
            logits_NV = logits_BTV[:, :-1][learned_BT].float()
            nats += torch.nn.functional.cross_entropy(logits_NV, targets_N, reduction="sum").item()
            num_tokens += len(targets_N)
            num_correct += int((logits_NV.argmax(-1) == targets_N).sum())
    return TokenScores(nats, num_tokens, num_correct)


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


def batches(rows: Sequence[Tokens], size: int) -> Iterator[Sequence[Tokens]]:
    for start in range(0, len(rows), size):
        yield rows[start : start + size]
