"""Which rows a ledger makes suspect, on ledgers whose answer is known."""

from __future__ import annotations

import math
import random
from pathlib import Path

import pytest

from peft_instruct.data.types import Tokens
from peft_instruct.errors import AdapterError
from peft_instruct.evaluation.ledger import (
    LEDGER,
    LedgerEntry,
    distinct,
    ledger_of,
    read_ledger,
    suspects,
    write_ledger,
)
from peft_instruct.model.scoring import RowScores


def entry(origin: str, before: float, after: float, against: float = 1.5) -> LedgerEntry:
    return LedgerEntry(origin, 5, before, after, 0.5, -math.log(against))


def learned(count: int = 100) -> list[LedgerEntry]:
    """Rows as a run leaves them: from about 3 nats to about 0.5, none of them contradicted."""
    chance = random.Random(0)
    return [entry(f"row {n}", 3 + chance.gauss(0, 0.3), 0.5 + chance.uniform(-0.2, 0.2)) for n in range(count)]


def test_rows_as_they_should_be_are_not_suspected() -> None:
    found = suspects(learned())
    assert (found.mislabelled, found.worse, found.unlearned) == ((), (), ())


def test_each_kind_is_found_and_the_worst_stands_first() -> None:
    planted = [
        entry("wrong", 3.0, 2.0, against=200),
        entry("wronger", 3.0, 1.9, against=1e9),
        entry("hard", 3.0, 2.0, against=90),
        entry("risen", 1.0, 1.2),
        entry("risen more", 1.0, 1.5),
        entry("as it was", 1.0, 0.9),
        entry("as it was, dear", 1.2, 1.1),
    ]
    found = suspects([*learned(), *planted])
    assert [e.origin for e in found.mislabelled] == ["wronger", "wrong"]
    assert [e.origin for e in found.worse] == ["risen more", "risen"]
    assert [e.origin for e in found.unlearned] == ["as it was, dear", "as it was"]


def test_a_run_that_learned_nothing_has_no_row_that_learned_less() -> None:
    found = suspects([entry(f"row {n}", 3.0, 3.0) for n in range(10)])
    assert (found.mislabelled, found.worse, found.unlearned) == ((), (), ())
    assert suspects([]).worse == ()


def test_entries_are_means_per_token_in_the_order_of_the_rows() -> None:
    rows = [Tokens((1, 2, 3), (-100, 2, 3), 1, "a"), Tokens((1, 2), (-100, 2), 1, "b")]
    before = [RowScores(4.0, 2, 0), RowScores(3.0, 1, 0)]
    after = [RowScores(1.0, 2, 1, margin=-0.75), RowScores(0.5, 1, 1)]
    assert ledger_of(rows, before, after) == [
        LedgerEntry("a", 2, 2.0, 0.5, 0.5, -0.75),
        LedgerEntry("b", 1, 3.0, 0.5, 1.0, 0.0),
    ]


def test_a_row_that_predicts_nothing_has_no_entry() -> None:
    """What packing leaves at the end may be one token; its mean would be no number, which JSON cannot say."""
    rows = [Tokens((1, 2), (-100, 2), 1, "a"), Tokens((3,), (3,), 0, "last")]
    scores = [RowScores(3.0, 1, 0), RowScores()]
    assert [each.origin for each in ledger_of(rows, scores, scores)] == ["a"]


def test_a_row_that_its_weight_repeats_stands_in_it_once() -> None:
    """A document that was cut into several rows stands in several."""
    rows = [Tokens(ids, ids, 0, origin) for ids, origin in (((1, 2), "a"), ((3,), "b"), ((1, 2), "a"), ((4,), "a"))]
    assert distinct(rows) == [rows[0], rows[1], rows[3]]


def test_what_is_written_is_read(tmp_path: Path) -> None:
    entries = [*learned(3), entry("名\u2028.json:7\x1b", 1.0, 2.0)]
    write_ledger(tmp_path, entries)
    assert read_ledger(tmp_path) == entries


@pytest.mark.parametrize(
    "text",
    [
        "{", "[]", '{"origin": "a"}', '{"origin": "a", "other": 1}', "[" * 100_000,
        '{"origin": "a", "num_tokens": 1, "loss_before": "1", "loss_after": 1, "token_accuracy": 1, "margin": 0}',
    ],
)  # fmt: skip
def test_a_broken_ledger_is_told(tmp_path: Path, text: str) -> None:
    (tmp_path / LEDGER).write_text(text)
    with pytest.raises(AdapterError, match="not a ledger"):
        read_ledger(tmp_path)


def test_a_run_without_a_ledger_is_told_how_to_keep_one(tmp_path: Path) -> None:
    with pytest.raises(AdapterError, match="Train with --ledger"):
        read_ledger(tmp_path)
