"""The run behind `train`, top to bottom as the story; imported once the environment is settled."""

from __future__ import annotations

import gc
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path

import torch
from safetensors import SafetensorError

from peft_instruct.adapter.card import card
from peft_instruct.adapter.folder import Adapter, load_tuned, write_weights
from peft_instruct.adapter.manifest import (
    AdapterManifest,
    golden_ids,
    identity_of,
    stamp_files,
    template_record,
    write_manifest,
)
from peft_instruct.adapter.proofs import probe_inputs, probe_logits, prove_reload
from peft_instruct.adapter.storage import sync_tree
from peft_instruct.bench.memory import peak_memory
from peft_instruct.commands.held_out import HeldOut, side_by_side
from peft_instruct.commands.preparing import base_fingerprint, preparation_of, tokenizer_location
from peft_instruct.commands.resuming import Resume, begin, choose_checkpoint
from peft_instruct.commands.signals import StopSignals
from peft_instruct.commands.train import Answer, TrainResult, figure
from peft_instruct.data.prepare import InstructionData
from peft_instruct.data.prepared import Preparation
from peft_instruct.data.stopping import stop_warning
from peft_instruct.data.types import LengthReport, PromptCompletion, Tokens
from peft_instruct.environment import HubState, library_versions
from peft_instruct.evaluation.ledger import ledger_of, write_ledger
from peft_instruct.evaluation.scores import Scores, evenly
from peft_instruct.inference.complete import complete
from peft_instruct.model.adapters import Trainable, borrow_frozen, let_go_of_frozen, make_trainable
from peft_instruct.model.base import Base, check_lengths, load_base
from peft_instruct.model.device import Compute, choose_compute, environment_stamp
from peft_instruct.model.families import resolve_targets
from peft_instruct.model.location import Location
from peft_instruct.model.scoring import RowScores, score_rows
from peft_instruct.recipe import Recipe
from peft_instruct.recipe.schema import GenerationSection
from peft_instruct.recipe.writing import recipe_hash, recipe_values, recipe_yaml
from peft_instruct.report.html import Proof, ReportContent, Sample, render_report
from peft_instruct.report.plots import loss_plot_svg
from peft_instruct.training.checkpoints import CHECKPOINTS, Checkpoint, way_back
from peft_instruct.training.progress import MetricsWriter, ProgressLine, Samples
from peft_instruct.training.resumable import METRICS, Learned, RunIdentity, Saving
from peft_instruct.training.sft import build_trainer
from peft_instruct.training.space import check_space, is_refusal, refused

