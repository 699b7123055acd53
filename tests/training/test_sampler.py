"""The order of rows: what it must be, and that it is the same again after a restart."""

from __future__ import annotations

import random
from itertools import islice, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peft_instruct.training.sampler import LengthBucketSampler, TokenBudgetSampler


def lengths(count: int) -> list[int]:
    stream = random.Random(4)
    return [stream.randint(5, 500) for _ in range(count)]


def order(count: int, rows_per_step: int = 4, seed: int = 1, epoch: int = 0) -> list[int]:
    sampler = LengthBucketSampler(lengths(count), rows_per_step, seed=seed)
    sampler.set_epoch(epoch)
    return list(sampler)


@given(st.integers(1, 700), st.integers(1, 9))
def test_every_row_comes_once(count: int, rows_per_step: int) -> None:
    assert sorted(order(count, rows_per_step)) == list(range(count))


def test_the_order_is_a_function_of_seed_and_epoch() -> None:
    assert order(300, epoch=3) == order(300, epoch=3)
    assert order(300, epoch=3) != order(300, epoch=4)
    assert order(300, seed=1) != order(300, seed=2)


def test_batches_hold_rows_of_like_length_and_come_in_no_order_of_length() -> None:
    of = lengths(2000)
    found = order(2000, rows_per_step=8)
    batches = [[of[row] for row in found[at : at + 8]] for at in range(0, 2000, 8)]
    fill = sum(map(sum, batches)) / sum(8 * max(batch) for batch in batches)
    shuffled = random.Random(0).sample(of, 2000)
    plain = [shuffled[at : at + 8] for at in range(0, 2000, 8)]
    assert fill > 0.92 > sum(map(sum, plain)) / sum(8 * max(batch) for batch in plain)
    longest = [max(batch) for batch in batches]
    rises = sum(a < b for a, b in pairwise(longest)) / (len(longest) - 1)
    assert 0.4 < rises < 0.6


@pytest.mark.parametrize("epoch", [0, 1])
def test_the_step_with_the_longest_row_is_the_first_of_the_first_epoch(epoch: int) -> None:
    of = lengths(803)
    found = [of[row] for row in order(803, rows_per_step=8, epoch=epoch)]
    # What fills no step comes last and is no step to choose.
    assert (max(found[:8]) == max(found[:800])) == (epoch == 0)


def test_processes_side_by_side_have_like_lengths() -> None:
    of = lengths(6000)
    found = order(6000, rows_per_step=12)
    sums = [sum(of[row] for row in found[at : at + 4]) for at in range(0, 6000, 4)]
    steps = [sums[at : at + 3] for at in range(0, len(sums), 3)]
    assert sum(map(max, steps)) / sum(sum(step) / 3 for step in steps) < 1.05


@pytest.mark.parametrize("num_seen", [0, 1, 7])
def test_a_dataloader_that_skips_goes_on_where_the_other_one_was(num_seen: int) -> None:
    """As the Trainer resumes in the middle of epoch 2: set_epoch, then skip the batches seen."""
    from accelerate import Accelerator, skip_first_batches
    from torch.utils.data import DataLoader

    def loader() -> DataLoader:
        sampler = LengthBucketSampler(lengths(50), 4, seed=9)
        return Accelerator(cpu=True).prepare(DataLoader(list(range(50)), batch_size=4, sampler=sampler))

    whole = loader()
    whole.set_epoch(2)
    expected = [batch.tolist() for batch in whole]
    again = loader()
    again.set_epoch(2)
    assert [batch.tolist() for batch in skip_first_batches(again, num_seen)] == list(islice(expected, num_seen, None))


def budgeted(of: list[int], budget: int, epoch: int = 0, seed: int = 1, **more: int) -> TokenBudgetSampler:
    sampler = TokenBudgetSampler(of, budget, seed=seed, **more)
    sampler.set_epoch(epoch)
    return sampler


