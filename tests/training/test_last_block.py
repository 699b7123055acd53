"""What stands behind the last attention, at learned positions only: the loss and the gradients of the whole model."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from families import tiny_configs
from peft import LoraConfig, get_peft_model
from test_speed import relative_difference
from transformers import AutoModelForCausalLM, Lfm2Config, MixtralConfig

from peft_instruct.data.types import IGNORED_LABEL
from peft_instruct.model import joined_rows, last_block
from peft_instruct.model.dropout import set_dropout
from peft_instruct.model.families import FAMILIES, is_conv1d_family, resolve_targets
from peft_instruct.model.kernels import use_fast_kernels
from peft_instruct.model.last_block import after_last_attention
from peft_instruct.recipe.training_section import SpeedSection
from peft_instruct.training.completion_head import SHORTEST_PREAMBLE, score_learned_positions

SHARED = SHORTEST_PREAMBLE + 1
LENGTHS, PROMPTS = (19, 14, 22), (SHARED + 4, SHARED, SHARED)
"""Two rows learn right behind what all share, whose last token predicts for both."""
CONFIGS = tiny_configs(width=16, positions=32, vocabulary=48)


@pytest.fixture(autouse=True)
def few_fill_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joined_rows, "MULTIPLE", 4)
    monkeypatch.setattr(last_block, "FEW", 4)


def batch(shared: int = SHARED) -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    place = torch.arange(max(LENGTHS))
    mask = (place < torch.tensor(LENGTHS)[:, None]).long()
    ids = torch.randint(1, 48, mask.shape)
    ids[:, :shared] = ids[0, :shared]
    is_learned = mask.bool() & (place >= torch.tensor(PROMPTS)[:, None])
    return {"input_ids": ids * mask, "attention_mask": mask, "labels": ids.masked_fill(~is_learned, IGNORED_LABEL)}


def model_of(family: str, lora: bool = False, dropout: float = 0.0, **speed: bool) -> tuple[Any, Any]:
    """(what learns, the same model with our forward)."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(CONFIGS[family], dtype=torch.float32).eval()
    use_fast_kernels(model)
    set_dropout(model, dropout)
    learns = model
    if lora:
        targets = resolve_targets(model, family, "all")
        learns = get_peft_model(
            model,
            LoraConfig(r=2, target_modules=targets, init_lora_weights=False, fan_in_fan_out=is_conv1d_family(family)),
        )
    patched = copy.deepcopy(learns)
    score_learned_positions(patched.get_base_model() if lora else patched, SpeedSection(**speed))
    return learns, patched


def gradients(model: Any) -> dict[str, torch.Tensor]:
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None and p.grad.any()}


def tokens_given_to_mlps(gpt2: Any) -> list[int]:
    """Filled at each call of the model."""
    given: list[int] = []
    for block in gpt2.transformer.h:
        block.mlp.c_fc.register_forward_pre_hook(lambda _, args: given.append(args[0].shape[1]))
    return given


@pytest.mark.parametrize("lora", [True, False], ids=["lora", "full"])
@pytest.mark.parametrize("shared", [SHARED, 0], ids=["a preamble", "none"])
@pytest.mark.parametrize("joined", [True, False], ids=["joined", "padded"])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_has_the_loss_and_the_gradients_of_its_whole(
    family: str, joined: bool, shared: int, lora: bool
) -> None:
    """fp32: the order of additions is all that differs."""
    whole, patched = model_of(family, lora, joined_rows=joined)
    given = batch(shared)
    targets = given.pop("labels")[:, 1:]
    logits = whole(**given).logits[:, :-1]
    nats = torch.nn.functional.cross_entropy(logits.transpose(1, 2), targets, reduction="none", ignore_index=-100)
    nats.sum().backward()
    found = patched(**batch(shared), fused_lm_head=True)
    (-found.log_probs.sum()).backward()
    torch.testing.assert_close(-found.log_probs, nats, rtol=1e-5, atol=1e-5)
    assert relative_difference(gradients(whole), gradients(patched)) <= 1e-5


