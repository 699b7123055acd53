"""What a finished run says of itself: answers, card, report and, last of all, the manifest."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from peft_instruct.adapter.card import card
from peft_instruct.adapter.manifest import AdapterManifest, stamp_files, write_manifest
from peft_instruct.adapter.storage import sync_tree
from peft_instruct.commands.train import Answer, TrainResult, figure
from peft_instruct.evaluation.scores import Scores, evenly
from peft_instruct.recipe import Recipe
from peft_instruct.recipe.writing import recipe_yaml
from peft_instruct.report.html import Proof, ReportContent, Sample, render_report
from peft_instruct.report.plots import loss_plot_svg
from peft_instruct.training.contents import METRICS
from peft_instruct.training.progress import read_metrics

NUM_ANSWERS_SHOWN = 5
NUM_TIMES_SHOWN = 6
LEAST_STOP_PROBABILITY = 0.5
"""Where a completion ends, stopping should be more likely than all else together."""


def runs_on(tuned: Scores | None) -> str:
    if tuned is None or tuned.stop_share is None or tuned.stop_probability is None:
        return ""  # nothing measured, or whole texts
    if tuned.stop_probability >= LEAST_STOP_PROBABILITY:
        return ""
    return (
        f"warning: the tuned model has not learned to stop: P(stop) is {tuned.stop_probability:.2f} where completions "
        "end. Train longer or at a higher learning rate, and see that the training rows are not cut."
    )


def answers_of(base: Scores | None, tuned: Scores | None) -> tuple[Answer, ...]:
    if base is None or tuned is None:
        return ()
    pairs = evenly(list(zip(base.attempts, tuned.attempts, strict=True)), NUM_ANSWERS_SHOWN)
    return tuple(Answer(b.asked, b.expected, b.completion, t.completion) for b, t in pairs)


def seal_run(
    folder: Path, recipe: Recipe, manifest: AdapterManifest, result: TrainResult, notes: Sequence[str]
) -> None:
    """Card, report and, last of all, the manifest, once everything else is on the disk.

    Args:
        manifest: without figures and files, which are filled in.
        notes: what was said of the rows.
    """
    metrics = {
        **{name: list(pair) for name, pair in result.scores.items()},
        "scored_on": result.scored_on,
        "num_steps": result.num_steps,
        "train_seconds": result.train_seconds,
        "mean_loss": result.mean_loss,
        "peak_memory_bytes": result.peak_memory_bytes,
    }
    manifest = manifest.model_copy(update={"metrics": metrics, "proofs": result.proofs})
    text = card(manifest, recipe.description, dict(result.scores))
    (folder / "README.md").write_text(text, encoding="utf-8")
    report = _report(folder, recipe, manifest, result, notes)
    (folder / "report.html").write_text(report, encoding="utf-8")
    sync_tree(folder)
    write_manifest(folder, manifest.model_copy(update={"files": stamp_files(folder)}))


def _report(folder: Path, recipe: Recipe, manifest: AdapterManifest, result: TrainResult, notes: Sequence[str]) -> str:
    metrics = read_metrics(folder / METRICS)
    plot = loss_plot_svg(metrics)
    (folder / "loss.svg").write_text(plot, encoding="utf-8")
    environment = {**manifest.environment, **manifest.environment["versions"]}
    del environment["versions"]
    return render_report(
        ReportContent(
            title=recipe.name,
            summary=[("recipe", recipe.description), ("learns", result.trainable), ("cost", result.cost())],
            recipe_yaml=recipe_yaml(recipe),
            data_notes=list(notes),
            loss_svg=plot,
            scores=[(name, figure(base), figure(tuned)) for name, (base, tuned) in result.scores.items()],
            scored_on=result.scored_on,
            samples=[Sample(a.asked, a.base, a.tuned, a.expected) for a in result.answers],
            on_the_way=_on_the_way(metrics),
            proofs=_proofs(result),
            environment=[(name, str(value)) for name, value in environment.items()],
        )
    )


def _on_the_way(metrics: Sequence[dict[str, Any]]) -> list[tuple[str, str, str]]:
    """(step, prompt, completion) of some of the times that samples were taken, the last one among them."""
    taken = [line for line in metrics if isinstance(line.get("samples"), dict)]
    shown = evenly(taken[::-1], NUM_TIMES_SHOWN)[::-1]
    return [(str(line["step"]), prompt, str(text)) for line in shown for prompt, text in line["samples"].items()]


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
