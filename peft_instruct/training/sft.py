"""The trainer of a run, put together: arguments, rows, collator and callbacks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from transformers import EarlyStoppingCallback, PrinterCallback, TrainerCallback

from peft_instruct.data.table import TokenTable
from peft_instruct.data.types import Tokens
from peft_instruct.model.adapters import Trainable
from peft_instruct.model.base import Base
from peft_instruct.model.dropout import has_dropout
from peft_instruct.recipe.schema import Recipe
from peft_instruct.training.arguments import sft_arguments
from peft_instruct.training.checkpoints import CHECKPOINTS
from peft_instruct.training.collator import PADDED_TO, CompletionOnlyCollator, as_dataset
from peft_instruct.training.keeping import Checkpoints
from peft_instruct.training.saving import Saving
from peft_instruct.training.trainer import CompletionTrainer


def build_trainer(
    recipe: Recipe,
    base: Base,
    trainable: Trainable,
    train: Sequence[Tokens],
    validation: Sequence[Tokens],
    *,
    folder: Path,
    callbacks: Sequence[TrainerCallback] = (),
    say: Callable[[str], None] = lambda line: None,
    saving: Saving | None = None,
) -> CompletionTrainer:
    """A trainer that is ready to `.learn()`; its checkpoints go to `folder/checkpoints`.

    Args:
        saving: when to save and what to go on from; by default from the start, and as the recipe says.
    """
    arguments = sft_arguments(recipe, base.compute, folder / CHECKPOINTS, has_validation=bool(validation))
    if arguments.n_gpu > 1:
        # The Trainer would copy the model to all of them (DataParallel), which TRL refuses; everything is on the first.
        say(f"{arguments.n_gpu} GPUs are here and one is used, the first; CUDA_VISIBLE_DEVICES names another")
        arguments._n_gpu = 1
    extra: list[TrainerCallback] = list(callbacks)
    stopping = recipe.training.early_stopping
    if stopping is not None and validation:
        extra.append(EarlyStoppingCallback(stopping.patience, stopping.min_delta))
    trainer = CompletionTrainer(
        model=trainable.model,
        args=arguments,
        train_dataset=as_dataset(train),
        # The rows that `evaluate` reads are below; the Trainer only asks whether there are any.
        eval_dataset=as_dataset(validation[:1]) if validation else None,
        processing_class=base.tokenizer,
        data_collator=CompletionOnlyCollator(
            pad_token_id=base.tokenizer.pad_token_id, pad_to_multiple_of=PADDED_TO, positions=base.positions
        ),
        callbacks=extra,
        speed=recipe.speed,
        batch_tokens=recipe.training.batch_tokens,
        train_lengths=TokenTable.of(train).lengths.tolist(),
    )
    trainer.train_rows, trainer.validation_rows = train, validation
    trainer.splits_batches = recipe.training.micro_batch == "auto"
    # On MPS the recomputed activations would have another dropout (torch 2.13, utils/checkpoint.py:1638).
    keeps_dropout = base.compute.device != "mps" or not has_dropout(trainable.model)
    trainer.may_checkpoint = recipe.training.gradient_checkpointing == "auto" and keeps_dropout
    trainer.say = say
    trainer.uses_muon = recipe.training.optimizer == "muon"
    trainer.remove_callback(PrinterCallback)
    trainer.saving = saving or Saving(every=recipe.training.save_every)
    trainer.add_callback(Checkpoints(trainer, trainer.saving))
    return trainer