@pytest.mark.parametrize("joined", [True, False], ids=["joined", "padded"])
@pytest.mark.parametrize("family", FAMILIES)
def test_under_autocast_every_family_is_as_near_to_fp32_as_its_whole(family: str, joined: bool) -> None:
    """fp32 weights, multiplied in bf16: rotary positions leave queries and keys in fp32, and values in bf16."""
    whole, patched = model_of(family, joined_rows=joined)
    targets = batch()["labels"][:, 1:]
    found = []
    for model, precision in ((whole, torch.float32), (whole, torch.bfloat16), (patched, torch.bfloat16)):
        model.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == torch.bfloat16):
            if model is patched:
                loss = -model(**batch(), fused_lm_head=True).log_probs.sum()
            else:
                given = {name: each for name, each in batch().items() if name != "labels"}
                logits = model(**given).logits[:, :-1].float()
                loss = torch.nn.functional.cross_entropy(logits.transpose(1, 2), targets, reduction="sum")
        loss.backward()
        found.append({name: gradient.clone() for name, gradient in gradients(model).items()})
    exact, plain, ours = found
    assert relative_difference(exact, ours) <= 1.5 * relative_difference(exact, plain)


def test_a_model_with_more_in_its_cache_than_keys_and_values_shares_no_preamble() -> None:
    """LFM2's convolutions, that is; without joined rows, which its attention is not told of."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2, "num_key_value_heads": 2}
    config = Lfm2Config(vocab_size=48, num_hidden_layers=2, layer_types=["conv", "full_attention"], **sizes)
    whole = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    patched = copy.deepcopy(whole)
    score_learned_positions(patched, SpeedSection())
    given = batch()
    targets = given.pop("labels")[:, 1:]
    logits = whole(**given).logits[:, :-1]
    nats = torch.nn.functional.cross_entropy(logits.transpose(1, 2), targets, reduction="none", ignore_index=-100)
    found = patched(**batch(), fused_lm_head=True)
    torch.testing.assert_close(-found.log_probs, nats, rtol=1e-5, atol=1e-5)


def test_a_model_of_experts_keeps_the_forward_that_knows_their_part_of_the_loss() -> None:
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2, "num_key_value_heads": 2}
    for adds in (True, False):
        config = MixtralConfig(vocab_size=48, num_hidden_layers=1, output_router_logits=adds, **sizes)
        model = AutoModelForCausalLM.from_config(config)
        score_learned_positions(model, SpeedSection())
        assert ("forward" in vars(model)) != adds


def test_the_last_mlp_is_given_learned_tokens_alone() -> None:
    _, model = model_of("gpt2")
    given = tokens_given_to_mlps(model)
    model(**batch(), fused_lm_head=True)
    # 28 tokens behind the preamble; 20 predictions, one of them for two rows.
    own = SHARED + sum(LENGTHS) - 3 * SHARED
    read = sum(LENGTHS) - sum(PROMPTS) - 1
    assert given == [own + -own % 4, read + -read % 4]


@pytest.mark.parametrize("why", ["recomputed", "dropout"])
def test_where_a_pass_may_have_to_be_the_same_recomputed_it_is_whole(why: str) -> None:
    _, model = model_of("gpt2", dropout=0.1 if why == "dropout" else 0.0)
    if why == "recomputed":
        model.gradient_checkpointing_enable()
    model.train()
    given = tokens_given_to_mlps(model)
    model(**batch(), fused_lm_head=True)
    assert given[0] == given[1]


@pytest.mark.parametrize("fails", [False, True])
def test_any_other_call_sees_the_whole_model(fails: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, patched = model_of("gpt2")
    if fails:
        with monkeypatch.context() as within, pytest.raises(ZeroDivisionError):
            within.setattr(patched.transformer.ln_f, "forward", lambda x: 1 / 0)
            patched(**batch(), fused_lm_head=True)
    else:
        patched(**batch(), fused_lm_head=True).log_probs.sum().backward()
    prompt = batch()["input_ids"][2:]
    torch.testing.assert_close(patched(prompt).logits, whole(prompt).logits, rtol=0, atol=0)
    options = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": 0}
    assert patched.generate(prompt, **options).equal(whole.generate(prompt, **options))


@pytest.mark.parametrize("family", FAMILIES)
def test_the_projection_and_the_mlp_stand_behind_the_last_attention(family: str) -> None:
    """What they give to a token reaches the logits of no other."""
    model, _ = model_of(family)
    given: list[torch.Tensor] = []

    def keep(_: Any, __: Any, output: torch.Tensor) -> None:
        output.retain_grad()
        given.append(output)

    for module in after_last_attention(model, CONFIGS[family]):
        module.register_forward_hook(keep)
    model(batch(0)["input_ids"][2:]).logits[0, -1].sum().backward()
    assert len(given) == 2
    for output in given:
        assert output.grad is not None and output.grad[:, -1].any() and not output.grad[:, :-1].any()
