"""A recipe -> SFTConfig, every value that decides a result written out.

TRL's defaults differ from transformers' and move between minor releases (bf16 and gradient checkpointing are on in
trl 1.16); a test holds the whole SFTConfig against a golden file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trl import SFTConfig

from peft_instruct.model.device import Compute
from peft_instruct.recipe.schema import Recipe
from peft_instruct.recipe.training_section import TrainingSection

OPTIMIZERS = {
    "adamw": "adamw_torch_fused",
    "adamw_8bit": "adamw_8bit",
    "adafactor": "adafactor",
    "sgd": "sgd",
    "muon": "adamw_torch_fused",  # for the part that is not Muon's; see CompletionTrainer.create_optimizer
}


ROWS_AS_THEY_COME = {
    "dataset_kwargs": {"skip_prepare_dataset": True},
    "remove_unused_columns": False,
    "max_length": None,
    "packing": False,
    "padding_free": False,
    "pad_to_multiple_of": None,
    "completion_only_loss": True,
    "assistant_only_loss": False,
}
"""TRL neither tokenises nor cuts nor packs: the rows come with their ids and labels."""


def sft_arguments(recipe: Recipe, compute: Compute, checkpoints: Path, *, has_validation: bool) -> SFTConfig:
    """The SFTConfig of a recipe on a device.

    Args:
        checkpoints: where the Trainer writes its checkpoints.
        has_validation: without validation rows nothing is evaluated, whatever the cadence.
    """
    training = recipe.training
    return SFTConfig(
        output_dir=str(checkpoints),
        **_learning(training),
        **_arithmetic(training, compute),
        **_order(training, compute),
        **ROWS_AS_THEY_COME,
        **_logging(training),
        **_evaluation_and_saves(training, has_validation),
        push_to_hub=False,
        trust_remote_code=False,
    )


def _learning(training: TrainingSection) -> dict[str, Any]:
    """What is learned, and how fast."""
    return {
        "num_train_epochs": training.epochs,
        "max_steps": training.max_steps if training.max_steps is not None else -1,
        "per_device_train_batch_size": training.batch_size,
        "gradient_accumulation_steps": training.accumulation,
        "average_tokens_across_devices": True,
        "learning_rate": training.learning_rate,
        "lr_scheduler_type": "constant_with_warmup" if training.schedule == "constant" else training.schedule,
        "lr_scheduler_kwargs": None,
        "warmup_steps": training.warmup,
        "optim": OPTIMIZERS[training.optimizer],
        "weight_decay": training.weight_decay,
        "adam_beta1": training.adam_beta1,
        "adam_beta2": training.adam_beta2,
        "adam_epsilon": training.adam_epsilon,
        "max_grad_norm": training.max_gradient_norm,
        "label_smoothing_factor": 0.0,
        "neftune_noise_alpha": training.neftune_alpha,
        "loss_type": "nll",
    }


def _arithmetic(training: TrainingSection, compute: Compute) -> dict[str, Any]:
    # `auto` begins without and is switched on by GuardedTrainer.
    recomputes = training.gradient_checkpointing is True
    return {
        "bf16": compute.precision == "bf16",
        "fp16": compute.precision == "fp16",
        "bf16_full_eval": False,
        "fp16_full_eval": False,
        "tf32": None,
        "use_cpu": compute.device == "cpu",
        "gradient_checkpointing": recomputes,
        "gradient_checkpointing_kwargs": {"use_reentrant": False} if recomputes else None,
        "torch_compile": False,
        "use_liger_kernel": False,
        "use_cache": False,
        "auto_find_batch_size": False,
    }


def _order(training: TrainingSection, compute: Compute) -> dict[str, Any]:
    """In which order rows come, and how they are fetched."""
    return {
        "seed": training.seed,
        "data_seed": training.seed,
        "full_determinism": False,
        "train_sampling_strategy": "random",
        "dataloader_drop_last": False,
        "dataloader_num_workers": 0,
        "dataloader_pin_memory": compute.device == "cuda",
        "shuffle_dataset": False,
    }


def _logging(training: TrainingSection) -> dict[str, Any]:
    return {
        "logging_strategy": "steps",
        "logging_steps": training.log_every,
        "logging_first_step": True,
        "logging_nan_inf_filter": False,
        "disable_tqdm": True,
        "report_to": "none",
    }


def _evaluation_and_saves(training: TrainingSection, has_validation: bool) -> dict[str, Any]:
    """The best weights are found among the checkpoints, so each evaluation needs one.

    When else a checkpoint is written, and which go, is decided in keeping.py and checkpoints.py.
    """
    keeps_best = has_validation and (training.keep_best or training.early_stopping is not None)
    evaluate_every = training.evaluate_every if has_validation else "never"
    return {
        "eval_strategy": _strategy(evaluate_every),
        "eval_steps": evaluate_every if isinstance(evaluate_every, int) else None,
        "eval_on_start": False,
        "per_device_eval_batch_size": training.batch_size,
        "save_strategy": _strategy(evaluate_every) if keeps_best else "no",
        "save_steps": evaluate_every if keeps_best and isinstance(evaluate_every, int) else 500,
        "save_total_limit": None,
        "save_only_model": False,
        "load_best_model_at_end": keeps_best,
        "metric_for_best_model": "eval_loss" if keeps_best else None,
        "greater_is_better": False if keeps_best else None,
        "enable_jit_checkpoint": False,
    }


def _strategy(every: int | str) -> str:
    return {"never": "no", "epoch": "epoch"}.get(str(every), "steps")
