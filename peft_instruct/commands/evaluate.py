"""`evaluate`: an adapter measured on held-out rows, its base beside it."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from peft_instruct.commands.hub_ids import hub_ids_of_adapter
from peft_instruct.commands.out_file import check_not_read, out_file
from peft_instruct.commands.untuned import Untuned
from peft_instruct.data.sources import is_hub_id
from peft_instruct.data.types import PromptCompletion
from peft_instruct.environment import HubState, prepare_environment
from peft_instruct.errors import RecipeError
from peft_instruct.evaluation.held_out import held_out_rows, recipe_of
from peft_instruct.recipe import Recipe
from peft_instruct.recipe.data_section import DataSection
from peft_instruct.recipe.schema import EvaluationSection
from peft_instruct.recipe.shipped import find_adapter
from peft_instruct.report.safe_text import in_short
from peft_instruct.report.tables import text_table

if TYPE_CHECKING:
    from peft_instruct.adapter.folder import Tuned
    from peft_instruct.commands.held_out import HeldOut
    from peft_instruct.evaluation.scores import Scores

Say = Callable[[str], None]
NUM_EXAMPLES = 3


@dataclass(frozen=True)
class Example:
    """A row's prompt and what came out; `base` is None where the base was not measured."""

    asked: str
    expected: str
    base: str | None
    tuned: str


@dataclass(frozen=True)
class EvaluateResult:
    """Scores of the tuned model, and of its base on the same rows.

    Attributes:
        source: where the rows are from.
        environment: what the figures must be read with.
    """

    adapter: str
    source: str
    tuned: Scores
    base: Scores | None
    examples: tuple[Example, ...]
    environment: dict[str, Any]

    def record(self) -> dict[str, Any]:
        return {
            "adapter": self.adapter,
            "source": self.source,
            "base": self.base.record() if self.base else None,
            "tuned": self.tuned.record(),
            "examples": [asdict(example) for example in self.examples],
            "environment": self.environment,
        }

    def text(self) -> str:
        return "\n".join([self._heading(), "", _table(self.base, self.tuned), *self._shown_examples()])

    def _heading(self) -> str:
        scores = self.tuned
        cut = f", {scores.num_truncated} truncated" if scores.num_truncated else ""
        dropped = f", {scores.num_dropped} too long and left out" if scores.num_dropped else ""
        return (
            f"{self.adapter} on {self.source}\n"
            f"loss over {scores.num_rows} rows ({scores.num_tokens} completion tokens{cut}{dropped}), "
            f"completions of {scores.num_completed} rows"
        )

    def _shown_examples(self) -> list[str]:
        lines = []
        for example in self.examples:
            lines += ["", f"asked        {in_short(example.asked)}", f"expected     {in_short(example.expected)}"]
            if example.base is not None:
                lines.append(f"base         {in_short(example.base)}")
            lines.append(f"tuned        {in_short(example.tuned)}")
        return lines


def evaluate(
    adapter_path: str,
    *,
    data: str | None = None,
    base: str | None = None,
    rows: int | None = None,
    batch_size: int | None = None,
    device: str = "auto",
    untuned: bool = True,
    out: Path | None = None,
    say: Say,
) -> EvaluateResult:
    """Measure an adapter on rows that it has not learned from. Completions are greedy, without a penalty.

    Args:
        data: rows of another source, all of them; by default the test rows of the adapter's own recipe, or its
            validation rows where it has no test rows.
        base: where the base is, when not where the adapter says.
        rows: most rows completed for exact match and stopping; the loss is always over all rows.
        untuned: measure the base as well.
        out: a JSON file for the result with every completion.

    Raises:
        RecipeError: the options are unusable.
        DatasetError: the rows are missing, broken, or no longer those of the training.
        AdapterError, ModelError: the adapter or its base is unusable.
    """
    _check_usage(rows, batch_size)
    path = find_adapter(adapter_path, say)
    recipe = recipe_of(path, data)
    sources = [data] if data else recipe.data.all_names() if recipe else []
    if out is not None:
        check_not_read(out, sources)
    bases = hub_ids_of_adapter(path, base, needs_base=untuned)
    hub = prepare_environment([*bases, *(source for source in sources if is_hub_id(source))])
    from peft_instruct.adapter.folder import load_tuned, open_adapter
    from peft_instruct.model.device import choose_compute, environment_stamp

    adapter = open_adapter(path)
    source, held_out, notes = held_out_rows(recipe, adapter.manifest, data)
    for note in notes:
        say(note)
    compute = choose_compute(device, "fp32")
    with out_file(out) if out else nullcontext() as stream:
        tuned = load_tuned(adapter, compute, hub, base=base)
        plan = _plan(source, held_out, recipe, tuned.base.positions, rows, batch_size, say)
        scores = plan.measure("tuned", tuned.model, tuned.base)
        base_scores = _base_scores(plan, tuned, hub, base) if untuned else None
        result = EvaluateResult(
            adapter=adapter_path,
            source=source,
            tuned=scores,
            base=base_scores,
            examples=_examples(scores, base_scores),
            environment=environment_stamp(compute),
        )
        if stream is not None:
            _write(result, stream)
    return result


