"""`train`: a recipe in, a proven adapter out."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peft_instruct.commands.hub_ids import hub_ids_of
from peft_instruct.commands.run_folder import claimed
from peft_instruct.commands.signals import StopSignals
from peft_instruct.environment import prepare_environment, seen_from
from peft_instruct.errors import UnavailableError
from peft_instruct.model.location import locate
from peft_instruct.recipe import Recipe, load_recipe
from peft_instruct.report.safe_text import one_line

if TYPE_CHECKING:
    from peft_instruct.commands.finished import Finished

Say = Callable[[str], None]
ADAPTERS = Path("adapters")
SHOWN_WIDTH = 110


@dataclass(frozen=True)
class Answer:
    """A held-out row answered by the base and by what was trained."""

    asked: str
    expected: str
    base: str
    tuned: str


@dataclass(frozen=True)
class TrainResult:
    """What a run came to.

    Attributes:
        train_seconds: of all starts of the run.
        total_seconds: of the last start, and of training before it.
        scores: measure -> (base, tuned) on held-out rows.
        scored_on: which rows, and how many, for the line above the table.
        weight_bytes: size of the trained weights on disk.
        peak_memory_bytes: of this process, and `peak_memory_how` says how it was measured.
    """

    folder: Path
    name: str
    num_steps: int
    train_seconds: float
    total_seconds: float
    trainable: str
    mean_loss: float
    scores: dict[str, tuple[float | None, float | None]]
    scored_on: str
    answers: tuple[Answer, ...]
    proofs: dict[str, Any]
    weight_bytes: int
    peak_memory_bytes: int
    peak_memory_how: str

    def record(self) -> dict[str, Any]:
        return {**asdict(self), "folder": str(self.folder)}

    def text(self) -> str:
        return "\n".join([*self._answer_lines(), *self._score_lines(), *self._cost_lines(), *self._next_lines()])

    def _answer_lines(self) -> list[str]:
        lines = []
        for answer in self.answers:
            lines += [
                f"  {one_line(answer.asked, SHOWN_WIDTH)}",
                f"    expected  {one_line(answer.expected, SHOWN_WIDTH)}",
                f"    base      {one_line(answer.base, SHOWN_WIDTH)}",
                f"    tuned     {one_line(answer.tuned, SHOWN_WIDTH)}",
            ]
        return ["held-out instructions", *lines, ""] if lines else []

    def _score_lines(self) -> list[str]:
        if not self.scores:
            return []
        width = max(map(len, (self.scored_on, *self.scores)))
        rows = [
            f"  {name:<{width}}  {figure(base):>9}  {figure(tuned):>9}" for name, (base, tuned) in self.scores.items()
        ]
        return [f"  {self.scored_on:<{width}}  {'base':>9}  {'tuned':>9}", *rows, ""]

    def _cost_lines(self) -> list[str]:
        same = self.proofs["reloaded_equals_trained"]["largest_logit_difference"]
        moved = self.proofs["trained_differs_from_base"]["largest_logit_difference"]
        return [
            self.cost(),
            f"proof: read back from disk, max |Δlogit| to what was trained {same:.1e}, to the base {moved:.1f}",
            f"{self.folder}: {self.weight_bytes / 1e6:.2f} MB of weights, report.html, manifest.json",
        ]

    def cost(self) -> str:
        return (
            f"{self.num_steps} steps in {self.train_seconds:.1f} s (whole run {self.total_seconds:.1f} s), "
            f"peak memory {self.peak_memory_bytes / 1e9:.2f} GB ({self.peak_memory_how})"
        )

    def _next_lines(self) -> list[str]:
        asked = self.answers[0].asked.split("\n")[0] if self.answers else "Name three primary colours."
        return [f"next: peft-instruct generate {shlex.quote(str(self.folder))} {shlex.quote(asked)}"]


def train(
    recipe_name: str,
    overrides: Sequence[str] = (),
    *,
    out: Path | None = None,
    if_exists: str = "refuse",
    resume: str = "auto",
    allow_changes: bool = False,
    say: Say,
    live: Say | None = None,
) -> TrainResult | Finished:
    """Train what a recipe says and hand over a folder whose content is proven.

    Args:
        out: the adapter folder; `adapters/<name>` by default.
        if_exists: `refuse` or `replace` a finished adapter in that folder; refused, one of this very run is returned.
        resume: `auto` goes on with an unfinished run, `none` starts anew, a path names a checkpoint or a run.
        allow_changes: go on although the recipe or the data are others than the checkpoint's.
        live: takes the progress line where it can be rewritten in place; `say` takes plain lines.

    Raises:
        PeftInstructError: everything that a user can cause, most of it before the model is loaded.
        Stopped: SIGINT or SIGTERM, after the step was finished and saved.
    """
    check_alone()
    recipe = without_absolute_paths(load_recipe(recipe_name, overrides))
    command = _command(recipe_name, overrides, out, if_exists)
    until_saved = _resume_options(resume, allow_changes)
    with (
        StopSignals(command, until_saved) as signals,
        claimed(out or ADAPTERS / recipe.name, recipe, if_exists, say) as folder,
    ):
        hub = prepare_environment(hub_ids_of(recipe))
        # Before torch is imported: a base that cannot be had is told at once.
        location = locate(recipe.model.base, recipe.model.revision, hub)
        if folder.is_finished:
            from peft_instruct.commands.finished import finished_already

            return finished_already(folder.final, recipe, location, hub, say)
        # C code that a library runs while it is imported drops what a handler raises, or ends the process with a dump.
        with signals.postponed(tells=False):
            from peft_instruct.commands.resuming import Resume
            from peft_instruct.commands.train_run import Run

        going_on = Resume(resume, allow_changes)
        result = Run(recipe, folder.work, hub, location, say, live, going_on, signals).to_the_end()
        with signals.postponed(then_leave=False):
            folder.put_in_place()
        return replace(result, folder=folder.final)


def check_alone() -> None:
    """Raises UnavailableError where a launcher has started several of us."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UnavailableError("train: several processes are not supported yet. Start one (CUDA_VISIBLE_DEVICES=0).")


