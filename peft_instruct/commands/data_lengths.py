"""The rows of a recipe with the tokenizer that it trains with, for what is looked at and not trained."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from peft_instruct.commands.hub_ids import hub_ids_of
from peft_instruct.data.checks.catalogue import Finding
from peft_instruct.data.prepare import InstructionData, read_instruction_data
from peft_instruct.data.tokens import tokenize
from peft_instruct.environment import prepare_environment
from peft_instruct.model.location import locate
from peft_instruct.model.tokenizer import load_tokenizer, template_in
from peft_instruct.recipe import Recipe

UNREADABLE = ("missing-column", "not-text", "bad-conversation", "lone-surrogate", "broken-record")


def rows_and_tokenizer(recipe: Recipe) -> tuple[InstructionData, Any]:
    """What `train` would read, each row once, and the tokenizer it would use; no weights are read.

    The split does not look for near-duplicates: no row is another's business here, and that takes its time.

    Raises:
        PeftInstructError: the rows or the tokenizer are not there or not usable.
    """
    hub = prepare_environment(hub_ids_of(recipe))
    other = recipe.model.tokenizer
    place = "model.tokenizer" if other else "model.base"
    location = locate(other or recipe.model.base, "main" if other else recipe.model.revision, hub, place)
    template = template_in(location.folder, recipe.data.template, place)
    once = [source.model_copy(update={"weight": None, "rows": None}) for source in recipe.data.sources()]
    section = recipe.data.model_copy(update={"split": "rows", "limit": None, "train": once})
    data = read_instruction_data(section, recipe.training.seed, template)
    return data, load_tokenizer(location.folder, place, data.template.stop)


def overlong(recipe: Recipe, found: Sequence[Finding]) -> list[Finding] | None:
    """Rows of more than `max_length` tokens; None where they are not looked for: there are rows that `train` refuses,
    or none is too long because all are joined."""
    if recipe.data.packing or any(finding.code in UNREADABLE for finding in found):
        return None
    data, tokenizer = rows_and_tokenizer(recipe)
    tokens, _ = tokenize([*data.train, *data.validation, *data.test], tokenizer, max_length=sys.maxsize)
    limit = recipe.data.max_length
    return [
        Finding("overlong", row.origin, "", f"{len(row.input_ids)} tokens, data.max_length is {limit}")
        for row in tokens
        if len(row.input_ids) > limit
    ]
