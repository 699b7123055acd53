"""`train --dry-run`: every check of a run and what the run will cost, from a short probe; nothing is trained."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peft_instruct import errors
from peft_instruct.bench.isolated import run_isolated
from peft_instruct.commands.run_folder import check_free
from peft_instruct.commands.train import ADAPTERS, check_alone, without_absolute_paths
from peft_instruct.recipe import Recipe, load_recipe
from peft_instruct.recipe.shipped import PACKAGE
from peft_instruct.recipe.writing import exact_values

Say = Callable[[str], None]
PROBE_MODULE = "peft_instruct.commands.dry_run_probe"
COMPARED = "benchmarks/results/dry_run.json"
"""Predictions beside the runs that they were of; `benchmarks/dry_run.py` writes it."""


@dataclass(frozen=True)
class DryRun:
    """What a run will cost.

    Attributes:
        found: as `dry_run_probe.measure` gives it.
        worst: largest errors of such predictions, `seconds` and `bytes` -> share of the real figure; empty where the
            file that they stand in is not here.
    """

    name: str
    found: dict[str, Any]
    not_counted: tuple[str, ...]
    worst: dict[str, float]

    @property
    def seconds(self) -> float:
        return sum(self.found["seconds"].values())

    def record(self) -> dict[str, Any]:
        return {
            "name": self.name,
            **self.found,
            "total_seconds": self.seconds,
            "not_counted": list(self.not_counted),
            "worst_errors": self.worst,
        }

    def text(self) -> str:
        found, environment = self.found, self.found["environment"]
        rows = ", ".join(f"{count:,} {split}" for split, count in found["num_rows"].items() if count)
        lines = [
            f"{self.name} on {environment['device']} ({environment['device_name']}), {environment['precision']}: "
            "a dry run, nothing was trained",
            f"  rows         {rows}",
            f"  tokens       {found['num_tokens']:,} in the training rows, longest {found['longest']}; "
            f"{found['num_tokens_trained']:,} in {found['num_steps']:,} steps",
            f"  learns       {found['trainable']}",
            f"  peak memory  {self._memory()}",
            f"  time         {_clock(self.seconds)}: {self._parts()}",
            *self._without_stopping(),
            *([f"               not counted: {', '.join(self.not_counted)}"] if self.not_counted else []),
            f"  checkpoint   {_megabytes(found['checkpoint_bytes'])}; weights handed over "
            f"{_megabytes(found['weight_bytes'])}",
        ]
        if self.worst:
            lines.append(
                f"  predictions of this kind were off by at most {self.worst['seconds']:.0%} in time and "
                f"{self.worst['bytes']:.0%} in memory in {COMPARED}"
            )
        return "\n".join(lines)

    def _memory(self) -> str:
        memory = self.found["memory"]
        rows, widest = memory["longest_batch"]
        of = f"of {memory['device_bytes'] / 1e9:.1f} GB"
        measured = f"{memory['peak_bytes'] / 1e9:.2f} GB {of}"
        batch = f"the longest batch, {rows} x {widest} tokens"
        if memory["fits"]:
            return f"{measured}: fits ({batch}; {memory['how']})"
        would = memory["micro_batch"]
        size = f"batch_tokens: {would * widest}" if memory["by_tokens"] else f"batch_size: {would}"
        return (
            f"does not fit in passes of {rows} rows ({batch}): micro-batch {would} would, with "
            f"{measured}. Set training.{size} and raise accumulation; {memory['how']}"
        )

    def _without_stopping(self) -> list[str]:
        """Completions are counted as long as the rows' own; a model that has not learned to stop takes longer."""
        most = self.found["seconds_without_stopping"]
        is_longer = most > 1.05 * self.seconds
        return [f"               up to {_clock(most)} where the tuned model does not learn to stop"] * is_longer

    def _parts(self) -> str:
        steps = self.found["num_steps"]
        names = {"training": f"{steps:,} steps", "validation": "validation losses"}
        return ", ".join(
            f"{names.get(part, part)} {_clock(seconds)}" for part, seconds in self.found["seconds"].items() if seconds
        )


def dry_run(
    recipe_name: str, overrides: Sequence[str] = (), *, out: Path | None = None, if_exists: str = "refuse", say: Say
) -> DryRun:
    """Check what `train` checks before its first step, and predict what the run costs.

    Rows that were prepared are kept in the cache for `train`; nothing else is written.

    Args:
        out: the adapter folder that `train` would write; looked at and not touched.

    Raises:
        PeftInstructError: as `train` would, and where not even the probe could be run.
    """
    check_alone()
    recipe = without_absolute_paths(load_recipe(recipe_name, overrides))
    folder = out or ADAPTERS / recipe.name
    check_free(folder, recipe, if_exists)
    place = next(each for each in (folder, *folder.absolute().parents) if each.is_dir())
    say("dry run: reads the rows, loads the base and runs a few passes, in a process of its own")
    found = run_isolated(PROBE_MODULE, {"recipe": exact_values(recipe), "place": str(place)})
    if "failed" in found:
        kind = getattr(errors, found.get("error", "PeftInstructError"))
        raise kind(found["failed"] if "error" in found else f"train --dry-run: {found['failed']}. Try a smaller base.")
    for note in found.pop("notes"):
        say(note)
    return DryRun(recipe.name, found, tuple(_not_counted(recipe)), worst_errors())


def worst_errors(path: Path | None = None) -> dict[str, float]:
    """The largest errors in the file of comparisons: inside the package in a wheel, beside it in a checkout."""
    places = [path] if path else [PACKAGE / "_shipped" / COMPARED, PACKAGE.parent / COMPARED]
    for place in places:
        if place.is_file():
            runs = json.loads(place.read_text(encoding="utf-8"))["runs"]
            return {key: max(abs(run["error"][key]) for run in runs) for key in ("seconds", "bytes")}
    return {}


def _not_counted(recipe: Recipe) -> list[str]:
    samples, training = recipe.samples, recipe.training
    parts = {
        "samples": bool(samples.instructions or samples.count),
        "checkpoints": training.save_every != "never" or training.keep_best,
        "the ledger": training.ledger,
        "an early end": training.early_stopping is not None,
    }
    return [part for part, is_wanted in parts.items() if is_wanted]


def _clock(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60:02d} min"


def _megabytes(num_bytes: int) -> str:
    return f"{num_bytes / 1e6:,.1f} MB"
