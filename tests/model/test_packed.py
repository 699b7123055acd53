"""Packed weights compute what the plain ones do, and are gone afterwards."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from peft_instruct.model import packed
from peft_instruct.model.packed import Matrix, may_pack_frozen, multiplies_packed, packed_weights

GPT2 = GPT2Config(vocab_size=64, n_embd=64, n_layer=2, n_head=4, n_positions=64)
LLAMA = LlamaConfig(
    vocab_size=64, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=2, max_position_embeddings=64,
)  # fmt: skip
pytestmark = pytest.mark.skipif(
    not (packed.platform.machine() in ("x86_64", "AMD64") and torch.backends.mkldnn.is_available()), reason="no oneDNN"
)


def num_packed(model: nn.Module) -> int:
    return sum("forward" in module.__dict__ for module in model.modules())


@pytest.mark.parametrize("make", [lambda: GPT2LMHeadModel(GPT2), lambda: LlamaForCausalLM(LLAMA)])
@pytest.mark.parametrize("rows", [1, 3, 40])
def test_logits_are_those_of_the_plain_weights(make: Any, rows: int) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model, ids = make().eval(), torch.randint(64, (rows, 7))
    with torch.no_grad():
        for name, bias in model.named_parameters():
            if name.endswith("bias"):
                bias.fill_(0.5)  # they begin at zero, where a lost one would not be seen
        plain = model(input_ids=ids).logits
        with packed_weights(model):
            assert num_packed(model) == sum(type(each) in (nn.Linear, packed.Conv1D) for each in model.modules())
            quick = model(input_ids=ids).logits
    assert torch.allclose(plain, quick, rtol=1e-5, atol=1e-5)
    assert num_packed(model) == 0


def test_autocast_inside_the_models_forward_computes_as_without_packing() -> None:
    """Samples during a training in bf16: accelerate wraps `model.forward`, so the block begins without autocast."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model, ids = GPT2LMHeadModel(GPT2).eval(), torch.randint(64, (3, 7))
    model.forward = torch.autocast("cpu", dtype=torch.bfloat16)(model.forward)  # type: ignore[method-assign]
    with torch.no_grad():
        plain = model(input_ids=ids).logits
        with packed_weights(model):
            assert num_packed(model.transformer) == 8
            assert torch.equal(model(input_ids=ids).logits, plain)
    assert plain.dtype == torch.bfloat16


def test_what_cannot_be_packed_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    half, own = nn.Linear(8, 8, dtype=torch.bfloat16), nn.Linear(8, 8)
    own.forward = lambda inputs: inputs  # type: ignore[method-assign]
    before = own.forward
    with packed_weights(nn.ModuleList([half, own])):
        assert "forward" not in half.__dict__ and own.forward is before
    assert own.forward is before
    plain = nn.Linear(8, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16), packed_weights(plain):
        assert num_packed(plain) == 0
    monkeypatch.setattr(packed, "MOST_PACKED_BYTES", plain.weight.nbytes - 1)
    with packed_weights(plain):
        assert num_packed(plain) == 0
    monkeypatch.setattr(packed, "MOST_PACKED_BYTES", plain.weight.nbytes)
    with pytest.raises(KeyError), packed_weights(plain):
        assert num_packed(plain) == 1
        raise KeyError
    assert num_packed(plain) == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("has_bias", [False, True])
def test_a_matrix_multiplies_both_ways(dtype: torch.dtype, has_bias: bool) -> None:
    torch.manual_seed(0)
    weight = torch.randn(32, 48, dtype=dtype)
    if not multiplies_packed(weight):
        pytest.skip("no native bf16")
    bias = torch.randn(48, dtype=dtype) if has_bias else None
    x, d = torch.randn(7, 32, dtype=dtype), torch.randn(7, 48, dtype=dtype)
    tolerance = {"rtol": 1e-5, "atol": 1e-5} if dtype == torch.float32 else {"rtol": 2**-7, "atol": 2**-4}
    exact = x.double() @ weight.double() + (0 if bias is None else bias.double())
    for packs in (False, True):
        matrix = Matrix(weight, bias, packs=packs)
        torch.testing.assert_close(matrix.product(x).double(), exact, **tolerance)
        torch.testing.assert_close(matrix.transposed_product(d).double(), d.double() @ weight.double().T, **tolerance)


def test_frozen_weights_are_packed_up_to_a_limit_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    model = nn.ModuleList([nn.Linear(8, 8), nn.Linear(8, 8)])
    model[0].requires_grad_(False)
    monkeypatch.setattr(packed, "MOST_PACKED_BYTES", 2 * 8 * 8 * 4)
    assert may_pack_frozen(model), "both orders of the frozen one"
    model[1].requires_grad_(False)
    assert not may_pack_frozen(model)
