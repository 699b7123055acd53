"""SFTTrainer whose checkpoints hold no pickle, are declared whole, and continue a run bit for bit.

transformers 5.23 writes a checkpoint in place, with pickles and without a sign of being whole, and forgets on resume
what stood in an unfinished logging window. The state below is all that the continued run needs; the rest is a
function of (seed, epoch, step): the order of rows, and the learning rate.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from transformers import EarlyStoppingCallback, TrainerState
from transformers.trainer_callback import ExportableState
from trl import SFTTrainer

from peft_instruct.model.adapters import has_adapter, read_onto
from peft_instruct.training.checkpoints import (
    Checkpoint,
    CheckpointManifest,
    checkpoint_folder,
    commit,
    rotate,
    verify,
    way_back,
)
from peft_instruct.training.contents import METRICS, STATE, TRAINER_STATE, loading
from peft_instruct.training.moments import check_moments, check_none_missing
from peft_instruct.training.random_state import random_state, set_random_state
from peft_instruct.training.saving import RunIdentity, Saving
from peft_instruct.training.space import is_refusal, refused
from peft_instruct.training.state_file import read_state, write_state

Say = Callable[[str], None]


@dataclass(frozen=True)
class Learned:
    """What the loop came to; `mean_loss` is the mean over all steps, as the Trainer gives it."""

    num_steps: int
    seconds: float
    mean_loss: float


class ResumableTrainer(SFTTrainer):
    saving = Saving()
    say: Say = staticmethod(lambda line: None)
    began = 0.0

    def learn(self) -> Learned:
        """Train to the end, from the start or from a checkpoint; after the last one no step is left."""
        self.began = time.monotonic()
        resumed = self.saving.resumed
        if resumed is not None and self._is_over(resumed.manifest):
            mean_loss = self._take_over(resumed)
        else:
            mean_loss = float(self.train(resume_from_checkpoint=str(resumed.folder) if resumed else None).training_loss)
        self._tell_end()
        return Learned(self.state.global_step, self.seconds(), mean_loss)

    def _tell_end(self) -> None:
        """What the steps do not show: why there are no more of them, and whose weights are handed over."""
        state = self.state
        if state.global_step < state.max_steps:
            steps = f"{state.global_step:,} of {state.max_steps:,} steps"
            ended = [each for each in self.callback_handler.callbacks if isinstance(each, EarlyStoppingCallback)]
            why = "".join(
                f". The validation loss was not lower by more than {each.early_stopping_threshold:g} "
                f"{each.early_stopping_patience} times in a row"
                for each in ended
            )
            self.say(f"early stopping: {steps}{why}")
        if self.args.load_best_model_at_end and state.best_global_step not in (None, state.global_step):
            self.say(f"the weights are those of step {state.best_global_step:,}, of the lowest validation loss")

    def _is_over(self, then: CheckpointManifest) -> bool:
        """Whether no step is left after a checkpoint: the recipe may give more or fewer of them than it did then.

        Before its last step a run is over where it stopped early, and still has as many steps.
        """
        max_steps = self.set_initial_training_values(self.args, self.get_train_dataloader())[-1]
        return then.step >= max_steps or (then.is_last and then.max_steps == max_steps)

    def seconds(self) -> float:
        """Seconds of training, those before an interruption included."""
        resumed = self.saving.resumed
        return time.monotonic() - self.began + (resumed.manifest.seconds if resumed else 0.0)

    def _take_over(self, last: Checkpoint) -> float:
        """The end of a run whose training was over: transformers would do one more step (5.23, `_run_epoch`)."""
        self._load_from_checkpoint(str(last.folder))
        self.state = TrainerState.load_from_json(str(last.folder / TRAINER_STATE))
        self._find_best()
        if self.args.load_best_model_at_end and self.state.best_model_checkpoint:
            self._load_best_model()
        with loading(last.folder):
            window = read_state(last.folder / STATE)["window"]
            return float((window["total_loss"] + window["loss"].item()) / max(self.state.global_step, 1))

    # ---- writing

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """The Trainer's own save into checkpoint-N, then the manifest, then the rotation.

        Raises:
            PeftInstructError: the disk refused; the folder is removed then, and the checkpoints before it are as they
                were.
        """
        checkpoints = Path(self.args.output_dir)
        folder = checkpoint_folder(checkpoints, self.state.global_step)
        try:
            super()._save_checkpoint(model, trial)
            if self.args.should_save:
                if (checkpoints.parent / METRICS).is_file():
                    shutil.copyfile(checkpoints.parent / METRICS, folder / METRICS)
                commit(folder, self._manifest(self.saving.identity))
                rotate(checkpoints, self.say)
                self.saving.on_saved()
        except (OSError, SafetensorError) as error:
            if not is_refusal(error):
                raise
            shutil.rmtree(folder, ignore_errors=True)
            raise refused(error, folder, way_back(checkpoints), self.saving.resume_hint()) from error

    def _way_back(self) -> str:
        return way_back(Path(self.args.output_dir))

    def own_state(self) -> dict[str, Any]:
        """What a subclass needs to go on as it was."""
        return {}

    def restore_own_state(self, state: dict[str, Any]) -> None:
        """The inverse of `own_state`."""

    def _manifest(self, identity: RunIdentity) -> CheckpointManifest:
        return CheckpointManifest(
            step=self.state.global_step,
            max_steps=self.state.max_steps,
            is_last=self.control.should_training_stop,
            best_step=self.state.best_global_step if self.args.load_best_model_at_end else None,
            seconds=round(self.seconds(), 3),
            recipe=identity.recipe,
            base_fingerprint=identity.base_fingerprint,
            data_fingerprint=identity.data_fingerprint,
            environment=identity.environment,
            world_size=self.args.world_size,
            files={},
        )

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        """The weights alone: the tokenizer does not change, and `training_args.bin` is a pickle."""
        if output_dir is None or not self.args.should_save:
            return
        Path(output_dir).mkdir(parents=True, exist_ok=True)
        # Of an adapter explicit: "auto" asks the hub whether the vocabulary was resized (peft 0.21,
        # utils/save_and_load.py:291). Of a model by the names that it has, which the Trainer reads it back by: a base's
        # file may have others (Pythia's embed_out).
        option = "save_embedding_layers" if has_adapter(self.model) else "save_original_format"
        options: dict[str, Any] = {option: False}
        self.model.save_pretrained(output_dir, state_dict=state_dict, **options)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        """In `_save_rng_state`, which the Trainer calls last."""

    def _save_scaler(self, output_dir: str) -> None:
        """In `_save_rng_state`."""

    def _save_rng_state(self, output_dir: str) -> None:
        """Everything besides the weights: optimizer, schedule, loss scale, random generators, logging window."""
        scaler = getattr(self.accelerator, "scaler", None)
        state = {
            "optimizer": self.optimizer.state_dict(),
            "schedule_step": self.lr_scheduler.last_epoch,
            "scaler": scaler.state_dict() if scaler else None,
            "random": random_state(),
            "own": self.own_state(),
            "window": {
                "loss": self._tr_loss.detach().clone(),
                "total_loss": self._total_loss_scalar,
                "logged_step": self._globalstep_last_logged,
                "metrics": {name: list(values) for name, values in self._metrics["train"].items()},
                "num_tokens": self._total_train_tokens,
            },
        }
        write_state(state, Path(output_dir) / STATE)

    # ---- going on

    def _init_training_state(self, max_steps: int, *args: Any) -> tuple[int, int]:
        reached: tuple[int, int] = super()._init_training_state(max_steps, *args)
        # What the checkpoint says of the cadences is of the run before; this one may log or evaluate otherwise.
        self.state.compute_steps(self.args, max_steps)
        of_other_rows = self._is_of_other_rows()
        if of_other_rows:
            self.state.best_metric = self.state.best_global_step = self.state.best_model_checkpoint = None
        self._find_best()
        for callback in [*self.callback_handler.callbacks, self.control]:
            if isinstance(callback, ExportableState):
                # Looked up at the next save (transformers 5.23), also where the run before did not stop early.
                self.state.stateful_callbacks.setdefault(type(callback).__name__, callback.state())
            if isinstance(callback, EarlyStoppingCallback):
                stored = self.state.stateful_callbacks.get("EarlyStoppingCallback", {})
                counter = stored.get("attributes", {}).get("early_stopping_patience_counter", 0)
                callback.early_stopping_patience_counter = 0 if of_other_rows else counter
        return reached

    def _is_of_other_rows(self) -> bool:
        """Whether the best validation loss so far may be of rows that are no longer those of the run."""
        resumed = self.saving.resumed
        if resumed is None or resumed.manifest.data_fingerprint == self.saving.identity.data_fingerprint:
            return False
        if self.args.load_best_model_at_end:
            self.say("the data has changed: the best weights and early stopping are judged from here on alone")
        return True

    def _find_best(self) -> None:
        """Where the best checkpoint is now: the folder may have moved since its path was written."""
        best = self.state.best_global_step
        if best:
            self.state.best_model_checkpoint = str(checkpoint_folder(Path(self.args.output_dir), best))

    def _load_best_model(self) -> None:
        """Raises AdapterError where transformers would go on with the last weights (the best ones are gone)."""
        best = verify(Path(self.state.best_model_checkpoint)).folder
        with loading(best), read_onto(self.args.device, self.model):
            super()._load_best_model()

    def _issue_warnings_after_load(self, load_result: Any) -> None:
        """Raises KeyError where transformers would log that a weight stays what it was before."""
        model: Any = self.model
        lost = set(load_result.missing_keys) - set(model.all_tied_weights_keys)
        lost |= set(load_result.unexpected_keys)
        if lost:
            raise KeyError(f"it and the model differ in {', '.join(sorted(lost)[:3])}")

    def _load_from_checkpoint(self, checkpoint: str, model: Any = None) -> None:
        with loading(Path(checkpoint)), read_onto(self.args.device, self.model):
            super()._load_from_checkpoint(checkpoint, model)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        """The moments from the checkpoint; rates and decays from the recipe, so that a change of it takes effect.

        transformers restores the old rates too, and the change is ignored in silence.
        """
        if checkpoint is None:
            return
        of_recipe = [{k: v for k, v in group.items() if k != "params"} for group in self.optimizer.param_groups]
        with loading(Path(checkpoint)):
            state = read_state(Path(checkpoint) / STATE)
            self.optimizer.load_state_dict(state["optimizer"])
            check_moments(self.optimizer)
            for group, values in zip(self.optimizer.param_groups, of_recipe, strict=True):
                group.update(values)
            if state["scaler"] and self.accelerator.scaler is not None:  # none where fp16 was given up
                self.accelerator.scaler.load_state_dict(state["scaler"])
            self._move_schedule(int(state["schedule_step"]))

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        """Called once per optimizer step and before it, with the gradients of the whole step."""
        resumed = self.saving.resumed
        if resumed is not None and self.state.global_step == resumed.step:
            with loading(resumed.folder):
                check_none_missing(self.optimizer, may_be_unused=self.args.fp16)
        return super()._get_grad_norm(model, grad_norm)

    def _move_schedule(self, step: int) -> None:
        """The schedule at a step: every one that a recipe can name is a function of it (LambdaLR)."""
        schedule = self.lr_scheduler
        rates = [base * rate(step) for base, rate in zip(schedule.base_lrs, schedule.lr_lambdas, strict=True)]
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
        schedule.last_epoch = step
        schedule._step_count = step + 1
        schedule._last_lr = rates

    def _load_scaler(self, checkpoint: str | None) -> None:
        """In `_load_optimizer_and_scheduler`."""

    def _load_rng_state(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            with loading(Path(checkpoint)):
                set_random_state(read_state(Path(checkpoint) / STATE)["random"])

    def restore_window(self) -> None:
        """The unfinished logging window, once the Trainer has emptied it: logs then equal an uninterrupted run's."""
        resumed = self.saving.resumed
        if resumed is None:
            return
        with loading(resumed.folder):
            state = read_state(resumed.folder / STATE)
            self.restore_own_state(state["own"])
            window = state["window"]
            self._tr_loss = window["loss"].reshape(()).to(self.args.device)
            self._total_loss_scalar = float(window["total_loss"])
            self._globalstep_last_logged = int(window["logged_step"])
            self._initial_global_step = 0
            metrics = window["metrics"].items()
            self._metrics["train"].update({name: [float(value) for value in values] for name, values in metrics})
            self._total_train_tokens = int(window["num_tokens"])