def _plan(
    name: str,
    held_out: list[PromptCompletion],
    recipe: Recipe | None,
    positions: int,
    rows: int | None,
    batch_size: int | None,
    say: Say,
) -> HeldOut:
    """How both models are measured: as the adapter's recipe says, but for what the call says."""
    from peft_instruct.commands.held_out import HeldOut

    given = {"rows": rows, "batch_size": batch_size}
    section = (recipe.evaluation if recipe else EvaluationSection()).model_copy(
        update={key: value for key, value in given.items() if value is not None}
    )
    as_learned = recipe.data if recipe else DataSection(train=name, max_length=positions)
    within = as_learned.model_copy(update={"max_length": min(as_learned.max_length, positions)})
    return HeldOut(name, held_out, section, within, say)


def _base_scores(plan: HeldOut, tuned: Tuned, hub: HubState, base: str | None) -> Scores | None:
    if tuned.adapter.holds_model and not tuned.adapter.manifest.base.fingerprint:
        plan.say("base: not measured, the model was trained from random weights")
        return None
    with Untuned(tuned, hub, base).opened() as (model, loaded):
        return plan.measure("base", model, loaded)


def _check_usage(rows: int | None, batch_size: int | None) -> None:
    problems = []
    if rows is not None and rows < 0:
        problems.append(f"--rows: {rows}. expected 0 (the loss alone) or more.")
    if batch_size is not None and batch_size < 1:
        problems.append(f"--batch-size: {batch_size}. expected at least 1.")
    if problems:
        raise RecipeError.of("evaluate", problems)


def _examples(tuned: Scores, base: Scores | None) -> tuple[Example, ...]:
    bases = [attempt.completion for attempt in base.attempts] if base else [None] * len(tuned.attempts)
    pairs = list(zip(tuned.attempts, bases, strict=True))
    from peft_instruct.evaluation.scores import evenly

    return tuple(
        Example(attempt.asked, attempt.expected, other, attempt.completion)
        for attempt, other in evenly(pairs, NUM_EXAMPLES)
    )


def _table(base: Scores | None, tuned: Scores) -> str:
    """One line per measure: base, tuned, and how far tuned is from base (of percentages, in points)."""
    of_base = _figures(base) if base else {}
    rows = []
    for name, after in _figures(tuned).items():
        before = of_base.get(name)
        shape = ".1f" if name.endswith("%") else ".3f"
        difference = "–" if before is None or after is None else f"{after - before:+{shape}}"
        rows.append([name, *("–" if value is None else f"{value:{shape}}" for value in (before, after)), difference])
    return text_table(["", "base", "tuned", "difference"], rows)


def _figures(scores: Scores) -> dict[str, float | None]:
    """Measure, with its unit and the rows that it was taken on where these are not all -> value."""
    completed = f"({scores.num_completed} rows), %"
    shares = {
        "token accuracy, %": scores.token_accuracy,
        "P(stop) at the end, %": scores.stop_probability,
        f"exact match {completed}": scores.exact_match,
        **{f"· {match.group} ({match.num_rows} rows), %": match.exact_match for match in scores.groups},
        f"stops by itself {completed}": scores.stop_share,
    }
    return {
        "loss, nats/token": scores.loss,
        "perplexity": scores.perplexity,
        **{name: None if share is None else 100 * share for name, share in shares.items()},
    }


def _write(result: EvaluateResult, stream: TextIO) -> None:
    record = result.record()
    for name, scores in (("base", result.base), ("tuned", result.tuned)):
        if scores is not None:
            record[name]["completions"] = [asdict(attempt) for attempt in scores.attempts]
    json.dump(record, stream, ensure_ascii=False, indent=2)
    stream.write("\n")