Say = Callable[[str], None]
NUM_ANSWERS_SHOWN = 5
MOST_ORIGINS_SAID = 5
LEAST_STOP_PROBABILITY = 0.5
"""Where a completion ends, stopping should be more likely than all else together."""


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
    length_notes: list[str] = field(default_factory=list)
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
            raise refused(error, place, way_back(self.folder / CHECKPOINTS), self.signals.hint) from error

    def _to_the_end(self) -> TrainResult:
        """Prepare, measure the base, train, write, read back, prove, measure again, report."""
        recipe = self.recipe
        data, base, train, validation = self._prepare()
        held_out = HeldOut.of(data, recipe.evaluation, recipe.data.max_length, recipe.data.overlong, self.say)
        inputs = probe_inputs(base.tokenizer, data.template, base.positions)
        before = probe_logits(base.model, inputs, base.compute.torch_device)
        rows_before = self._row_scores(base.model, base, train)
        base_scores = held_out.measure("base", base.model, base) if held_out.rows else None

        trainable = make_trainable(base, recipe.method, recipe.training.seed, recipe.speed.frozen_weights)
        self.say(trainable.describe())
        check_space(self.folder, trainable.model)
        with self.signals.postponed():
            learned = self._learn(base, trainable, data, train, validation)
        device = base.compute.torch_device
        trained = [] if trainable.is_held else probe_logits(trainable.model, inputs, device)
        manifest = self._write(base, trainable, data)
        description = trainable.describe()
        # What is measured below was read from the disk: of this model only what learned is left.
        if trainable.is_held:
            let_go_of_frozen(trainable.model)
        held = trainable.model if trainable.is_held else None
        del base, trainable
        gc.collect()

        tuned = load_tuned(
            Adapter(self.folder, manifest), choose_compute(*self._asked()), self.hub, base=recipe.model.base
        )
        if held is not None:
            borrow_frozen(held, tuned.model)
            trained = probe_logits(held, inputs, device)
            del held
        reloaded = probe_logits(tuned.model, inputs, device)
        proofs = prove_reload(before, trained, reloaded, str(self.folder))
        tuned_scores = held_out.measure("tuned", tuned.model, tuned.base) if held_out.rows else None
        self._note(_runs_on(tuned_scores))
        if recipe.training.ledger:
            write_ledger(self.folder, ledger_of(train, rows_before, self._row_scores(tuned.model, tuned.base, train)))

        peak = peak_memory(tuned.base.compute.device)
        result = TrainResult(
            folder=self.folder,
            name=recipe.name,
            trainable=description,
            num_steps=learned.num_steps,
            train_seconds=round(learned.seconds, 2),
            total_seconds=round(time.monotonic() - self.start, 2),
            mean_loss=learned.mean_loss,
            scores=side_by_side(base_scores, tuned_scores),
            scored_on=held_out.name,
            answers=_answers(base_scores, tuned_scores),
            proofs=proofs,
            weight_bytes=sum(path.stat().st_size for path in self.folder.glob("*.safetensors")),
            peak_memory_bytes=peak.num_bytes,
            peak_memory_how=peak.how,
        )
        self._seal(manifest, result, data)
        return result

    def _row_scores(self, model: torch.nn.Module, base: Base, rows: Sequence[Tokens]) -> list[RowScores]:
        """For the ledger; nothing where the recipe keeps none."""
        if not self.recipe.training.ledger:
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

    def _asked(self) -> tuple[str, str]:
        return self.recipe.training.device, self.recipe.training.precision

    def _prepare(self) -> tuple[InstructionData, Base, Sequence[Tokens], Sequence[Tokens]]:
        """Everything that can be wrong is looked at here, the cheap things first."""
        recipe = self.recipe
        compute = choose_compute(*self._asked())
        check_lengths(self.location, recipe.data.max_length, recipe.model.architecture)
        tokenizer = tokenizer_location(recipe, self.hub)
        preparation = preparation_of(recipe, self.location, tokenizer, self.say)
        data = preparation.data()
        for note in data.notes:
            self.say(note)
        self.identity = self._identify(data, compute)
        self.checkpoint = choose_checkpoint(self.resume, self.folder, self.identity, 1, self.say)
        base = load_base(
            recipe.model,
            self.location,
            compute,
            tokenizer_location=tokenizer,
            stop=data.template.stop,
            seed=recipe.training.seed,
        )
        self.say(f"{recipe.model.base} on {compute.device} ({compute.device_name}), {compute.precision}")
        if recipe.method.kind == "lora":
            resolve_targets(base.model, base.model_type, recipe.method.targets)
        train = self._tokens(preparation, "train", data.train, base)
        validation = self._tokens(preparation, "validation", data.validation, base) if data.validation else []
        self._note(stop_warning(train, base.tokenizer.eos_token_id))
        # Only now, with everything checked, does an earlier unfinished run give way.
        self.checkpoint = begin(self.folder, recipe_yaml(recipe), self.checkpoint, self.say)
        return data, base, train, validation

    def _identify(self, data: InstructionData, compute: Compute) -> RunIdentity:
        recipe = self.recipe
        return RunIdentity(
            recipe=recipe_values(recipe),
            base_fingerprint=base_fingerprint(recipe, self.location),
            data_fingerprint=data.fingerprint,
            environment={**library_versions(), "device": compute.device_name, "precision": compute.precision},
        )

    def _note(self, note: str) -> None:
        """Said now, and again in the report."""
        if note:
            self.length_notes.append(note)
            self.say(note)

    def _tokens(
        self, preparation: Preparation, split: str, rows: Sequence[PromptCompletion], base: Base
    ) -> Sequence[Tokens]:
        tokens, report = preparation.rows(split, rows, base.tokenizer)
        self._note(_lengths_line(split, report, len(tokens)))
        return tokens

    def _learn(
        self,
        base: Base,
        trainable: Trainable,
        data: InstructionData,
        train: Sequence[Tokens],
        validation: Sequence[Tokens],
    ) -> Learned:
        resumed = self.checkpoint
        written = (resumed.folder / METRICS).read_text(encoding="utf-8") if resumed else ""
        writer = MetricsWriter(self.folder / METRICS, written, resumed.manifest.seconds if resumed else 0.0)
        samples = self._samples(base, trainable, data, writer)
        trainer = build_trainer(
            self.recipe,
            base,
            trainable,
            train,
            validation,
            folder=self.folder,
            callbacks=[writer, ProgressLine(self.say, self.live), samples],
            say=self.say,
            saving=Saving(
                identity=self.identity,
                every=self.recipe.training.save_every,
                resumed=resumed,
                stop_requested=self.signals.requested,
                on_stopped=self.signals.saved,
                resume_hint=self.signals.hint,
            ),
        )
        learned = trainer.learn()
        samples.take(trainer.state)
        trainer.release_model()
        return learned

    def _samples(self, base: Base, trainable: Trainable, data: InstructionData, writer: MetricsWriter) -> Samples:
        section = self.recipe.samples
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

        return Samples(dict(rows), answer, section.every, writer, self.say)

    def _write(self, base: Base, trainable: Trainable, data: InstructionData) -> AdapterManifest:
        """Weights on the disk, and the manifest that `_seal` completes and writes last."""
        identity = identity_of(base, self.folder, self.recipe.model.init)
        write_weights(trainable.model, base.tokenizer, self.folder, identity.id)
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

    def _seal(self, manifest: AdapterManifest, result: TrainResult, data: InstructionData) -> None:
        """Card, report and, last of all, the manifest, once everything else is on the disk."""
        metrics = {
            **{name: list(pair) for name, pair in result.scores.items()},
            "scored_on": result.scored_on,
            "num_steps": result.num_steps,
            "train_seconds": result.train_seconds,
            "mean_loss": result.mean_loss,
            "peak_memory_bytes": result.peak_memory_bytes,
        }
        manifest = manifest.model_copy(update={"metrics": metrics, "proofs": result.proofs})
        text = card(manifest, self.recipe.description, dict(result.scores))
        (self.folder / "README.md").write_text(text, encoding="utf-8")
        report = self._report(manifest, result, data)
        (self.folder / "report.html").write_text(report, encoding="utf-8")
        sync_tree(self.folder)
        write_manifest(self.folder, manifest.model_copy(update={"files": stamp_files(self.folder)}))

    def _report(self, manifest: AdapterManifest, result: TrainResult, data: InstructionData) -> str:
        lines = (self.folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        plot = loss_plot_svg([json.loads(line) for line in lines])
        (self.folder / "loss.svg").write_text(plot, encoding="utf-8")
        environment = {**manifest.environment, **manifest.environment["versions"]}
        del environment["versions"]
        return render_report(
            ReportContent(
                title=self.recipe.name,
                summary=[("recipe", self.recipe.description), ("learns", result.trainable), ("cost", result.cost())],
                recipe_yaml=recipe_yaml(self.recipe),
                data_notes=[*data.notes, *self.length_notes],
                loss_svg=plot,
                scores=[(name, figure(base), figure(tuned)) for name, (base, tuned) in result.scores.items()],
                scored_on=result.scored_on,
                samples=[Sample(a.asked, a.base, a.tuned, a.expected) for a in result.answers],
                proofs=_proofs(result),
                environment=[(name, str(value)) for name, value in environment.items()],
            )
        )


def _runs_on(tuned: Scores | None) -> str:
    if tuned is None or tuned.stop_share is None or tuned.stop_probability is None:
        return ""  # nothing measured, or whole texts
    if tuned.stop_probability >= LEAST_STOP_PROBABILITY:
        return ""
    return (
        f"warning: the tuned model has not learned to stop: P(stop) is {tuned.stop_probability:.2f} where completions "
        "end. Train longer or at a higher learning rate, and see that the training rows are not cut."
    )


def _answers(base: Scores | None, tuned: Scores | None) -> tuple[Answer, ...]:
    if base is None or tuned is None:
        return ()
    pairs = evenly(list(zip(base.attempts, tuned.attempts, strict=True)), NUM_ANSWERS_SHOWN)
    return tuple(Answer(b.asked, b.expected, b.completion, t.completion) for b, t in pairs)


def _proofs(result: TrainResult) -> list[Proof]:
    """A run that got here has proven both; the figures say by how much."""
    same, moved = (result.proofs[name] for name in ("reloaded_equals_trained", "trained_differs_from_base"))
    return [
        Proof(
            "what was written, read back from disk onto a fresh base, is what was trained",
            True,
            f"max |Δlogit| {same['largest_logit_difference']:.1e} of {same['largest_logit']:.1f}",
        ),
        Proof(
            "what was trained is not what the base was",
            True,
            f"max |Δlogit| {moved['largest_logit_difference']:.2f}, first choice kept at "
            f"{moved['argmax_agreement']:.1%} of the probe positions",
        ),
    ]


def _lengths_line(split: str, report: LengthReport, num_rows: int) -> str:
    """Rows and tokens of a split, and every loss to the length limit with where it happened."""
    share = report.num_completion_tokens / max(report.num_tokens, 1)
    line = (
        f"{split}: {num_rows} rows, {report.num_tokens:,} tokens, {share:.0%} of them completions, "
        f"longest {report.longest}"
    )
    for what, origins in (
        ("prompts cut", report.truncated),
        ("completions cut, without a stop token", report.stopless),
        ("rows left out", report.dropped),
    ):
        if origins:
            more = ", …" if len(origins) > MOST_ORIGINS_SAID else ""
            line += f"\n  {len(origins)} {what}: {', '.join(origins[:MOST_ORIGINS_SAID])}{more}"
    return line
