"""SFTTrainer with a validation loss that does not depend on the batch size, and nothing written but checkpoints."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from accelerate.utils.memory import clear_device_cache
from torch.utils.data import DataLoader
from transformers import TrainerControl
from trl import SFTTrainer

from peft_instruct.data.types import Tokens
from peft_instruct.errors import PeftInstructError, is_out_of_memory
from peft_instruct.model.adapters import has_adapter
from peft_instruct.model.packed import may_pack_frozen
from peft_instruct.model.scoring import TokenScores, score
from peft_instruct.recipe.training_section import SpeedSection
from peft_instruct.training.collator import PADDED_TO
from peft_instruct.training.completion_head import score_learned_positions
from peft_instruct.training.guarded import MOST_ROWS_NAMED, GuardedTrainer
from peft_instruct.training.lora_product import fuse_lora, unfuse_lora
from peft_instruct.training.muon import MuonAndAdamW
from peft_instruct.training.sampler import LengthBucketSampler, TokenBudgetSampler


class CompletionTrainer(GuardedTrainer):
    """TRL's trainer; see `evaluate` for the one figure that is computed otherwise."""

    validation_rows: Sequence[Tokens] = ()
    uses_muon = False

    def __init__(
        self,
        *args: Any,
        speed: SpeedSection,
        train_lengths: Sequence[int],
        batch_tokens: int | None = None,
        **kwargs: Any,
    ) -> None:
        """`batch_tokens` as in the recipe: without it batches are of `per_device_train_batch_size` rows."""
        self.speed, self.train_lengths, self.batch_tokens = speed, train_lengths, batch_tokens
        super().__init__(*args, **kwargs)
        # transformers 5.24 tells by a class's name, and GPT-2's has another: of whole texts it would count the first
        # token of each row, which nothing predicts, and the loss and its gradient would be too small (trainer.py:543).
        self._loss_shifts_labels = True
        model: Any = self.model
        for weights in model.parameters():
            # TRL casts the adapter of a quantised base to bf16, where small updates vanish (sft_trainer.py:903); what
            # learns stays in fp32 here, and reads back from disk as it was.
            if weights.requires_grad:
                weights.data = weights.data.float()
        packs = speed.packed_weights and may_pack_frozen(model)
        packed_as = self._dtype() if packs else None
        score_learned_positions(model.get_base_model() if has_adapter(model) else model, speed, packed_as)
        if speed.lora_product:
            fuse_lora(model, packs)

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        if not self.speed.length_buckets:
            return super()._get_train_sampler(train_dataset)
        batch = self.args.per_device_train_batch_size * self.args.gradient_accumulation_steps
        return LengthBucketSampler(self.train_lengths, batch * self.args.world_size, seed=self.args.seed)

    def get_train_dataloader(self) -> Any:
        """Batches by tokens where they are asked for: the Trainer's own dataloader takes a sampler of rows alone."""
        if self.batch_tokens is None:
            return super().get_train_dataloader()
        batches = TokenBudgetSampler(
            self.train_lengths,
            self.batch_tokens,
            seed=self.args.seed,
            padded_to=PADDED_TO,
            batches_per_step=self.args.gradient_accumulation_steps,
            num_processes=self.args.world_size,
        )
        pins = self.args.dataloader_pin_memory
        return self.accelerator.prepare(
            DataLoader(self.train_dataset, batch_sampler=batches, collate_fn=self.data_collator, pin_memory=pins)
        )

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        if self.uses_muon and self.optimizer is None:  # type: ignore[has-type]
            self.optimizer = MuonAndAdamW(
                self.model if model is None else model,
                self.args.learning_rate,
                self.args.weight_decay,
                (self.args.adam_beta1, self.args.adam_beta2),
                self.args.adam_epsilon,
            )
        return super().create_optimizer(model)

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        if num_training_steps == 1 and self.args.warmup_steps < 1:
            # A share of the steps is rounded up (transformers 5.24, training_args.py:2154): the only one would be taken
            # at a rate of 0.
            self.args.warmup_steps = 0
        return super().create_scheduler(num_training_steps, optimizer)

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: list[str] | None = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Token-weighted loss over all validation rows, whatever the batch size and the number of processes.

        Raises:
            PeftInstructError: it is not finite.
        """
        total = self._sum_over_processes(self._scored_here())
        if not math.isfinite(total.loss):
            bad = ", ".join(row.origin for row in self.rows_not_finite(self.validation_rows)[:MOST_ROWS_NAMED])
            raise PeftInstructError(
                f"training: the validation loss is {total.loss} at step {self.state.global_step}: the run has diverged."
                f" Rows: {bad or 'none of the first alone'}. {self._way_back()} Lower training.learning_rate, lengthen "
                "training.warmup, or look at these rows."
            )
        metrics = {
            f"{metric_key_prefix}_loss": total.loss,
            f"{metric_key_prefix}_token_accuracy": total.token_accuracy,
        }
        if total.stop_probability is not None:
            metrics[f"{metric_key_prefix}_stop_probability"] = total.stop_probability
        # Not SFTTrainer's own `log`: it would add the training tokens' accuracy to this record and begin a new window.
        super(SFTTrainer, self).log(dict(metrics))
        self.control: TrainerControl = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _scored_here(self) -> TokenScores:
        """Of this process's validation rows, as many at once as memory holds, which is no part of the result."""
        rows_at_once = min(self.args.per_device_eval_batch_size, self.rows_at_once)
        while True:
            try:
                with self.compute_loss_context_manager():
                    return score(
                        self.model,
                        self.validation_rows[self.args.process_index :: self.args.world_size],
                        pad_id=self.processing_class.pad_token_id,
                        stop_id=self.processing_class.eos_token_id,
                        device=self.args.device,
                        batch_size=rows_at_once,
                    )
            except (RuntimeError, MemoryError) as error:
                if rows_at_once == 1 or not is_out_of_memory(error):
                    raise
            # Outside of the block that caught it, whose error holds what was computed.
            rows_at_once = math.ceil(rows_at_once / 2)
            clear_device_cache(garbage_collection=True)

    def _sum_over_processes(self, mine: TokenScores) -> TokenScores:
        if self.args.world_size == 1:
            return mine
        sums = torch.tensor(
            [mine.nats, mine.num_tokens, mine.num_correct, mine.num_stops, mine.stop_mass], device=self.args.device
        )
        nats, num_tokens, num_correct, num_stops, stop_mass = self.accelerator.reduce(sums, reduction="sum").tolist()
        return TokenScores(nats, int(num_tokens), int(num_correct), int(num_stops), stop_mass)

    def floating_point_ops(self, inputs: Any) -> int:
        """Not estimated: the Trainer would go through all modules at every step for what `bench` tells better."""
        return 0

    def release_model(self) -> None:
        """Take TRL's, accelerate's and our own forward off the model: what is proven later is the plain model.

        accelerate leaves autocast around it for good (accelerate 1.15, prepare_model), so its logits would stay bf16.
        """
        model: Any = self.model
        for patched in (model, model.get_base_model()) if has_adapter(model) else (model,):
            patched.__dict__.pop("forward", None)
            patched.__dict__.pop("_original_forward", None)
        unfuse_lora(model)
        model.config.use_cache = True  # the Trainer switches it off, and it would be saved so

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """Left out: TRL writes a card into every checkpoint; ours is written once, with what was proven."""
