"""Which matrices carry an adapter, family by family, and how many parameters that makes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from families import tiny_configs
from transformers import AutoModelForCausalLM, GPT2Config, OPTConfig

from peft_instruct.errors import RecipeError
from peft_instruct.model.adapters import lora_config, make_trainable
from peft_instruct.model.base import Base
from peft_instruct.model.device import Compute
from peft_instruct.model.dropout import has_dropout, set_dropout
from peft_instruct.model.families import FAMILIES, is_conv1d_family, resolve_targets
from peft_instruct.model.location import Location
from peft_instruct.recipe.model_section import MethodSection

W = 16  # width of the tiny models
CONFIGS = tiny_configs(width=W, positions=32, vocabulary=64)
LLAMA_ATTENTION = {
    "self_attn.q_proj": W + W,
    "self_attn.k_proj": W + W // 2,
    "self_attn.v_proj": W + W // 2,
    "self_attn.o_proj": W + W,
}
LLAMA_REST = {"mlp.gate_proj": W + 3 * W, "mlp.up_proj": W + 3 * W, "mlp.down_proj": 3 * W + W}
# Module names inside a block with in + out of each: a rank-r adapter on a matrix has r * (in + out) parameters.
ATTENTION = {
    "gpt2": {"attn.c_attn": W + 3 * W, "attn.c_proj": W + W},
    "gpt_neo": {f"attn.attention.{name}": W + W for name in ("k_proj", "v_proj", "q_proj", "out_proj")},
    "gptj": {f"attn.{name}": W + W for name in ("k_proj", "v_proj", "q_proj", "out_proj")},
    "gpt_neox": {"attention.query_key_value": W + 3 * W, "attention.dense": W + W},
    **dict.fromkeys(("llama", "mistral", "qwen2", "qwen3"), LLAMA_ATTENTION),
}
FEED_FORWARD = {
    "gpt2": {"mlp.c_fc": 5 * W, "mlp.c_proj": 5 * W},
    "gpt_neo": {"mlp.c_fc": 5 * W, "mlp.c_proj": 5 * W},
    "gptj": {"mlp.fc_in": 5 * W, "mlp.fc_out": 5 * W},
    "gpt_neox": {"mlp.dense_h_to_4h": 5 * W, "mlp.dense_4h_to_h": 5 * W},
    **dict.fromkeys(("llama", "mistral", "qwen2", "qwen3"), LLAMA_REST),
}


def _model(config: Any) -> Any:
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config)


def _base(model: Any, quantization: str = "none") -> Base:
    """A base of a model without weights; adapters look at its shape alone."""
    compute = Compute("cpu", "fp32", "nothing")
    location = Location("tiny", folder=None)  # type: ignore[arg-type]
    return Base(model, None, compute, location, model.config.model_type, 32, quantization)  # type: ignore[arg-type]


def _inside_block(name: str) -> str:
    """`transformer.h.0.attn.c_attn` -> `attn.c_attn`."""
    parts = name.split(".")
    number = next(position for position, part in enumerate(parts) if part.isdigit())
    return ".".join(parts[number + 1 :])


@pytest.mark.parametrize("family", CONFIGS)
def test_dropout_that_is_set_drops_in_attention_and_is_seen(family: str) -> None:
    torch.manual_seed(3)
    model = AutoModelForCausalLM.from_config(CONFIGS[family], attn_implementation="eager").train()
    ids = torch.arange(12)[None]
    set_dropout(model, 0.0)
    assert not has_dropout(model) and model(ids).logits.equal(model(ids).logits)
    set_dropout(model, 0.5)
    if family == "gpt_neox":  # what is left of both kinds is attention's alone
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
    assert has_dropout(model) and not model(ids).logits.equal(model(ids).logits)


def test_dropout_that_a_module_keeps_as_a_number_of_its_own_is_set_and_seen() -> None:
    ids, config = torch.arange(12)[None], OPTConfig(hidden_size=32, ffn_dim=32, num_hidden_layers=1, vocab_size=64,
                                                    num_attention_heads=2, word_embed_proj_dim=32)  # fmt: skip
    model = AutoModelForCausalLM.from_config(config).train()
    assert has_dropout(model) and not model(ids).logits.equal(model(ids).logits)
    set_dropout(model, 0.0)
    assert not has_dropout(model) and model(ids).logits.equal(model(ids).logits)
    assert model.config.dropout == 0.0


def test_every_family_is_tried_here() -> None:
    assert set(CONFIGS) == set(FAMILIES) == set(ATTENTION) == set(FEED_FORWARD)


@pytest.mark.parametrize("family", CONFIGS)
def test_the_targets_of_a_family_are_exactly_the_matrices_of_its_blocks(family: str) -> None:
    model = _model(CONFIGS[family])
    every = resolve_targets(model, family, "all")
    assert {_inside_block(name) for name in every} == set(ATTENTION[family]) | set(FEED_FORWARD[family])
    assert len(every) == 2 * (len(ATTENTION[family]) + len(FEED_FORWARD[family])), "both blocks, each matrix once"
    attention = resolve_targets(model, family, "attention")
    assert {_inside_block(name) for name in attention} == set(ATTENTION[family])
    assert len(attention) == 2 * len(ATTENTION[family])


@pytest.mark.parametrize("family", CONFIGS)
@pytest.mark.parametrize("dora", [False, True], ids=["lora", "dora"])
def test_the_trainable_parameters_are_those_of_the_closed_form(family: str, dora: bool) -> None:
    """Rank r on a matrix: r * (in + out); DoRA adds a magnitude for each output."""
    model = _model(CONFIGS[family])
    before = sum(parameter.numel() for parameter in model.parameters())
    rank, shapes = 3, {**ATTENTION[family], **FEED_FORWARD[family]}
    # Meta tensors have no norm, which DoRA's first magnitudes are made of: a DoRA model needs real weights.
    if dora:
        model = AutoModelForCausalLM.from_config(CONFIGS[family])
    expected = 2 * rank * sum(shapes.values())
    if dora:
        linear = {
            name: module for name, module in model.named_modules() if name in resolve_targets(model, family, "all")
        }
        expected += sum(_num_outputs(module) for module in linear.values())
    trainable = make_trainable(_base(model), MethodSection(rank=rank, dora=dora))
    assert trainable.num_trainable == expected
    assert trainable.num_parameters == before + expected


def _num_outputs(module: Any) -> int:
    return int(module.nf if hasattr(module, "nf") else module.out_features)


def test_rank_16_on_gpt2_trains_2_359_296_parameters() -> None:
    """12 layers * 16 * ((768 + 2304) + (768 + 768) + (768 + 3072) + (3072 + 768)); GPT-2 has 124,439,808."""
    model = _model(GPT2Config())
    trainable = make_trainable(_base(model), MethodSection(rank=16))
    assert trainable.num_trainable == 12 * 16 * (3072 + 1536 + 3840 + 3840) == 2_359_296
    assert trainable.num_parameters - trainable.num_trainable == 124_439_808
    assert len(trainable.targets) == 48
    assert "2,359,296 of 126,799,104 parameters learn (1.86%) on 48 matrices" in trainable.describe()
    for name in ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"):
        assert name in trainable.describe()


def test_rank_8_on_gpt2s_c_attn_trains_294_912_parameters() -> None:
    trainable = make_trainable(_base(_model(GPT2Config())), MethodSection(rank=8, targets=["c_attn"]))
    assert trainable.num_trainable == 12 * 8 * (768 + 2304) == 294_912


def test_full_training_trains_every_parameter_and_counts_shared_ones_once() -> None:
    trainable = make_trainable(_base(_model(GPT2Config())), MethodSection(kind="full"))
    assert trainable.num_trainable == trainable.num_parameters == 124_439_808
    assert trainable.targets == ()


def test_a_name_of_ones_own_matches_whole_parts_of_a_path_only() -> None:
    model = _model(CONFIGS["gpt2"])
    assert {_inside_block(name) for name in resolve_targets(model, "gpt2", ["c_proj"])} == {"attn.c_proj", "mlp.c_proj"}
    assert {_inside_block(name) for name in resolve_targets(model, "gpt2", ["mlp.c_proj"])} == {"mlp.c_proj"}
    assert resolve_targets(model, "gpt2", ["h.1.attn.c_attn"]) == ["transformer.h.1.attn.c_attn"]
    with pytest.raises(RecipeError, match="'proj' matches no module"):
        resolve_targets(model, "gpt2", ["proj"])


def test_names_that_overlap_give_each_matrix_one_adapter() -> None:
    model = _model(CONFIGS["gpt2"])
    twice = resolve_targets(model, "gpt2", ["c_proj", "mlp.c_proj", "mlp.c_proj"])
    assert twice == resolve_targets(model, "gpt2", ["c_proj"])


@pytest.mark.parametrize("targets", [["q_proj"], ["c_attn", "q_proj"], ["h.7.attn.c_attn"], ["attn"], ["ln_1"]])
def test_a_target_that_is_not_there_is_told_with_those_that_are(targets: list[str]) -> None:
    with pytest.raises(RecipeError) as caught:
        resolve_targets(_model(CONFIGS["gpt2"]), "gpt2", targets)
    assert str(caught.value) == (
        f"method.targets: {targets[-1]!r} matches no module. This model has c_attn, c_proj, c_fc."
    )


def test_all_wrong_targets_are_told_at_once() -> None:
    with pytest.raises(RecipeError, match="'a' matches no module; 'b' matches no module"):
        resolve_targets(_model(CONFIGS["gpt2"]), "gpt2", ["a", "c_fc", "b"])


@pytest.mark.parametrize("name", ["lm_head", "wte", "transformer.wte"])
def test_an_adapter_on_the_shared_embedding_is_refused(name: str) -> None:
    with pytest.raises(RecipeError, match="the embedding or the head, which GPT-2 shares"):
        resolve_targets(_model(CONFIGS["gpt2"]), "gpt2", [name])


def test_an_unknown_family_asks_for_names_and_takes_them() -> None:
    from transformers import BloomConfig

    model = _model(BloomConfig(vocab_size=64, hidden_size=W, n_layer=1, n_head=2))
    with pytest.raises(RecipeError) as caught:
        resolve_targets(model, "bloom", "all")
    assert "all is not known for model type 'bloom'" in str(caught.value)
    assert "this model has query_key_value, dense, dense_h_to_4h, dense_4h_to_h" in str(caught.value)
    assert len(resolve_targets(model, "bloom", ["query_key_value"])) == 1


@pytest.mark.parametrize("family", CONFIGS)
def test_fan_in_fan_out_is_set_where_the_matrices_are_stored_in_by_out(family: str) -> None:
    """GPT-2's Conv1D stores (in, out); bitsandbytes' layers and everyone else's store (out, in)."""
    model = _model(CONFIGS[family])
    kinds = {type(model.get_submodule(name)).__name__ for name in resolve_targets(model, family, "all")}
    assert kinds == ({"Conv1D"} if family == "gpt2" else {"Linear"})
    method = MethodSection()
    assert lora_config(_base(model), method, ["x"]).fan_in_fan_out is is_conv1d_family(family) is (family == "gpt2")
    assert lora_config(_base(model, quantization="nf4"), method, ["x"]).fan_in_fan_out is False


def test_the_recipes_words_reach_peft_unchanged() -> None:
    method = MethodSection(rank=5, alpha=7.0, dropout=0.25, dora=True, rslora=True)
    config = lora_config(_base(_model(CONFIGS["gpt2"])), method, ["transformer.h.0.attn.c_attn"])
    assert (config.r, config.lora_alpha, config.lora_dropout) == (5, 7.0, 0.25)
    assert (config.use_dora, config.use_rslora, config.bias) == (True, True, "none")
    assert config.target_modules == {"transformer.h.0.attn.c_attn"}
    assert config.modules_to_save is None
