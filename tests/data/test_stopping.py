"""Rows that teach no stopping are told before training; rows that do are passed over in silence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from peft_instruct.data.stopping import stop_warning
from peft_instruct.data.types import IGNORED_LABEL, Tokens

STOP = 9
ENDS = Tokens((1, 2, STOP), (IGNORED_LABEL, 2, STOP), 1, "ends")
CUT = Tokens((1, 2, 3), (IGNORED_LABEL, 2, 3), 1, "cut")


@pytest.mark.parametrize("num_ending, num_cut, warns", [(1, 0, False), (2, 2, False), (2, 3, True), (0, 1, True)])
def test_a_warning_from_more_than_half_of_the_rows_cut(num_ending: int, num_cut: int, warns: bool) -> None:
    told = stop_warning([ENDS] * num_ending + [CUT] * num_cut, STOP)
    assert bool(told) is warns
    if warns:
        assert told.startswith(f"warning: {num_ending} of {num_ending + num_cut} training rows end in a stop token")


def test_a_stop_token_that_is_not_learned_teaches_nothing() -> None:
    """A prompt may end in the stop token of an earlier turn, or in a text that is its id by masking."""
    masked = Tokens((STOP, 2, STOP), (IGNORED_LABEL, 2, IGNORED_LABEL), 1, "masked")
    assert stop_warning([masked], STOP).startswith("warning: 0 of 1 training rows")


def test_whole_texts_are_told_with_their_ends() -> None:
    packed = Tokens((1, STOP, 2, STOP, 3), (1, STOP, 2, STOP, 3), 0, "packed")
    assert stop_warning([packed, packed], STOP).startswith(
        "warning: whole texts teach no answer to stop: 4 ends of texts among 10 tokens."
    )


def test_a_token_that_the_tokenizer_puts_before_every_text_makes_no_prompt() -> None:
    whole = Tokens((7, 1, STOP), (IGNORED_LABEL, 1, STOP), 1, "whole")
    asked = Tokens((7, 1, 2, STOP), (IGNORED_LABEL, IGNORED_LABEL, 2, STOP), 2, "asked")
    assert stop_warning([whole], STOP, num_start=1).startswith("warning: whole texts teach no answer to stop")
    assert stop_warning([whole, asked], STOP, num_start=1) == ""


def test_a_run_says_so_and_its_report_too(tiny_recipe: Path, tmp_path: Path) -> None:
    from peft_instruct.commands.train import train

    held_out = {"instruction": "How many?", "output": "One."}
    long = [{"instruction": f"Count from {n}.", "output": " ".join(map(str, range(n, n + 90)))} for n in range(12)]
    (tmp_path / "rows.json").write_text(json.dumps([*long, held_out]))
    (tmp_path / "held_out.json").write_text(json.dumps([held_out]))
    files = (f"data.train={tmp_path / 'rows.json'}", f"data.validation={tmp_path / 'held_out.json'}")
    brief = ("training.max_steps=3", "training.warmup=0", "samples.count=0", "evaluation.rows=1")
    lines: list[str] = []
    result = train(str(tiny_recipe), (*files, *brief), out=tmp_path / "a", say=lines.append)
    said = [line for line in lines if line.startswith("warning: ")]
    assert len(said) == 2
    assert said[0].endswith("Raise data.max_length, or set data.overlong: drop.")
    assert "the tuned model has not learned to stop: P(stop) is 0." in said[1]
    page = (result.folder / "report.html").read_text(encoding="utf-8")
    assert "training rows end in a stop token" in page and "has not learned to stop" in page


def test_a_run_tells_how_stopping_is_learned(tiny_adapter_folder: Path) -> None:
    lines = (tiny_adapter_folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    records: list[dict[str, Any]] = [json.loads(line) for line in lines]
    measured = [r["validation_stop_probability"] for r in records if "validation_loss" in r]
    assert measured and all(0 <= value <= 1 for value in measured)
    assert all(0 <= r["stop_share"] <= 1 for r in records if "samples" in r)
    metrics = json.loads((tiny_adapter_folder / "manifest.json").read_text(encoding="utf-8"))["metrics"]
    base, tuned = metrics["P(stop) at the end"]
    assert base != tuned and tuned == pytest.approx(measured[-1], rel=1e-4)
