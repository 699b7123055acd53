"""The run behind `train`, top to bottom as the story; imported once the environment is settled."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from peft_instruct.adapter.folder import Adapter, Tuned, load_tuned, write_weights
from peft_instruct.adapter.manifest import AdapterManifest, golden_ids, identity_of, template_record
from peft_instruct.adapter.proofs import probe_inputs, probe_logits, prove_reload
from peft_instruct.bench.memory import peak_memory
from peft_instruct.commands.held_out import HeldOut, side_by_side
from peft_instruct.commands.preparing import Prepared, base_fingerprint, prepare, read_rows
from peft_instruct.commands.reporting import answers_of, runs_on, seal_run
from peft_instruct.commands.resuming import Resume, begin, choose_checkpoint, precision_as_begun, tell_differences
from peft_instruct.commands.signals import StopSignals
from peft_instruct.commands.train import TrainResult
from peft_instruct.data.types import Tokens
from peft_instruct.environment import HubState, library_versions
from peft_instruct.evaluation.ledger import distinct, ledger_of, write_ledger
from peft_instruct.evaluation.scores import Scores
from peft_instruct.inference.complete import complete
from peft_instruct.model.adapters import Trainable, borrow_frozen, let_go_of_frozen, make_trainable
from peft_instruct.model.base import Base
from peft_instruct.model.device import Compute, environment_stamp
from peft_instruct.model.location import Location
from peft_instruct.model.scoring import RowScores, score_rows
from peft_instruct.recipe import Recipe
from peft_instruct.recipe.schema import GenerationSection
from peft_instruct.recipe.writing import recipe_hash, recipe_values, recipe_yaml
from peft_instruct.training.checkpoints import CHECKPOINTS, Checkpoint, way_back
from peft_instruct.training.contents import METRICS
from peft_instruct.training.progress import MetricsWriter, ProgressLine, Samples, last_sampled
from peft_instruct.training.resumable import Learned
from peft_instruct.training.saving import RunIdentity, Saving
from peft_instruct.training.sft import build_trainer
from peft_instruct.training.space import check_space, is_refusal, refused

Say = Callable[[str], None]


@dataclass(frozen=True)
class Before:
    """What the base was, before anything was learned.

    Attributes:
        logits: at the probe `inputs`.
        rows: of every training row, for the ledger; empty where none is kept.
        scores: on the held-out rows, where there are any.
    """

    held_out: HeldOut
    inputs: list[list[int]]
    logits: list[torch.Tensor]
    rows: list[RowScores]
    scores: Scores | None


@dataclass(frozen=True)
class Trained:
    """What was learned, and is on the disk but for the manifest's figures.

    Attributes:
        held: what learned without the frozen weights, where those can be borrowed from a base that is read again.
        logits: of the whole model where it cannot be held.
    """

    learned: Learned
    manifest: AdapterManifest
    compute: Compute
    description: str
    held: torch.nn.Module | None
    logits: list[torch.Tensor]


@dataclass
class Run:
    """One training run; each step below leaves what the next ones need."""

    recipe: Recipe
    folder: Path
    hub: HubState
    location: Location
    say: Say
    live: Say | None
    resume: Resume
    signals: StopSignals
    start: float = field(default_factory=time.monotonic)
    notes: list[str] = field(default_factory=list)
    identity: RunIdentity = field(default_factory=RunIdentity)
    checkpoint: Checkpoint | None = None

    def to_the_end(self) -> TrainResult:
        """The whole run.

        Raises:
            PeftInstructError: everything that a user can cause; a disk that refuses is one line too.
        """
        try:
            return self._to_the_end()
        except (OSError, SafetensorError) as error:
            if not is_refusal(error):
                raise
            place = Path(getattr(error, "filename", None) or self.folder)
            raise refused(error, place, way_back(self.folder / CHECKPOINTS), self.signals.hint()) from error

    def _to_the_end(self) -> TrainResult:
        """Prepare, measure the base, train, write, read back, prove, measure again, report."""
        prepared = self._prepare()
        data, in_ledger = prepared.data, distinct(prepared.train) if self.recipe.training.ledger else []
        before = self._measure_base(prepared, in_ledger)
        self._note(before.held_out.cut(before.scores))
        trained = self._train(prepared, before.inputs)
        # What is measured below was read from the disk: of this model only what learned is left.
        del prepared
        gc.collect()
        tuned, proofs = self._read_back(before, trained)
        scores = before.held_out.measure("tuned", tuned.model, tuned.base) if before.held_out.rows else None
        self._note(runs_on(scores))
        if self.recipe.training.ledger:
            after = self._row_scores(tuned.model, tuned.base, in_ledger)
            write_ledger(self.folder, ledger_of(in_ledger, before.rows, after))
        peak = peak_memory(tuned.base.compute.device)
        learned = trained.learned
        seconds_before = self.checkpoint.manifest.seconds if self.checkpoint else 0.0
        result = TrainResult(
            folder=self.folder,
            name=self.recipe.name,
            trainable=trained.description,
            num_steps=learned.num_steps,
            train_seconds=round(learned.seconds, 2),
            total_seconds=round(seconds_before + time.monotonic() - self.start, 2),
            mean_loss=learned.mean_loss,
            scores=side_by_side(before.scores, scores),
            scored_on=before.held_out.described(before.scores),
            answers=answers_of(before.scores, scores),
            proofs=proofs,
            weight_bytes=sum(path.stat().st_size for path in self.folder.glob("*.safetensors")),
            peak_memory_bytes=peak.num_bytes,
            peak_memory_how=peak.how,
        )
        seal_run(self.folder, self.recipe, trained.manifest, result, [*data.notes, *self.notes])
        return result

    def _prepare(self) -> Prepared:
        """Everything that can be wrong is looked at here, the cheap things first."""
        recipe = self.recipe
        rows = read_rows(recipe, self.location, self.hub, self.say)
        run = RunIdentity(recipe_values(recipe), base_fingerprint(recipe, self.location), rows.data.fingerprint)
        self.checkpoint = choose_checkpoint(self.resume, self.folder, run, 1, self.say)
        compute = precision_as_begun(self.checkpoint, recipe.training.precision, rows.compute)
        rows = replace(rows, compute=compute)
        here = {**library_versions(), "device": compute.device_name, "precision": compute.precision}
        self.identity = replace(run, environment=here)
        if self.checkpoint:
            tell_differences(self.checkpoint, self.identity, self.say)
        prepared = prepare(rows, recipe, self.location, self.say)
        self.notes += prepared.notes
        # Only now, with everything checked, does an earlier unfinished run give way.
        self.checkpoint = begin(self.folder, recipe_yaml(recipe), self.checkpoint, self.say)
        return prepared

    def _measure_base(self, prepared: Prepared, in_ledger: Sequence[Tokens]) -> Before:
        recipe, base = self.recipe, prepared.base
        held_out = HeldOut.of(prepared.data, recipe, self.say)
        inputs = probe_inputs(base.tokenizer, prepared.data.template, base.positions)
        logits = probe_logits(base.model, inputs, base.compute.torch_device)
        rows = self._row_scores(base.model, base, in_ledger)
        scores = held_out.measure("base", base.model, base) if held_out.rows else None
        return Before(held_out, inputs, logits, rows, scores)

    def _train(self, prepared: Prepared, inputs: list[list[int]]) -> Trained:
        """The weights learned and on the disk."""
        base = prepared.base
        trainable = make_trainable(
            base, self.recipe.method, self.recipe.training.seed, self.recipe.speed.frozen_weights
        )
        self.say(trainable.describe())
        check_space(self.folder, trainable.model, self.recipe.training)
        with self.signals.postponed():
            learned = self._learn(prepared, trainable)
        logits = [] if trainable.is_held else probe_logits(trainable.model, inputs, base.compute.torch_device)
        manifest = self._write(prepared, trainable)
        description = trainable.describe()
        if trainable.is_held:
            let_go_of_frozen(trainable.model)
        return Trained(
            learned, manifest, base.compute, description, trainable.model if trainable.is_held else None, logits
        )

    def _read_back(self, before: Before, trained: Trained) -> tuple[Tuned, dict[str, Any]]:
        """The adapter from the disk on a fresh base, proven to be what was trained, and another than the base."""
        tuned = load_tuned(
            Adapter(self.folder, trained.manifest),
            trained.compute,
            self.hub,
            base=self.recipe.model.base,
            like=self.recipe.model,
        )
        device = tuned.base.compute.torch_device
        logits = trained.logits
        if trained.held is not None:
            borrow_frozen(trained.held, tuned.model)
            logits = probe_logits(trained.held, before.inputs, device)
        reloaded = probe_logits(tuned.model, before.inputs, device)
        return tuned, prove_reload(before.logits, logits, reloaded, str(self.folder))

    def _row_scores(self, model: torch.nn.Module, base: Base, rows: Sequence[Tokens]) -> list[RowScores]:
        """For the ledger; nothing where the recipe keeps none."""
        if not rows:
            return []
        self.say(f"ledger: loss of each of {len(rows)} training rows")
        return score_rows(
            model,
            rows,
            pad_id=base.tokenizer.pad_token_id,
            stop_id=base.tokenizer.eos_token_id,
            device=base.compute.torch_device,
            batch_size=self.recipe.evaluation.batch_size,
        )

    def _note(self, note: str) -> None:
        """Said now, and again in the report."""
        if note:
            self.notes.append(note)
            self.say(note)

    def _learn(self, prepared: Prepared, trainable: Trainable) -> Learned:
        resumed = self.checkpoint
        written = (resumed.folder / METRICS).read_text(encoding="utf-8") if resumed else ""
        writer = MetricsWriter(self.folder / METRICS, written, resumed.manifest.seconds if resumed else 0.0)
        samples = self._samples(prepared, trainable, writer, last_sampled(writer.path))
        trainer = build_trainer(
            self.recipe,
            prepared.base,
            trainable,
            prepared.train,
            prepared.validation,
            folder=self.folder,
            callbacks=[writer, ProgressLine(self.say, self.live), samples],
            say=self.say,
            saving=Saving(
                identity=self.identity,
                every=self.recipe.training.save_every,
                resumed=resumed,
                stop_requested=self.signals.requested,
                on_stopped=self.signals.saved,
                on_saved=self.signals.note_saved,
                resume_hint=self.signals.hint,
            ),
        )
        learned = trainer.learn()
        samples.take(trainer.state)
        trainer.release_model()
        return learned

    def _samples(self, prepared: Prepared, trainable: Trainable, writer: MetricsWriter, last: int) -> Samples:
        section, data, base = self.recipe.samples, prepared.data, prepared.base
        rows = [(row.asked, row.prompt) for row in (data.validation or data.train) if row.prompt][: section.count]
        if section.instructions:
            rows = [(text, data.template.prompt(text)) for text in section.instructions]
        options = GenerationSection(max_new_tokens=section.max_new_tokens)

        def answer(prompts: list[str]) -> list[tuple[str, bool]]:
            done = complete(
                trainable.model, base.tokenizer, prompts, options,
                positions=base.positions, device=base.compute.torch_device,
            )  # fmt: skip
            return [(generation.completion, generation.stopped) for generation in done]

        return Samples(dict(rows), answer, section.every, writer, self.say, last)

    def _write(self, prepared: Prepared, trainable: Trainable) -> AdapterManifest:
        """Weights on the disk, and the manifest that `seal_run` completes and writes last."""
        base, data = prepared.base, prepared.data
        identity = identity_of(base, self.folder, self.recipe.model.init)
        write_weights(trainable.model, base.tokenizer, self.folder, identity.for_other_tools)
        if self.recipe.model.tokenizer:
            base.tokenizer.save_pretrained(str(self.folder))
        return AdapterManifest(
            name=self.recipe.name,
            kind=self.recipe.method.kind,
            created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
            base=identity,
            template=template_record(data.template),
            golden=golden_ids(base.tokenizer, data.template),
            generation=self.recipe.generation,
            recipe_sha256=recipe_hash(self.recipe),
            data_fingerprint=data.fingerprint,
            environment=environment_stamp(base.compute),
            files={},
        )
