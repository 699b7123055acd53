"""When a checkpoint is written: the recipe's cadence, the end of training, and a signal."""

from __future__ import annotations

import time
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from peft_instruct.training.resumable import ResumableTrainer
from peft_instruct.training.saving import Saving

MINUTES = "min"


class Checkpoints(TrainerCallback):
    """Decides on each step whether the Trainer saves; comes after transformers' own callbacks.

    A save on the last step of an epoch waits for the evaluation and the samples that the epoch ends with: a run that
    goes on from it begins the next epoch, and would leave them out.
    """

    def __init__(self, trainer: ResumableTrainer, saving: Saving) -> None:
        self.trainer, self.saving = trainer, saving
        self.is_due = False
        self.saved_step = self.ended_step = -1
        self.saved_at = time.monotonic()

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.saved_at = time.monotonic()
        self.saved_step = state.global_step
        self.trainer.restore_window()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        is_last = control.should_training_stop
        self.is_due |= control.should_save or self._cadence(state) or self.saving.stop_requested()
        self.is_due |= is_last and self.saving.every != "never"
        control.should_save = self.is_due and not self._ends_epoch(state, control)

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.ended_step = state.global_step
        wanted = self.is_due or control.should_save or self.saving.every == "epoch" or self.saving.stop_requested()
        control.should_save = wanted and state.global_step != self.saved_step

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """A signal while the loss was measured; the Trainer saves after an evaluation."""
        waits = self._ends_epoch(state, control) and self.ended_step != state.global_step
        control.should_save |= self.saving.stop_requested() and not waits and state.global_step != self.saved_step

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self.is_due = False
        self.saved_step = state.global_step
        self.saved_at = time.monotonic()
        if self.saving.stop_requested():
            self.saving.on_stopped(state.global_step)

    def _ends_epoch(self, state: TrainerState, control: TrainerControl) -> bool:
        return control.should_training_stop or float(state.epoch or 0).is_integer()

    def _cadence(self, state: TrainerState) -> bool:
        every = self.saving.every
        if isinstance(every, int):
            return state.global_step % every == 0
        if every.endswith(MINUTES):
            return time.monotonic() - self.saved_at >= 60 * int(every.removesuffix(MINUTES))
        return False
