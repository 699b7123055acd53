"""Our ids and labels are TRL's own (SFTTrainer on prompt and completion columns), except where TRL's are wrong."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from tiny import END_OF_TEXT, tiny_rows, write_tiny_tokenizer

from peft_instruct.data.prepare import read_source
from peft_instruct.data.templates import ALPACA
from peft_instruct.data.tokens import tokenize
from peft_instruct.data.types import IGNORED_LABEL, PromptCompletion
from peft_instruct.recipe.data_section import DataSection

LENGTH = 1024
Prepared = tuple[list[int], list[int]]


def _ours(rows: Sequence[PromptCompletion], tokenizer: Any) -> list[Prepared]:
    kept, report = tokenize(rows, tokenizer, max_length=LENGTH)
    assert len(kept) == len(rows) and report.truncated == []
    return [(list(tokens.input_ids), list(tokens.labels)) for tokens in kept]


def _trls(rows: Sequence[PromptCompletion], tokenizer: Any, folder: Path) -> list[Prepared]:
    """What SFTTrainer makes of the rows when it is left to prepare them."""
    import torch
    from datasets import Dataset
    from transformers import GPT2Config, GPT2LMHeadModel
    from trl import SFTConfig, SFTTrainer

    with torch.device("cpu"):
        model = GPT2LMHeadModel(GPT2Config(vocab_size=len(tokenizer), n_embd=2, n_layer=1, n_head=1))
    arguments = SFTConfig(
        output_dir=str(folder),
        max_length=LENGTH,
        packing=False,
        completion_only_loss=True,
        report_to="none",
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        disable_tqdm=True,
    )
    columns = [{"prompt": row.prompt, "completion": row.completion} for row in rows]
    trainer = SFTTrainer(model, arguments, train_dataset=Dataset.from_list(columns), processing_class=tokenizer)
    return [(row["input_ids"], row["labels"]) for row in trainer.train_dataset]


def test_all_alpaca_rows_are_labelled_as_trl_labels_them(
    shared_data: Path, gpt2_tokenizer: Any, tmp_path: Path
) -> None:
    """With GPT-2's own BPE. No row differs: the template's one newline merges with none of these completions.

    Two of the 5,000 rows have an empty output; they are left out and named, where TRL would train on a bare stop token.
    """
    path = shared_data / "alpaca_5000.json"
    rows, _, notes = read_source(str(path), DataSection(train=str(path)))
    assert len(rows) == 4998
    assert notes[-1].startswith(f"{path}: 2 rows left out as empty: ")
    assert "(row 2336)" in notes[-1] and "(row 4659)" in notes[-1]
    ours, theirs = _ours(rows, gpt2_tokenizer), _trls(rows, gpt2_tokenizer, tmp_path)
    stop = gpt2_tokenizer.eos_token_id
    assert len(ours) == len(theirs)
    assert [row.origin for row, a, b in zip(rows, ours, theirs, strict=True) if a != b] == []
    for input_ids, labels in ours:
        assert labels.count(stop) == input_ids.count(stop) == 1 and labels[-1] == stop


# Rows on which the two differ, and why TRL's are wrong. The prompt is the Alpaca prompt of `instruction`.
DIFFERENT = {
    "two newlines at the start": (
        "Say hi.",
        "\n\nHi.",
        "the header's newline and the completion's merge into one token: TRL then trains part of the prompt, and the "
        "prompt of training is not the prompt of generation",
    ),
    "stop token spelled in the completion": (
        "Say hi.",
        f"Hi.{END_OF_TEXT} And more.",
        "text becomes a real stop token, and the model is trained to stop in the middle and to go on after stopping",
    ),
    "stop token spelled at the end": (
        "Say hi.",
        f"Hi.{END_OF_TEXT}",
        "TRL takes the text for the stop token that it would add; the characters themselves are lost",
    ),
    "stop token spelled in the prompt": (
        f"Repeat {END_OF_TEXT}",
        "Done.",
        "text of a user becomes a real stop token in the middle of a prompt",
    ),
}


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The tiny tokenizer, but with two newlines as one token, as GPT-2's has them (id 628)."""
    from peft_instruct.model.tokenizer import load_tokenizer

    folder = tmp_path_factory.mktemp("tokenizer")
    write_tiny_tokenizer(folder, more_text=["a\n\n\nb"] * 100)
    return load_tokenizer(folder)


def test_rows_differ_only_where_trl_is_wrong(tokenizer: Any, tmp_path: Path) -> None:
    plain = [
        PromptCompletion(ALPACA.prompt(row["instruction"], row["input"]), row["output"], f"plain {number}")
        for number, row in enumerate(tiny_rows())
    ]
    odd = [
        PromptCompletion(ALPACA.prompt(instruction), completion, name)
        for name, (instruction, completion, _) in DIFFERENT.items()
    ]
    rows = [*plain, *odd]
    ours, theirs = _ours(rows, tokenizer), _trls(rows, tokenizer, tmp_path)
    different = [row.origin for row, a, b in zip(rows, ours, theirs, strict=True) if a != b]
    assert different == list(DIFFERENT)
    stop = tokenizer.eos_token_id
    for row, (input_ids, labels) in zip(rows, ours, strict=True):
        assert input_ids.count(stop) == 1 and labels[-1] == stop
        trained = [label for label in labels[:-1] if label != IGNORED_LABEL]
        assert tokenizer.decode(trained) == row.completion
    by_name = dict(zip([row.origin for row in rows], theirs, strict=True))
    merged_ids, merged_labels = by_name["two newlines at the start"]
    learned = [i for i, label in zip(merged_ids, merged_labels, strict=True) if label != IGNORED_LABEL]
    assert tokenizer.decode(learned).startswith("\n\n\n"), "TRL trains the header's newline too"
    assert by_name["stop token spelled in the completion"][1].count(stop) == 2
    assert by_name["stop token spelled in the prompt"][0].count(stop) == 2
    assert len(by_name["stop token spelled at the end"][0]) < len(
        dict(zip([row.origin for row in rows], ours, strict=True))["stop token spelled at the end"][0]
    )
