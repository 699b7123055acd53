"""The whole SFTConfig against a golden file, so that a library's changed default is seen and not suffered."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from peft_instruct.model.device import Compute
from peft_instruct.recipe import load_recipe
from peft_instruct.recipe.schema import Recipe
from peft_instruct.training.arguments import sft_arguments

GOLDEN = Path(__file__).parent.parent / "golden" / "sft_config.json"
CPU = Compute("cpu", "fp32", "a processor")
# What depends on the machine or the moment, not on a default.
NOT_COMPARED = {"output_dir", "run_name", "local_rank", "logging_dir", "project"}


def effective(recipe: Recipe, has_validation: bool = True) -> dict[str, Any]:
    arguments = sft_arguments(recipe, CPU, Path("checkpoints"), has_validation=has_validation)
    values = {key: value for key, value in arguments.to_dict().items() if key not in NOT_COMPARED}
    return dict(json.loads(json.dumps(values, sort_keys=True, default=str)))


def test_the_whole_sft_config_is_the_golden_one() -> None:
    """`python tests/training/test_arguments.py` writes it anew; look at the diff before keeping it."""
    assert effective(load_recipe("gpt2_lora")) == json.loads(GOLDEN.read_text(encoding="utf-8"))


def test_every_training_key_reaches_the_sft_config() -> None:
    """Each key changed alone changes the arguments (the device and when checkpoints are written are not theirs)."""
    plain = effective(load_recipe("gpt2_lora"))
    changes = {
        "epochs": "2", "max_steps": "7", "batch_size": "3", "accumulation": "5", "learning_rate": "3e-3",
        "schedule": "linear", "warmup": "11", "optimizer": "sgd", "weight_decay": "0.3", "adam_beta1": "0.5",
        "adam_beta2": "0.5", "adam_epsilon": "1e-3", "max_gradient_norm": "2", "neftune_alpha": "5",
        "gradient_checkpointing": "true", "seed": "9", "log_every": "3", "evaluate_every": "never",
        "keep_best": "true",
    }  # fmt: skip
    for key, value in changes.items():
        assert effective(load_recipe("gpt2_lora", [f"training.{key}={value}"])) != plain, key
    untested = set(type(load_recipe("gpt2_lora").training).model_fields) - set(changes)
    # `batch_tokens` reaches the sampler, `micro_batch` the guard.
    assert untested == {
        "precision", "device", "early_stopping", "ledger", "micro_batch", "save_every", "batch_tokens",
    }  # fmt: skip


def test_best_weights_need_a_checkpoint_at_each_evaluation() -> None:
    values = effective(load_recipe("gpt2_lora", ["training.early_stopping={patience: 2}", "training.save_every=never"]))
    assert values["load_best_model_at_end"]
    assert (values["save_strategy"], values["save_steps"]) == (values["eval_strategy"], values["eval_steps"])


def test_without_validation_rows_nothing_is_evaluated() -> None:
    values = effective(load_recipe("gpt2_lora"), has_validation=False)
    assert values["eval_strategy"] == "no"
    assert not values["load_best_model_at_end"]


if __name__ == "__main__":
    GOLDEN.write_text(
        json.dumps(effective(load_recipe("gpt2_lora")), indent=1, sort_keys=True) + "\n", encoding="utf-8"
    )