def without_absolute_paths(recipe: Recipe) -> Recipe:
    """Local files and folders as seen from here: what is handed over names no place of this machine."""
    train = recipe.data.train
    if isinstance(train, list):
        moved = [
            _seen(each) if isinstance(each, str) else each.model_copy(update={"source": _seen(each.source)})
            for each in train
        ]
        recipe = recipe.model_copy(update={"data": recipe.data.model_copy(update={"train": moved})})
    sections = {"model": ("base", "tokenizer"), "data": ("train", "validation", "test")}
    for name, keys in sections.items():
        section = getattr(recipe, name)
        paths = {key: getattr(section, key) for key in keys}
        here = {key: _seen(path) for key, path in paths.items() if isinstance(path, str)}
        recipe = recipe.model_copy(update={name: section.model_copy(update=here)})
    return recipe


def _seen(path: str) -> str:
    return seen_from(path, Path.cwd()) if os.path.isabs(path) else path


def _command(recipe_name: str, overrides: Sequence[str], out: Path | None, if_exists: str) -> str:
    """What a person types to go on with this run."""
    words = ["peft-instruct", "train", recipe_name]
    words += [word for override in overrides for word in ("--set", override)]
    words += ["--out", str(out)] if out else []
    words += ["--if-exists", if_exists] if if_exists != "refuse" else []
    return shlex.join(words)


def _resume_options(resume: str, allow_changes: bool) -> str:
    """The options, to be appended, that a run needs again until it has a checkpoint of its own."""
    words = ["--resume", resume] if resume != "auto" else []
    words += ["--resume-allow-changes"] if allow_changes else []
    return "".join(f" {shlex.quote(word)}" for word in words)


def figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"
