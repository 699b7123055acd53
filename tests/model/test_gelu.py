"""GELU's tanh form against its formula in fp64, and against torch's kernel where that one is exact."""

from __future__ import annotations

import math

import pytest
import torch

from peft_instruct.model import gelu
from peft_instruct.model.gelu import GELUTanh

TYPES = (torch.float32, torch.bfloat16)


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last of them is not full."""
    monkeypatch.setattr(gelu, "SMALLEST", 1)
    monkeypatch.setattr(gelu, "CHUNK", 1000)
    monkeypatch.setattr(gelu, "CHUNK_OF_THREAD", 1)


def torchs(x: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.gelu(x, approximate="tanh")


def formula(x: torch.Tensor) -> torch.Tensor:
    """By the sigmoid: in fp64, too, 1 + tanh is 0 for x = -6."""
    return x * torch.sigmoid(2 * math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))


def with_derivative(function, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:  # type: ignore[no-untyped-def]
    x = x.clone().requires_grad_()
    value = function(x)
    value.sum().backward()
    return value.detach(), x.grad


def every_bf16(between: float) -> torch.Tensor:
    numbers = torch.arange(-(2**15), 2**15).to(torch.int16).view(torch.bfloat16)
    return numbers[numbers.abs() <= between]


def units_apart(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """How many bf16 numbers lie between two."""
    places = [each.view(torch.int16).int() for each in (one, other)]
    from_zero = [torch.where(place < 0, -(place & 0x7FFF), place) for place in places]
    return (from_zero[0] - from_zero[1]).abs()


def test_in_fp32_it_is_the_formula() -> None:
    """Beside values up to 8 a rounding is 5e-7; torch's own derivative is 1e-6 away."""
    x = torch.linspace(-8, 8, 50_001)
    (value, derivative), exact = with_derivative(GELUTanh(), x), with_derivative(formula, x.double())
    assert (value - torchs(x)).abs().max() <= 1e-6
    assert (value - exact[0]).abs().max() <= 6e-7
    assert (derivative - exact[1]).abs().max() <= 3e-6


def test_in_bf16_it_is_the_nearest_number_or_the_one_beside_it() -> None:
    x = every_bf16(10)
    (value, derivative), exact = with_derivative(GELUTanh(), x), with_derivative(formula, x.double())
    assert units_apart(value, exact[0].bfloat16()).max() <= 1
    assert (derivative - exact[1]).abs().max() <= 2**-8  # half a unit of what is between 1 and 2
    theirs = torchs(x)
    assert (value == theirs).float().mean() > 0.99
    is_exact_in_torch = x > -4  # below, 1 + tanh cancels
    assert units_apart(value, theirs)[is_exact_in_torch].max() <= 1


@pytest.mark.parametrize("dtype", TYPES)
def test_at_the_ends_it_is_what_torch_has(dtype: torch.dtype) -> None:
    x = torch.tensor([1e4, -1e4, 0.0, -0.0, math.inf, -math.inf, math.nan, 3e38, -3e38], dtype=dtype)
    for mine, theirs in zip(with_derivative(GELUTanh(), x), with_derivative(torchs, x), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=0, equal_nan=True)
    value = GELUTanh()(x)
    assert torch.signbit(value[:4]).tolist() == [False, True, False, True]


@pytest.mark.parametrize("dtype", TYPES)
def test_without_a_gradient_the_value_is_the_same(dtype: torch.dtype) -> None:
    x = torch.randn(7, 500, dtype=dtype)
    learned, _ = with_derivative(GELUTanh(), x)
    with torch.no_grad():
        assert GELUTanh()(x.requires_grad_()).equal(learned)


def test_one_tensor_is_kept_for_backward() -> None:
    kept: list[torch.Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda each: kept.append(each) or each, lambda each: each):
        GELUTanh()(torch.randn(30, 100, dtype=torch.bfloat16, requires_grad=True))
    assert [(each.dtype, each.shape) for each in kept] == [(torch.bfloat16, (30, 100))]


def test_the_few_and_the_others_are_torchs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gelu, "_gelu", None)
    with pytest.raises(TypeError):
        GELUTanh()(torch.randn(10, 10))
    for x in (torch.randn(10, 10).t(), torch.randn(10, 10, dtype=torch.float64)):
        assert GELUTanh()(x).equal(torchs(x))
    monkeypatch.setattr(gelu, "SMALLEST", 101)
    x = torch.randn(10, 10)
    assert GELUTanh()(x).equal(torchs(x))
