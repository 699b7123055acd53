"""The completion-only collator: TRL's padding, behind a check that the labels are what the mask contract says."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from datasets import Dataset
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from peft_instruct.data.table import TokenTable
from peft_instruct.data.types import IGNORED_LABEL, Tokens

PADDED_TO = 8
"""Few lengths of batches: oneDNN compiles, and keeps, a kernel for every shape that it meets, and the tensor cores of
GPUs like multiples of 8."""


@dataclass
class CompletionOnlyCollator(DataCollatorForLanguageModeling):
    """Pads rows of ready ids and labels on the right, by position and never by id.

    TRL removed its own `DataCollatorForCompletionOnlyLM` in v0.20: it searched the ids for a response template, which
    tokenises differently in context. Here the boundary is known from tokenisation, and only checked.

    Args:
        positions: of the model: a batch is not filled up beyond them.
    """

    positions: int | None = None

    def torch_call(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        """input_ids, labels and attention_mask, (B, T) each.

        Raises:
            ValueError: a row learns its prompt or nothing at all; our own mistake, never the user's.
        """
        for example in examples:
            ids, labels, prompt_length = example["input_ids"], example["labels"], example["prompt_length"]
            if any(label != IGNORED_LABEL for label in labels[:prompt_length]):
                raise ValueError("a prompt token has a label")
            # Between two answers of a conversation stands what the user said, which is not learned either.
            learned = zip(ids[prompt_length:], labels[prompt_length:], strict=True)
            if labels[prompt_length:][:1] in ([], [IGNORED_LABEL]) or any(
                label not in (token, IGNORED_LABEL) for token, label in learned
            ):
                raise ValueError("the labels of the completion are not its ids")
        # No row is longer than the model has positions: what is cut is filler.
        return {name: value[:, : self.positions] for name, value in super().torch_call(examples).items()}


def as_dataset(rows: Sequence[Tokens]) -> Dataset:
    """Rows in the form that SFTTrainer takes without preparing them again."""
    table = TokenTable.of(rows)
    offsets = pa.array(table.offsets, type=pa.int32())
    columns = {
        "input_ids": pa.ListArray.from_arrays(offsets, pa.array(table.ids)),
        "labels": pa.ListArray.from_arrays(offsets, pa.array(table.labels)),
        "prompt_length": pa.array(table.prompt_lengths),
    }
    # datasets would find a fingerprint of its own by pickling the rows.
    return Dataset(pa.table(columns), fingerprint=hashlib.sha256(table.ids.tobytes()).hexdigest()[:16])