def area(batch: list[int], of: list[int], padded_to: int) -> int:
    longest = max(of[row] for row in batch)
    return len(batch) * (longest + -longest % padded_to)


@given(
    st.lists(st.integers(1, 300), min_size=1, max_size=400),
    st.integers(1, 3000),
    st.sampled_from([1, 8]),
    st.integers(1, 3),
    st.integers(1, 3),
)
def test_batches_by_tokens_hold_every_row_once_within_the_budget_and_are_as_many_in_every_epoch(
    of: list[int], budget: int, padded_to: int, passes: int, processes: int
) -> None:
    for epoch in range(3):
        sampler = budgeted(
            of, budget, epoch, padded_to=padded_to, batches_per_step=passes, num_processes=processes
        )  # fmt: skip
        batches = list(sampler)
        assert sorted(row for batch in batches for row in batch) == list(range(len(of)))
        assert len(batches) == len(sampler)
        assert all(len(batch) == 1 or area(batch, of, padded_to) <= budget for batch in batches)


def test_batches_by_tokens_are_a_function_of_seed_and_epoch_and_new_rows_meet_in_each() -> None:
    of = lengths(600)
    same, again, later, other = (
        [sorted(batch) for batch in budgeted(of, 2048, epoch, seed)] for epoch, seed in ((2, 1), (2, 1), (3, 1), (2, 2))
    )
    assert same == again
    assert not [batch for batch in same if batch in later or batch in other]


def test_batches_by_tokens_are_filled_better_than_by_rows_and_come_in_no_order_of_length() -> None:
    of = lengths(2000)
    batches = list(budgeted(of, 2048))
    areas = [area(batch, of, 1) for batch in batches]
    assert sum(of) / sum(areas) > 0.95
    assert sum(areas) / len(areas) > 0.85 * 2048
    longest = [max(of[row] for row in batch) for batch in batches]
    rises = sum(a < b for a, b in pairwise(longest)) / (len(longest) - 1)
    assert 0.4 < rises < 0.6


@pytest.mark.parametrize(("epoch", "processes"), [(0, 1), (0, 2), (0, 3), (1, 1)])
def test_the_largest_batch_by_tokens_is_among_the_first_of_the_first_epoch(epoch: int, processes: int) -> None:
    of = [*lengths(600), 3000]  # one row is beyond the budget by itself
    areas = [area(batch, of, 1) for batch in budgeted(of, 2048, epoch, num_processes=processes)]
    assert (max(areas[:processes]) == max(areas)) == (epoch == 0)


def test_batches_by_tokens_that_processes_take_side_by_side_have_like_lengths() -> None:
    of = lengths(3000)
    batches = list(budgeted(of, 1024, num_processes=3))
    longest = [max(of[row] for row in batch) for batch in batches]
    turns = [longest[at : at + 3] for at in range(0, len(batches) - len(batches) % 3, 3)]
    assert sum(map(max, turns)) / sum(sum(turn) / 3 for turn in turns) < 1.05


@pytest.mark.parametrize(("passes", "processes", "num_windows"), [(1, 1, 16), (4, 1, 8), (1, 2, 8), (8, 4, 8)])
def test_an_epoch_has_at_least_eight_windows_of_at_most_fifty_steps(
    passes: int, processes: int, num_windows: int
) -> None:
    """8,000 rows of 10 tokens are 800 batches of 100: as steps 800, 200, 400 or 25, in windows of 50, 25, 50 or 3."""
    sampler = budgeted([10] * 8000, 100, batches_per_step=passes, num_processes=processes)
    assert (sampler.num_windows, len(sampler)) == (num_windows, 800)


def test_of_few_rows_not_the_same_meet_in_every_epoch() -> None:
    first, second = (
        {frozenset(found[at : at + 4]) for at in range(0, 64, 4)} for found in (order(64), order(64, epoch=1))
    )
    assert len(first & second) <= 2
