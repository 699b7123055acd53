"""What really ran is recorded, not what was asked for or what the weights are held in."""

from __future__ import annotations

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from peft_instruct.bench.witness import Witness

IDS = torch.arange(8).unsqueeze(0)


@pytest.fixture
def model() -> GPT2LMHeadModel:
    return GPT2LMHeadModel(GPT2Config(vocab_size=32, n_positions=8, n_embd=16, n_layer=1, n_head=2))


def test_autocast_of_fp32_weights_is_seen_as_bf16(model: GPT2LMHeadModel) -> None:
    witness = Witness(model)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        model(IDS)
    assert (witness.device, witness.dtype) == ("cpu", "bf16")
    assert next(model.parameters()).dtype == torch.float32


def test_plain_fp32_is_seen_as_fp32(model: GPT2LMHeadModel) -> None:
    witness = Witness(model)
    model(IDS)
    assert witness.dtype == "fp32"


def test_only_the_first_product_is_watched_so_that_the_timed_steps_are_not(model: GPT2LMHeadModel) -> None:
    witness = Witness(model)
    model(IDS)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        model(IDS)
    assert witness.dtype == "fp32"
    assert not any(module._forward_hooks for module in model.modules())


def test_where_the_product_goes_around_the_module_the_weights_tell(model: GPT2LMHeadModel) -> None:
    assert Witness(model.to(torch.bfloat16)).dtype == "bf16"
