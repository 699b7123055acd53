"""A model whose logits are more than a product with its hidden states is refused: training would leave the rest out."""

from __future__ import annotations

from typing import Any

import pytest
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    Gemma2Config,
    ModernBertDecoderConfig,
    OPTConfig,
    PreTrainedConfig,
    RecurrentGemmaConfig,
)

from peft_instruct.errors import ModelError
from peft_instruct.model.head import check_head

SMALL: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 64}


@pytest.mark.parametrize(
    "config",
    [
        OPTConfig(**SMALL, ffn_dim=32, word_embed_proj_dim=16),
        BloomConfig(hidden_size=32, n_layer=1, n_head=2, vocab_size=64),
        # Its cap is TRL's matter.
        Gemma2Config(**SMALL, intermediate_size=32, num_key_value_heads=1, head_dim=16, pad_token_id=0),
    ],
    ids=["opt", "bloom", "gemma2"],
)
@pytest.mark.parametrize("trains", [True, False])
def test_an_output_embedding_on_the_last_hidden_states_is_the_usual_head(
    config: PreTrainedConfig, trains: bool
) -> None:
    model = AutoModelForCausalLM.from_config(config).train(trains)
    check_head(model, config.model_type)
    assert model.training is trains


@pytest.mark.parametrize(
    "config",
    [
        ModernBertDecoderConfig(**SMALL, intermediate_size=32, pad_token_id=0),
        RecurrentGemmaConfig(**SMALL, intermediate_size=64, lru_width=32, logits_soft_cap=0.5, pad_token_id=0),
    ],
    ids=["a layer before it", "a cap after it"],
)
def test_a_head_that_is_more_than_that_is_refused(config: PreTrainedConfig) -> None:
    model = AutoModelForCausalLM.from_config(config)
    with pytest.raises(ModelError, match=f"a {config.model_type} model computes its logits otherwise"):
        check_head(model, config.model_type)
