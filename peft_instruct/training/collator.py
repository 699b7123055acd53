"""The completion-only collator: TRL's padding, behind a check that the labels are what the mask contract says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from datasets import Dataset
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from peft_instruct.data.types import IGNORED_LABEL, Tokens


@dataclass
class CompletionOnlyCollator(DataCollatorForLanguageModeling):
    """Pads rows of ready ids and labels on the right, by position and never by id.

    TRL removed its own `DataCollatorForCompletionOnlyLM` in v0.20: it searched the ids for a response template, which
    tokenises differently in context. Here the boundary is known from tokenisation, and only checked.
    """

    def torch_call(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        """input_ids, labels and attention_mask, (B, T) each.

        Raises:
            ValueError: a row learns its prompt or nothing at all; our own mistake, never the user's.
        """
        for example in examples:
            ids, labels, prompt_length = example["input_ids"], example["labels"], example["prompt_length"]
            if any(label != IGNORED_LABEL for label in labels[:prompt_length]):
                raise ValueError("a prompt token has a label")
            if len(ids) == prompt_length or labels[prompt_length:] != ids[prompt_length:]:
                raise ValueError("the labels of the completion are not its ids")
        return super().torch_call(examples)


def as_dataset(rows: Sequence[Tokens]) -> Dataset:
    """Rows in the form that SFTTrainer takes without preparing them again; held in memory."""
    return Dataset.from_dict(
        {
            "input_ids": [list(row.input_ids) for row in rows],
            "labels": [list(row.labels) for row in rows],
            "prompt_length": [row.prompt_length for row in rows],
        }
    )
