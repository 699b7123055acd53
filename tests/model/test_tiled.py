"""A tiled matrix computes what the plain products do, however its rows are divided."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from peft_instruct.model import tiled
from peft_instruct.model.tiled import TiledMatrix, by_rows

OUTPUTS = 96


@pytest.fixture(params=[1, 2])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.fixture
def rows_of_products(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    found: list[int] = []
    mm = torch.mm
    monkeypatch.setattr(torch, "mm", lambda x, weight, out: found.append(len(x)) or mm(x, weight, out=out))
    return found


# Up to 5/6 of the outputs as one, from twice as many too; between them no part has more, and the last one what is left.
@pytest.mark.parametrize(
    ("num_rows", "parts"), [(80, []), (81, [64, 17]), (161, [64, 64, 33]), (191, [64, 64, 63]), (192, [])]
)
def test_two_threads_share_the_rows(num_rows: int, parts: list[int], threads: int, rows_of_products: list[int]) -> None:
    torch.manual_seed(0)
    x, weight = torch.randn(num_rows, 40), torch.randn(40, OUTPUTS)
    torch.testing.assert_close(by_rows(x, weight), x @ weight)
    assert rows_of_products == (parts if threads == 2 else [])


def test_wide_ones_are_one_product(threads: int, rows_of_products: list[int]) -> None:
    size = tiled.WIDEST_FOR_ONE + 1
    assert by_rows(torch.ones(size, 1), torch.ones(1, size)).equal(torch.ones(size, size))
    assert not rows_of_products


@pytest.mark.parametrize("shape", [(24, 40), (40, 24), (32, 32)], ids=str)
@pytest.mark.parametrize("has_bias", [False, True])
def test_both_ways_with_updates_of_any_rank_and_the_weight_left_alone(shape: tuple[int, int], has_bias: bool) -> None:
    torch.manual_seed(0)
    num_inputs, num_outputs = shape
    weight, bias = torch.randn(shape), torch.randn(num_outputs) if has_bias else None
    before = weight.clone()
    matrix = TiledMatrix(weight, bias)
    for rank in (3, 3, 40, 1):
        x, d, low = torch.randn(7, num_inputs), torch.randn(7, num_outputs), torch.randn(7, rank)
        b, a = torch.randn(rank, num_outputs), torch.randn(rank, num_inputs)
        expected = x @ weight + low @ b + (0 if bias is None else bias)
        torch.testing.assert_close(matrix.product(x, low, b), expected, rtol=1e-5, atol=1e-4)
        torch.testing.assert_close(matrix.transposed_product(d, low, a), d @ weight.t() + low @ a, rtol=1e-5, atol=1e-4)
    assert weight.equal(before)
