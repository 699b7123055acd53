"""Figures of lengths against their definitions."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peft_instruct.data.scripts import count_scripts, main_script
from peft_instruct.data.statistics import (
    bucketed_fill,
    histogram,
    packed_fill,
    padded_fill,
    percentiles,
    shuffled_fill,
    top_prefixes,
)

LENGTHS = st.lists(st.integers(1, 900), min_size=1, max_size=60)


@given(LENGTHS)
def test_a_percentile_is_the_least_length_that_the_share_does_not_exceed(lengths: list[int]) -> None:
    for name, value in percentiles(lengths).items():
        share = int(name.removeprefix("p")) / 100
        assert sum(length <= value for length in lengths) >= share * len(lengths)
        assert sum(length < value for length in lengths) <= share * len(lengths)


@given(LENGTHS)
def test_a_histogram_holds_every_row_once(lengths: list[int]) -> None:
    bins = histogram(lengths)
    assert [sum(first <= length <= last for length in lengths) for first, last, _ in bins] == [n for *_, n in bins]
    assert sum(n for *_, n in bins) == len(lengths)


def test_fill_is_real_tokens_of_all_positions() -> None:
    # Batches (1, 3) and (4, 4): 12 tokens in 2·3 + 2·4 positions.
    assert padded_fill([1, 3, 4, 4], 2) == pytest.approx(12 / 14)
    # Best fit, the longest first, into 8: 6+2, 5+3, 4.
    assert packed_fill([2, 3, 4, 5, 6], 8) == pytest.approx(20 / 24)
    assert packed_fill([9, 8], 8) == 1.0


@given(LENGTHS, st.integers(1, 9))
def test_rows_of_like_length_together_are_never_worse(lengths: list[int], batch_size: int) -> None:
    lengths = lengths * batch_size  # full batches: a smaller last one can hold the longest row at less cost
    assert shuffled_fill(lengths, batch_size) <= bucketed_fill(lengths, batch_size) + 1e-12 <= 1 + 2e-12
    assert 0.5 < packed_fill([*lengths, 900], 900) <= 1 or sum(lengths) < 900


def test_prefixes_are_counted_without_case() -> None:
    assert top_prefixes(["What is the sea?", "what is THE sky?", "Name it", ""])[0] == ("what is the", 2)


def test_scripts_are_those_of_the_letters() -> None:
    assert count_scripts("Ab 1 жё 漢 かな!") == {"latin": 2, "cyrillic": 2, "han": 1, "japanese": 2}
    assert main_script("Привет, как дела?") == "cyrillic"
    assert main_script("今日はとても暑いですね、本当に") == "japanese"
    assert main_script("half половина") == main_script("short") == ""
