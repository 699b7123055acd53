"""The starter as it ships: small, whole, in step with the generator, and good for a real result in seconds."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest
from listeners import silent
from safetensors import safe_open

from peft_instruct.commands.generate import generate
from peft_instruct.commands.train import train
from peft_instruct.data.sources import read_rows
from peft_instruct.model.location import STARTER_FOLDER, Location
from peft_instruct.model.tokenizer import load_tokenizer
from peft_instruct.starter.world import rows


def test_the_base_is_at_most_8_mb_in_bf16_and_its_tokenizer_has_one_special_token() -> None:
    weights = STARTER_FOLDER / "model.safetensors"
    assert weights.stat().st_size <= 8_000_000
    with safe_open(str(weights), "pt") as stored:
        assert {str(stored.get_slice(name).get_dtype()) for name in stored.keys()} == {"BF16"}  # noqa: SIM118
    tokenizer = load_tokenizer(Location("starter", STARTER_FOLDER).folder)
    assert set(tokenizer.all_special_tokens) == {"<|endoftext|>"}
    assert json.loads((STARTER_FOLDER / "config.json").read_text())["n_positions"] >= 256


@pytest.mark.parametrize("split", ["train", "validation", "test", "test_unseen_phrasings"])
def test_the_shipped_rows_are_what_the_generator_gives(split: str) -> None:
    shipped = [row.values for row in read_rows(f"starter:{split}").rows]
    made = [asdict(row) for row in rows(split, 0)]
    assert [row["instruction"] + row["input"] + row["output"] for row in shipped] == [
        row["instruction"] + row["input"] + row["output"] for row in made
    ]
    assert [tuple(row["accepted"]) for row in shipped] == [row["answers"] for row in made]
    assert [row["group"] for row in shipped] == [row["skill"] for row in made]


def test_the_shipped_adapter_answers_after_installation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    said: list[str] = []
    result = generate("adapters/quickstart-lora", "What is the opposite of hot?", device="cpu", say=said.append)
    assert any(line.startswith("adapters/quickstart-lora: not here; ") for line in said)
    (one,) = result.completed
    assert one.tuned.completion.strip() == "cold"
    assert one.tuned.stopped


def test_the_quickstart_brings_out_what_the_base_knows(tmp_path: Path) -> None:
    """A short form of the quality: a quarter of the rows. The base answers none; the whole run answers nearly nine in
    ten (benchmarks/results/quickstart_lora.json); a third is far from what a broken mask or template leaves, 0."""
    result = train(
        "quickstart_lora", ["data.limit=1024", "evaluation.rows=147", "training.device=cpu"],
        out=tmp_path / "short", say=silent,
    )  # fmt: skip
    base, tuned = result.scores["exact match"]
    assert base is not None and base <= 0.05
    assert tuned is not None and tuned >= 0.33
