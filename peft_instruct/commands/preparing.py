"""What a run begins with, the cheap things first: the rows, then the base, then the tokens that it is given."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from peft_instruct.data.cache import Cache
from peft_instruct.data.prepare import InstructionData
from peft_instruct.data.prepared import Preparation
from peft_instruct.data.stopping import stop_warning
from peft_instruct.data.tokens import start_ids
from peft_instruct.data.types import LengthReport, PromptCompletion, Tokens
from peft_instruct.environment import HubState
from peft_instruct.errors import UnavailableError
from peft_instruct.model.base import Base, check_lengths, load_base
from peft_instruct.model.device import Compute, choose_compute
from peft_instruct.model.dropout import has_dropout
from peft_instruct.model.families import resolve_targets
from peft_instruct.model.head import check_head
from peft_instruct.model.location import Location, locate, weight_fingerprint
from peft_instruct.model.tokenizer import template_in
from peft_instruct.recipe import Recipe

Say = Callable[[str], None]
MOST_ORIGINS_SAID = 5


@dataclass(frozen=True)
class Rows:
    """What is known before any weight is loaded.

    Attributes:
        tokenizer: where a tokenizer is that is not the base's own.
    """

    data: InstructionData
    preparation: Preparation
    compute: Compute
    tokenizer: Location | None


@dataclass(frozen=True)
class Prepared:
    """Everything that a run learns from, checked.

    Attributes:
        notes: what was said of lengths and stop tokens, for the report.
    """

    data: InstructionData
    base: Base
    train: Sequence[Tokens]
    validation: Sequence[Tokens]
    notes: tuple[str, ...]


def read_rows(recipe: Recipe, location: Location, hub: HubState, say: Say) -> Rows:
    """The rows of a recipe, and the device that it will run on.

    Raises:
        PeftInstructError: everything that can be wrong with them, with the device or with the length limit.
    """
    compute = choose_compute(recipe.training.device, recipe.training.precision)
    check_lengths(location, recipe.data.max_length, recipe.model.architecture)
    tokenizer = tokenizer_location(recipe, hub)
    preparation = preparation_of(recipe, location, tokenizer, say)
    data = preparation.data()
    for note in data.notes:
        say(note)
    return Rows(data, preparation, compute, tokenizer)


def prepare(rows: Rows, recipe: Recipe, location: Location, say: Say) -> Prepared:
    """The base, and the rows as its tokens.

    Raises:
        ModelError: the base is unusable, has no place for the adapter, or no head of the usual kind.
        DatasetError: no row is left within the length limit.
    """
    data = rows.data
    base = load_base(
        recipe.model,
        location,
        rows.compute,
        tokenizer_location=rows.tokenizer,
        stop=data.template.stop,
        seed=recipe.training.seed,
    )
    say(f"{recipe.model.base} on {rows.compute}")
    check_head(base.model, base.model_type)
    check_on_mps(recipe, base)
    if recipe.method.kind == "lora":
        resolve_targets(base.model, base.model_type, recipe.method.targets)
    notes: list[str] = []

    def tokens_of(split: str, those: Sequence[PromptCompletion]) -> Sequence[Tokens]:
        tokens, report = rows.preparation.rows(split, those, base.tokenizer)
        notes.append(_lengths_line(split, report, len(tokens)))
        say(notes[-1])
        return tokens

    train = tokens_of("train", data.train)
    validation = tokens_of("validation", data.validation) if data.validation else []
    warning = stop_warning(train, base.tokenizer.eos_token_id, len(start_ids(base.tokenizer)))
    if warning:
        notes.append(warning)
        say(warning)
    return Prepared(data, base, train, validation, tuple(notes))


def check_on_mps(recipe: Recipe, base: Base) -> None:
    """Raises UnavailableError for what torch or a library does wrongly there, in silence or at a crawl."""
    if base.compute.device != "mps":
        return
    if recipe.training.gradient_checkpointing is True and (has_dropout(base.model) or recipe.method.dropout):
        raise UnavailableError(
            "training.gradient_checkpointing: on MPS activations are recomputed with another dropout (torch 2.13, "
            "utils/checkpoint.py:1638), and the gradients are wrong. Set dropout to 0, or gradient_checkpointing: auto."
        )
    if recipe.training.optimizer == "adamw_8bit":
        raise UnavailableError(
            "training.optimizer: adamw_8bit runs on the CPU there, every step (bitsandbytes 0.50). Use adamw."
        )


def tokenizer_location(recipe: Recipe, hub: HubState) -> Location | None:
    """Of a tokenizer that is not the base's own."""
    other = recipe.model.tokenizer
    return locate(other, "main", hub, "model.tokenizer") if other else None


def preparation_of(recipe: Recipe, location: Location, tokenizer: Location | None, say: Say) -> Preparation:
    """The recipe's rows, yet to be read.

    Raises:
        ModelError, RecipeError: the tokenizer's own template is asked for and cannot be used.
    """
    template = template_in((tokenizer or location).folder, recipe.data.template)
    return Preparation(recipe.data, recipe.training.seed, Cache.of_user(recipe.speed.cache), template, say)


def base_fingerprint(recipe: Recipe, location: Location) -> str:
    """SHA-256 of the base's weight files; empty where they are not what training begins with."""
    return weight_fingerprint(location) if recipe.model.init == "pretrained" else ""


def _lengths_line(split: str, report: LengthReport, num_rows: int) -> str:
    """Rows and tokens of a split, and every loss to the length limit with where it happened."""
    share = report.num_completion_tokens / max(report.num_tokens, 1)
    line = (
        f"{split}: {num_rows} rows, {report.num_tokens:,} tokens, {share:.0%} of them completions, "
        f"longest {report.longest}{' before the cut' if report.truncated or report.stopless else ''}"
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
