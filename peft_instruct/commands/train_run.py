"""The run behind `train`, top to bottom as the story; imported once the environment is settled."""

from __future__ import annotations

import gc
import json
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path

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
from peft_instruct.bench.memory import peak_memory
from peft_instruct.commands.held_out import HeldOut, side_by_side
from peft_instruct.commands.train import Answer, TrainResult, figure
from peft_instruct.data.prepare import InstructionData, read_instruction_data
from peft_instruct.data.tokens import model_rows
from peft_instruct.data.types import LengthReport, PromptCompletion, Tokens
from peft_instruct.environment import HubState
from peft_instruct.evaluation.scores import Scores, evenly
from peft_instruct.inference.complete import complete
from peft_instruct.model.adapters import Trainable, make_trainable
from peft_instruct.model.base import Base, check_lengths, load_base
from peft_instruct.model.device import choose_compute, environment_stamp
from peft_instruct.model.families import resolve_targets
from peft_instruct.model.location import Location, locate
from peft_instruct.recipe import Recipe
from peft_instruct.recipe.schema import GenerationSection
from peft_instruct.recipe.writing import recipe_hash, recipe_yaml
from peft_instruct.report.html import Proof, ReportContent, Sample, render_report
from peft_instruct.report.plots import loss_plot_svg
from peft_instruct.training.progress import MetricsWriter, ProgressLine, Samples
from peft_instruct.training.sft import CHECKPOINTS, build_trainer

Say = Callable[[str], None]
NUM_ANSWERS_SHOWN = 5
MOST_ORIGINS_SAID = 5


@dataclass(frozen=True)
class Learned:
    """What the loop came to; `mean_loss` is the mean over all steps, as the Trainer gives it."""

    num_steps: int
    seconds: float
    mean_loss: float


@dataclass
class Run:
    """One training run; each step below leaves what the next ones need."""

    recipe: Recipe
    folder: Path
    hub: HubState
    location: Location
    say: Say
    live: Say | None = None
    start: float = field(default_factory=time.monotonic)
    length_notes: list[str] = field(default_factory=list)

    def to_the_end(self) -> TrainResult:
        """Prepare, measure the base, train, write, read back, prove, measure again, report."""
        recipe = self.recipe
        data, base, train, validation = self._prepare()
        held_out = HeldOut.of(data, recipe.evaluation, recipe.data.max_length, recipe.data.overlong, self.say)
        inputs = probe_inputs(base.tokenizer, data.template, base.positions)
        before = probe_logits(base.model, inputs, base.compute.torch_device)
        base_scores = held_out.measure("base", base.model, base) if held_out.rows else None

        trainable = make_trainable(base, recipe.method, recipe.training.seed)
        self.say(trainable.describe())
        learned = self._learn(base, trainable, data, train, validation)
        trained = probe_logits(trainable.model, inputs, base.compute.torch_device)
        manifest = self._write(base, trainable, data)
        description = trainable.describe()
        # What is measured below was read from the disk: nothing of this model is left to be mistaken for it.
        del base, trainable
        gc.collect()

        tuned = load_tuned(
            Adapter(self.folder, manifest), choose_compute(*self._asked()), self.hub, base=recipe.model.base
        )
        reloaded = probe_logits(tuned.model, inputs, tuned.base.compute.torch_device)
        proofs = prove_reload(before, trained, reloaded, str(self.folder))
        tuned_scores = held_out.measure("tuned", tuned.model, tuned.base) if held_out.rows else None

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

    def _asked(self) -> tuple[str, str]:
        return self.recipe.training.device, self.recipe.training.precision

    def _prepare(self) -> tuple[InstructionData, Base, list[Tokens], list[Tokens]]:
        """Everything that can be wrong is looked at here, the cheap things first."""
        recipe = self.recipe
        compute = choose_compute(*self._asked())
        check_lengths(self.location, recipe.data.max_length, recipe.model.architecture)
        data = read_instruction_data(recipe.data, recipe.training.seed)
        for note in data.notes:
            self.say(note)
        other = recipe.model.tokenizer
        tokenizer_location = locate(other, "main", self.hub, "model.tokenizer") if other else None
        base = load_base(
            recipe.model, self.location, compute, tokenizer_location=tokenizer_location, seed=recipe.training.seed
        )
        self.say(f"{recipe.model.base} on {compute.device} ({compute.device_name}), {compute.precision}")
        if recipe.method.kind == "lora":
            resolve_targets(base.model, base.model_type, recipe.method.targets)
        train = self._tokens("train", data.train, base)
        validation = self._tokens("validation", data.validation, base) if data.validation else []
        self._begin_folder()
        return data, base, train, validation

    def _begin_folder(self) -> None:
        """Only now, with everything checked, does an earlier run's folder give way."""
        shutil.rmtree(self.folder)
        self.folder.mkdir()
        (self.folder / "recipe.yaml").write_text(recipe_yaml(self.recipe), encoding="utf-8")

    def _tokens(self, split: str, rows: list[PromptCompletion], base: Base) -> list[Tokens]:
        section = self.recipe.data
        tokens, report = model_rows(rows, base.tokenizer, section)
        self.length_notes.append(_lengths_line(split, report, len(tokens)))
        self.say(self.length_notes[-1])
        return tokens

    def _learn(
        self,
        base: Base,
        trainable: Trainable,
        data: InstructionData,
        train: list[Tokens],
        validation: list[Tokens],
    ) -> Learned:
        writer = MetricsWriter(self.folder / "metrics.jsonl")
        samples = self._samples(base, trainable, data, writer)
        trainer = build_trainer(
            self.recipe,
            base,
            trainable,
            train,
            validation,
            folder=self.folder,
            callbacks=[writer, ProgressLine(self.say, self.live), samples],
        )
        began = time.monotonic()
        outcome = trainer.train()
        seconds = time.monotonic() - began
        samples.take(trainer.state)
        trainer.release_model()
        return Learned(trainer.state.global_step, seconds, float(outcome.training_loss))

    def _samples(self, base: Base, trainable: Trainable, data: InstructionData, writer: MetricsWriter) -> Samples:
        section = self.recipe.samples
        rows = [(row.asked, row.prompt) for row in (data.validation or data.train) if row.prompt][: section.count]
        if section.instructions:
            rows = [(text, data.template.prompt(text)) for text in section.instructions]
        options = GenerationSection(max_new_tokens=section.max_new_tokens)

        def answer(prompts: list[str]) -> list[str]:
            done = complete(
                trainable.model, base.tokenizer, prompts, options,
                positions=base.positions, device=base.compute.torch_device,
            )  # fmt: skip
            return [generation.completion for generation in done]

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
        """Card, report and, last of all, the manifest; checkpoints served `keep_best` and are done with."""
        shutil.rmtree(self.folder / CHECKPOINTS, ignore_errors=True)
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
