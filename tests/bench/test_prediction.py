"""What a few passes say of a whole run, on costs whose law is known."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peft_instruct.bench.prediction import MOST_SHARE, CompletionTimes, PassTimes, most_sizes, next_rows


@given(st.floats(0, 2), st.floats(1e-6, 1e-2), st.integers(1, 8), st.integers(1, 8))
def test_time_per_pass_and_per_position_is_found_again(a: float, b: float, passes: int, more: int) -> None:
    few, many = (passes, 100 * passes), (passes * more, 1000 * passes * more)
    found = PassTimes.of((*few, a * few[0] + b * few[1]), (*many, a * many[0] + b * many[1]))
    assert found.seconds(3, 12345) == pytest.approx(3 * a + 12345 * b, rel=1e-6)


@pytest.mark.parametrize(
    ("few", "many"),
    [((1, 100, 1.0), (1, 100, 1.0)), ((1, 100, 3.0), (1, 200, 2.0)), ((1, 100, 0.1), (1, 200, 2.0))],
    ids=["one length only", "the longer was faster", "less than nothing for a pass"],
)
def test_where_two_costs_cannot_be_told_apart_time_is_in_proportion_to_positions(
    few: tuple[int, int, float], many: tuple[int, int, float]
) -> None:
    assert PassTimes.of(few, many).seconds(7, 50) == pytest.approx(many[2] / many[1] * 50)


@given(st.floats(0, 2), st.floats(0, 1), st.integers(2, 64))
def test_time_of_a_step_and_of_a_row_in_it_is_found_again(step: float, row: float, num_rows: int) -> None:
    found = CompletionTimes.of(0.25, step + row, step + num_rows * row, num_rows)
    # Two rows that both write 3 tokens: 2 steps after the first token; one that writes 5 more, looked at every 3.
    assert found.seconds(10, [3, 3], 3) == pytest.approx(2.5 + 2 * step + 4 * row)
    assert found.seconds(0, [3, 8], 3) == pytest.approx(7 * step + (2 + 7) * row, abs=1e-9)


@pytest.mark.parametrize(("alone", "together", "num_rows"), [(2.0, 1.0, 4), (1.0, 9.0, 4), (3.0, 3.0, 1)])
def test_noise_makes_no_step_and_no_row_cost_less_than_nothing(alone: float, together: float, num_rows: int) -> None:
    found = CompletionTimes.of(0.0, alone, together, num_rows)
    assert min(found.per_step, found.per_row) >= 0
    assert found.per_step + num_rows * found.per_row == pytest.approx(together)


def test_passes_that_are_alike_take_time_in_proportion_to_their_positions() -> None:
    assert PassTimes.per_position_of((1, 100, 2.0), (2, 300, 2.0)).seconds(5, 50) == pytest.approx(0.5)


def climb(fixed: int, per_row: int, most_rows: int, total: int) -> list[int]:
    """The rows of the passes that are run until nothing changes, where memory is `fixed` and so much a row."""
    peaks: list[tuple[int, int]] = []
    while True:
        rows = next_rows(peaks, most_rows, total)
        if rows is None or (peaks and rows == peaks[-1][0]):
            return [each for each, _ in peaks]
        peaks.append((rows, fixed + per_row * rows))


@given(st.integers(0, 10**6), st.integers(1, 10**6), st.integers(1, 64), st.integers(1, 10**8))
def test_no_pass_is_run_that_memory_has_no_room_for(fixed: int, per_row: int, most_rows: int, total: int) -> None:
    sizes = climb(fixed, per_row, most_rows, total)
    # Nothing can be said before two sizes were run.
    assert all(fixed + per_row * rows <= MOST_SHARE * total for rows in sizes[2:])
    last = sizes[-1]
    more = min(2 * last, most_rows)
    assert last == most_rows or fixed + per_row * more > MOST_SHARE * total
    assert 1 + len(sizes) <= most_sizes(most_rows)


def test_a_batch_that_plainly_fits_is_run_at_once() -> None:
    assert climb(1000, 10, 64, 10**6) == [1, 2, 64]
    assert climb(1000, 10, 64, 2000) == [1, 2, 4, 8, 16, 32, 64]
    assert climb(1000, 10, 64, 1500) == [1, 2, 4, 8, 16, 32]
    assert climb(5, 1, 1, 10) == [1]
