"""SFTTrainer on its guard: no number that is not finite reaches a weight or the disk, and a batch that does not fit
into memory is computed in smaller passes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from accelerate.utils.memory import clear_device_cache

from peft_instruct.data.types import Tokens
from peft_instruct.errors import PeftInstructError, first_line, is_out_of_memory
from peft_instruct.model.adapters import has_adapter, tensors_not_finite
from peft_instruct.model.scoring import score
from peft_instruct.training.collator import PADDED_TO
from peft_instruct.training.pass_memory import pass_memory
from peft_instruct.training.random_state import random_state, set_random_state
from peft_instruct.training.resumable import ResumableTrainer

MOST_ROWS_NAMED = 5
MOST_ROWS_SCORED = 512
"""Rows looked at one by one for the one that gives NaN; each costs a forward pass."""
MOST_SKIPPED_STEPS = 25
"""fp16's loss scale halves at every overflow; from 65536 down this often it is below 1/256, and no scale will help."""

Batch = dict[str, Any]


@dataclass
class OpenStep:
    """An optimizer step whose gradients are being accumulated, with what it takes to begin it anew.

    Attributes:
        batches: the batches of the step so far, in their order.
        random_state: of dropout, as it was before the first of them.
        counted: TRL's running figures before the first of them.
    """

    batches: list[Batch] = field(default_factory=list)
    random_state: dict[str, Any] = field(default_factory=dict)
    counted: tuple[int, dict[str, list[float]]] = (0, {})


