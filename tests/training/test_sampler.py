"""The order of rows: what it must be, and that it is the same again after a restart."""

from __future__ import annotations

import random
from itertools import islice, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peft_instruct.training.sampler import LengthBucketSampler


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
