"""A LoRA layer as one function against PEFT's own forward, layer by layer."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model
from transformers.pytorch_utils import Conv1D

from peft_instruct.training import lora_product
from peft_instruct.training.lora_product import fuse_lora, unfuse_lora

INPUTS, OUTPUTS = 6, 10
LAYERS = {
    "Conv1D": lambda: Conv1D(OUTPUTS, INPUTS),
    "Linear": lambda: torch.nn.Linear(INPUTS, OUTPUTS),
    "Linear without bias": lambda: torch.nn.Linear(INPUTS, OUTPUTS, bias=False),
    "a square one": lambda: torch.nn.Linear(INPUTS, INPUTS),
}


def adapted(kind: str, **config: Any) -> Any:
    """A layer with an adapter that is away from its start, where B is zero."""
    torch.manual_seed(0)
    holder = torch.nn.ModuleDict({"layer": LAYERS[kind]()})
    wanted = LoraConfig(
        r=3, lora_alpha=12, target_modules=["layer"], fan_in_fan_out=kind == "Conv1D", **config
    )  # fmt: skip
    layer = inject_adapter_in_model(wanted, holder)["layer"]
    torch.nn.init.normal_(layer.lora_B["default"].weight)
    if getattr(layer.base_layer, "bias", None) is not None:
        torch.nn.init.normal_(layer.base_layer.bias)
    return layer


@pytest.fixture
def products(monkeypatch: pytest.MonkeyPatch) -> list[torch.Tensor]:
    """The outputs that came out of the one function."""
    found: list[torch.Tensor] = []
    apply = lora_product._LoraProduct.apply
    monkeypatch.setattr(lora_product._LoraProduct, "apply", lambda *given: found.append(apply(*given)) or found[-1])
    return found


def passed(layer: Any, dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    """Output and gradients, of the inputs and of what learns, with dropout drawn anew from one seed."""
    torch.manual_seed(1)
    x = torch.randn(2, 5, INPUTS, requires_grad=True)
    with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
        out = layer(x)
    layer.zero_grad()
    torch.manual_seed(2)
    out.backward(torch.randn(out.shape).to(out.dtype))
    learned = {name: p.grad for name, p in layer.named_parameters() if p.requires_grad}
    return {"out": out.detach(), "x": x.grad, **learned}


@pytest.fixture(params=["plain", "packed", "tiled"])
def packs(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Tiled in any type, and on a CPU without tiles."""
    monkeypatch.setattr(lora_product, "multiplies_by_tiles", lambda weight: request.param == "tiled")
    return bool(request.param != "plain")


@pytest.mark.parametrize("kind", LAYERS)
def test_output_and_gradients_are_those_of_peft(kind: str, packs: bool, products: list[torch.Tensor]) -> None:
    layer = adapted(kind)
    expected = passed(layer)
    weight = layer.base_layer.weight.detach().clone()
    fuse_lora(layer, packs)
    passed(layer)
    found = passed(layer)  # with an update that is written where the last one stood
    assert layer.base_layer.weight.equal(weight)
    assert len(products) == 2
    assert set(found) == {"out", "x", "lora_A.default.weight", "lora_B.default.weight"} == set(expected)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, msg=lambda text, name=name: f"{name}: {text}")


def test_in_bf16_what_learns_gets_fp32_gradients_within_the_rounding_of_bf16(
    packs: bool, products: list[torch.Tensor]
) -> None:
    layer = adapted("Conv1D")
    exact = passed(layer)
    layer.base_layer.to(torch.bfloat16)
    fuse_lora(layer, packs)
    found = passed(layer, torch.bfloat16)
    assert len(products) == 1 and found["out"].dtype == torch.bfloat16
    for name, value in exact.items():
        assert name == "out" or found[name].dtype == torch.float32
        assert (found[name].float() - value).norm() <= 0.02 * value.norm(), name


@pytest.mark.parametrize(
    ("config", "dtype"),
    [
        ({"lora_dropout": 0.5}, torch.float32),
        ({"use_dora": True}, torch.float32),
        ({}, torch.bfloat16),  # the layer's own weights are fp32, and autocast would cast them
    ],
    ids=["dropout", "DoRA", "another type"],
)
def test_what_is_more_than_two_products_is_left_to_peft(
    config: dict[str, Any], dtype: torch.dtype, products: list[torch.Tensor]
) -> None:
    layer = adapted("Linear", **config)
    expected = passed(layer, dtype)
    fuse_lora(layer)
    found = passed(layer, dtype)
    assert not products
    assert all(found[name].equal(value) for name, value in expected.items())


def test_a_layer_that_is_switched_off_or_merged_or_let_go_is_the_plain_one(products: list[torch.Tensor]) -> None:
    layer = adapted("Linear")
    x = torch.randn(2, INPUTS)
    tuned = layer(x)
    fuse_lora(layer)
    layer.enable_adapters(False)
    assert layer(x).equal(layer.base_layer(x))
    layer.enable_adapters(True)
    layer.merge()
    torch.testing.assert_close(layer(x), tuned)
    layer.unmerge()
    unfuse_lora(layer)
    torch.testing.assert_close(layer(x), tuned)
    assert not products
