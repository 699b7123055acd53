"""The data section of a recipe -> training, validation and test rows, with a fingerprint of what they are."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from peft_instruct.data.formats import RowReader, detect_format
from peft_instruct.data.sources import read_rows
from peft_instruct.data.templates import AS_IS, Template, template_of
from peft_instruct.data.types import PromptCompletion
from peft_instruct.errors import DatasetError
from peft_instruct.recipe.schema import DataSection

MOST_LISTED = 20
"""Rows named in a note; the count is always whole."""


@dataclass(frozen=True)
class InstructionData:
    """The rows of a run.

    Attributes:
        template: how the prompts were made, and how the adapter must be prompted.
        fingerprint: SHA-256 over every row of every split; equal data, template and seed give an equal one.
        notes: what a reader of the log should know (format found, columns ignored).
    """

    train: list[PromptCompletion]
    validation: list[PromptCompletion]
    test: list[PromptCompletion]
    template: Template
    fingerprint: str
    notes: tuple[str, ...]


def read_instruction_data(section: DataSection, seed: int) -> InstructionData:
    """Read, check, render and split everything that the section names.

    Raises:
        DatasetError: a source is missing, broken, or leaves no training row.
    """
    rows, template, notes = read_source(section.train, section)
    shuffled = list(rows)
    random.Random(seed).shuffle(shuffled)
    num_validation = 0 if section.validation else _share(len(rows), section.validation_fraction)
    num_test = 0 if section.test else _share(len(rows), section.test_fraction)
    num_train = len(rows) - num_validation - num_test
    if num_train < 1:
        raise DatasetError(
            f"{section.train}: {len(rows)} rows leave none for training after {num_validation} for validation and "
            f"{num_test} for test. Add rows, or lower data.validation_fraction."
        )
    train = shuffled[:num_train][: section.limit]
    validation = shuffled[num_train : num_train + num_validation]
    test = shuffled[num_train + num_validation :]
    if section.validation:
        validation = read_source(section.validation, section)[0]
    if section.test:
        test = read_source(section.test, section)[0]
    return InstructionData(
        train, validation, test, template, _fingerprint((train, validation, test), template), tuple(notes)
    )


def read_source(source: str, section: DataSection) -> tuple[list[PromptCompletion], Template, list[str]]:
    """Every row of one source as prompts and completions, the template they were rendered with, and notes.

    Raises:
        DatasetError: as `read_rows` and the formats do.
    """
    found = read_rows(source, section.revision)
    form = detect_format(found.rows, section.format, section.columns, source)
    notes = [f"{source}: {len(found.rows)} rows, format {form.name}"]
    if form.ignored:
        notes.append(f"{source}: columns not used: {', '.join(form.ignored)}")
    template = template_of(section.template) if form.name == "alpaca" else AS_IS
    if template is AS_IS and "template" in section.model_fields_set:
        notes.append(f"{source}: data.template is not applied, the rows are {form.name} already")
    if form.name == "alpaca" and "{input}" not in template.with_input:
        column = form.columns.get("input", "")
        lost = [row.origin for row in found.rows if str(row.values.get(column) or "").strip()]
        if lost:
            raise DatasetError(
                f"{source}: {len(lost)} rows have an input (first {lost[0]}), but data.template.prompt has no "
                "{input}: it would be lost. Add {input} to the template."
            )
    reader = RowReader(form)
    pairs = reader.read(found.rows, template)
    problems = reader.problems + (reader.empty if section.empty == "error" else [])
    if problems:
        raise DatasetError.of(source, problems)
    if reader.empty:
        notes.append(f"{source}: {len(reader.empty)} rows left out as empty: {'; '.join(reader.empty[:MOST_LISTED])}")
    if not pairs:
        raise DatasetError(f"{source}: every row is empty. expected rows with an instruction and an output.")
    return pairs, template, notes


def _share(count: int, fraction: float) -> int:
    return max(1, round(count * fraction)) if fraction else 0


def _fingerprint(splits: Sequence[Sequence[PromptCompletion]], template: Template) -> str:
    digest = hashlib.sha256(json.dumps(asdict(template), sort_keys=True).encode())
    for rows in splits:
        digest.update(b"\x00split\x00")
        for row in rows:
            digest.update(json.dumps([row.prompt, row.completion], ensure_ascii=False).encode())
    return digest.hexdigest()