class GuardedTrainer(ResumableTrainer):
    """Checks every loss and every gradient norm before the optimizer's step, and splits batches where it must.

    Attributes:
        train_rows: what is trained on, to name the rows of a bad step.
        splits_batches: whether a batch that does not fit is computed in parts (`training.micro_batch`).
        may_checkpoint: whether activations are recomputed where parts do not fit either
            (`training.gradient_checkpointing: auto`).
        batch_tokens: as in the recipe; without it a batch is `per_device_train_batch_size` rows.
        rows_at_once: the most rows of one forward pass.
        tokens_at_once: the most positions of one, where a batch is so many tokens: its rows are long or short.
    """

    train_rows: Sequence[Tokens] = ()
    splits_batches = True
    may_checkpoint = False
    batch_tokens: int | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.rows_at_once, self.tokens_at_once = self._most_rows(), self.batch_tokens
        self._open = OpenStep()
        self._num_skipped = 0

    def training_step(self, model: Any, inputs: Batch, num_items_in_batch: Any = None) -> torch.Tensor:
        """Forward and backward of one batch, in as many passes as memory asks for.

        The loss is a sum over tokens divided by the tokens of the whole step, so the passes add up to the batch: a run
        that was split equals one that began with the smaller passes (to rounding, and with the same dropout), and so
        does one whose activations are recomputed.

        Raises:
            PeftInstructError: the loss is not finite, or memory does not hold what is left to make smaller.
        """
        if not self._open.batches:
            counted = {name: list(values) for name, values in self._metrics["train"].items()}
            self._open = OpenStep([], random_state(), (self._total_train_tokens, counted))
        self._open.batches.append(inputs)
        todo = [inputs]
        while True:
            try:
                losses = [self._in_passes(model, batch, num_items_in_batch) for batch in todo]
                return losses[-1]
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                said = first_line(error)
            # Outside of the block that caught it: the error holds the frames, and they hold the activations.
            self._ask_for_less(said)
            # What the failed pass and those before it left in the gradients is begun anew, whole.
            todo = self._open.batches

    def _in_passes(self, model: Any, batch: Batch, num_items_in_batch: Any) -> torch.Tensor:
        losses, parts = [], list(passes(batch, self._rows_of_pass(batch)))
        # TRL adds this part of a loss of experts once per call, whatever it holds (trl 1.16, sft_trainer.py:1620).
        of_experts: float = self.router_aux_loss_coef  # type: ignore[has-type]
        self.router_aux_loss_coef = of_experts / len(parts)
        try:
            for part in parts:
                losses.append(super().training_step(model, part, num_items_in_batch))
                if not torch.isfinite(losses[-1]):
                    raise self._diverged(f"the loss is {losses[-1].item()}", [part])
        finally:
            self.router_aux_loss_coef = of_experts
        return torch.stack(losses).sum()

    def _ask_for_less(self, said: str) -> None:
        """Half the rows (or tokens) per pass; after one row recomputed activations, from whole batches on again."""
        shapes = [(self._rows_of_pass(batch), batch["input_ids"].shape[1]) for batch in self._open.batches]
        rows = max(rows for rows, _ in shapes)
        longest = max(batch["input_ids"].shape[1] for batch in self._open.batches)
        is_checkpointing = self.is_recomputing()
        needs = pass_memory(self.model, self._open.batches, rows, is_checkpointing, self._dtype())
        at = f"out of memory at step {self.state.global_step + 1} with passes of {rows} rows"
        # Several processes must do the same, and the others do not know of it.
        is_alone = self.args.world_size == 1
        if is_alone and self.splits_batches and rows > 1:
            if self.tokens_at_once is None:
                self.rows_at_once = math.ceil(rows / 2)
                mended = f"passes of {self.rows_at_once} rows"
            else:
                self.tokens_at_once = max(rows * width for rows, width in shapes if rows > 1) // 2
                mended = f"passes of {self.tokens_at_once} tokens"
        elif is_alone and self.may_checkpoint and not is_checkpointing:
            self._checkpoint_activations()
            self.rows_at_once, self.tokens_at_once = self._most_rows(), self.batch_tokens
            mended = "activations are recomputed in backward (gradient checkpointing)"
        else:
            size = "training.batch_tokens" if self.batch_tokens else "training.batch_size"
            less = "data.max_length" if rows == 1 else f"{size} and raise accumulation"
            checkpointing = "" if is_checkpointing else ", or set training.gradient_checkpointing: true"
            raise PeftInstructError(
                f"training: {at} of up to {longest} tokens ({said}). {needs}. Lower {less}{checkpointing}."
            )
        self.say(
            f"{at} ({said}); {needs}. From now on {mended}; the batch of {self.args.gradient_accumulation_steps} x "
            f"{f'{self.batch_tokens} tokens' if self.batch_tokens else f'{self._most_rows()} rows'} and the order of "
            "rows stay as they are"
        )
        self._begin_step_anew()

    def _rows_of_pass(self, batch: Batch) -> int:
        """How many rows of a batch a pass has at most."""
        num_rows, width = batch["input_ids"].shape
        by_tokens = num_rows if self.tokens_at_once is None else max(1, self.tokens_at_once // width)
        return min(num_rows, self.rows_at_once, by_tokens)

    def _most_rows(self) -> int:
        return len(self.train_dataset) if self.batch_tokens else self.args.per_device_train_batch_size

    def _dtype(self) -> torch.dtype:
        return torch.bfloat16 if self.args.bf16 else torch.float16 if self.args.fp16 else torch.float32

    def _begin_step_anew(self) -> None:
        self.model.zero_grad(set_to_none=True)
        set_random_state(self._open.random_state)
        self._total_train_tokens = self._open.counted[0]
        self._metrics["train"].clear()
        self._metrics["train"].update({name: list(values) for name, values in self._open.counted[1].items()})
        clear_device_cache(garbage_collection=True)

    def _base_model(self) -> Any:
        model: Any = self.model
        return model.get_base_model() if has_adapter(model) else model

    def is_recomputing(self) -> bool:
        """Whether activations are recomputed in backward."""
        return bool(self._base_model().is_gradient_checkpointing)

    def _checkpoint_activations(self) -> None:
        self._base_model().activation_checkpointing_enable({"use_reentrant": False})

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        """The norm, once per optimizer step and before it.

        Raises:
            PeftInstructError: not finite. With fp16 the scaler skips such a step and halves its scale; only many of
                them in a row end the run.
        """
        norm = super()._get_grad_norm(model, grad_norm)
        batches, self._open = self._open.batches, OpenStep()
        if math.isfinite(float(norm)):
            self._num_skipped = 0
            return norm
        self._num_skipped += 1
        if not self.args.fp16 or self._num_skipped > MOST_SKIPPED_STEPS:
            raise self._diverged(f"the gradient norm is {float(norm)}", batches)
        return norm

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        """Raises PeftInstructError where a weight or a moment of the optimizer is not finite; nothing is written."""
        bad = [*tensors_not_finite(self.model), *self._moments_not_finite()]
        if bad:
            raise PeftInstructError(
                f"training: {len(bad)} tensors are not finite after step {self.state.global_step} (first {bad[0]}), so "
                f"they are not saved. {self._way_back()} Lower training.learning_rate, or lengthen training.warmup."
            )
        super()._save(output_dir, state_dict)

    def own_state(self) -> dict[str, Any]:
        """A run that goes on splits its batches as it did before, so that it rounds as it did before."""
        # Of a run that was not split it is no bound: it may go on with larger batches.
        rows = self.rows_at_once if self.rows_at_once < self._most_rows() else None
        tokens = self.tokens_at_once if self.tokens_at_once != self.batch_tokens else None
        return {"rows_at_once": rows, "tokens_at_once": tokens, "is_checkpointing": self.is_recomputing()}

    def restore_own_state(self, state: dict[str, Any]) -> None:
        if state["rows_at_once"] is not None:
            self.rows_at_once = min(self.rows_at_once, max(1, int(state["rows_at_once"])))
        if self.tokens_at_once is not None and state.get("tokens_at_once") is not None:
            self.tokens_at_once = min(self.tokens_at_once, max(1, int(state["tokens_at_once"])))
        if self.may_checkpoint and state.get("is_checkpointing"):
            self._checkpoint_activations()

    def _moments_not_finite(self) -> list[str]:
        state = getattr(self.optimizer, "state", {})
        return [
            f"optimizer {name}"
            for moments in state.values()
            for name, value in moments.items()
            if torch.is_tensor(value) and value.is_floating_point() and not torch.isfinite(value).all()
        ]

    def _diverged(self, what: str, batches: Sequence[Batch]) -> PeftInstructError:
        rate = self._get_learning_rate()
        return PeftInstructError(
            f"training: {what} at step {self.state.global_step + 1}: the run has diverged (learning rate {rate:.1e}); "
            f"stopped before the optimizer's step. Rows: {self._named(batches)}. {self._way_back()} "
            "Lower training.learning_rate, lengthen training.warmup, or look at these rows."
        )

    def _named(self, batches: Sequence[Batch]) -> str:
        """Origins of the rows of a step: of those that alone give no finite loss, else of all."""
        by_ids = {row.input_ids: row for row in self.train_rows}
        rows = [by_ids[ids] for batch in batches for ids in _row_ids(batch) if ids in by_ids]
        if not rows:
            return "not known by their ids"
        shown = self.rows_not_finite(rows) or rows
        more = f" and {len(shown) - MOST_ROWS_NAMED} more" if len(shown) > MOST_ROWS_NAMED else ""
        return ", ".join(row.origin for row in shown[:MOST_ROWS_NAMED]) + more

    def rows_not_finite(self, rows: Sequence[Tokens]) -> list[Tokens]:
        """Those of the first rows whose own loss is not finite."""
        pad_id, device = self.processing_class.pad_token_id, self.args.device
        with self.compute_loss_context_manager():
            alone = [(row, score(self.model, [row], pad_id=pad_id, device=device)) for row in rows[:MOST_ROWS_SCORED]]
        return [row for row, scores in alone if not math.isfinite(scores.nats)]


def passes(batch: Batch, rows_at_once: int) -> Iterator[Batch]:
    """A batch in parts of at most `rows_at_once` rows, each as wide as the collator would have made it."""
    num_rows = len(batch["input_ids"])
    if num_rows <= rows_at_once:
        yield dict(batch)
        return
    for start in range(0, num_rows, rows_at_once):
        part = {name: value[start : start + rows_at_once] for name, value in batch.items()}
        longest = int(part["attention_mask"].sum(1).max())
        width = longest + -longest % PADDED_TO
        yield {name: value[:, :width] for name, value in part.items()}


def _row_ids(batch: Batch) -> Iterator[tuple[int, ...]]:
    for ids, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True):
        yield tuple(ids[mask.bool()].tolist())
