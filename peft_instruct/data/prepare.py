"""The data section of a recipe -> training, validation and test rows, with a fingerprint of what they are."""

from __future__ import annotations

import gc
import hashlib
import json
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from peft_instruct.data.formats import Format, detect_format
from peft_instruct.data.json_rows import json_span, json_text
from peft_instruct.data.reader import RowReader, has_lone_surrogate
from peft_instruct.data.sources import files_of, read_rows
from peft_instruct.data.splits import split_rows
from peft_instruct.data.templates import AS_IS, Template, template_of
from peft_instruct.data.types import Prompt, PromptCompletion
from peft_instruct.errors import DatasetError
from peft_instruct.recipe.data_section import DataSection, Source

ROWS_AT_ONCE = 1024
MOST_LISTED = 20
"""Rows named in a note; the count is always whole."""
TEMPLATED = ("alpaca", "question_answer", "messages", "sharegpt")
LOST = {"{input}": "an input", "prompt_with_system": "a system message", "follow_up": "earlier messages"}
"""What of a row a template may have no place for, by the key that gives it one."""


@dataclass(frozen=True)
class InstructionData:
    """The rows of a run.

    Attributes:
        template: how the prompts were made, and how the adapter must be prompted.
        fingerprint: SHA-256 over every row of every split; equal data, template and seed give an equal one.
        notes: what a reader of the log should know (format found, columns ignored).
    """

    train: Sequence[PromptCompletion]
    validation: list[PromptCompletion]
    test: list[PromptCompletion]
    template: Template
    fingerprint: str
    notes: tuple[str, ...]


@contextmanager
def without_collector() -> Iterator[None]:
    """Rows refer to nothing in circles; to look for circles among half a million of them takes as long as to read."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


@without_collector()
def read_instruction_data(section: DataSection, seed: int, template: Template | None = None) -> InstructionData:
    """Read, check, render and split everything that the section names.

    Args:
        template: in place of the section's: an adapter's own, or the tokenizer's.

    Raises:
        DatasetError: a source is missing, broken, or leaves no training row.
    """
    read = _read_all(section, template)
    rows, notes = [row for found in read for row in found.rows], [note for found in read for note in found.notes]
    num_validation = 0 if section.validation else _share(len(rows), section.validation_fraction)
    num_test = 0 if section.test else _share(len(rows), section.test_fraction)
    num_train = len(rows) - num_validation - num_test
    if num_train < 1:
        raise DatasetError(
            f"{section.train_name()}: {len(rows)} rows leave none for training after {num_validation} for validation "
            f"and {num_test} for test. Add rows, or lower data.validation_fraction."
        )
    split = split_rows(rows, num_validation, num_test, seed=seed, by=section.split)
    notes += split.notes
    train = mixed(split.train, [(found.source, {row.origin for row in found.rows}) for found in read], seed)
    used = next((found.template for found in read if found.template is not AS_IS), AS_IS)
    validation, test = split.validation, split.test
    # Of rows that are prompts already no template was learned.
    if section.validation:
        validation, _, more = read_source(section.validation, section, used)
        notes += more
    if section.test:
        test, _, more = read_source(section.test, section, used)
        notes += more
    train = train[: section.limit]
    return InstructionData(train, validation, test, used, _fingerprint((train, validation, test), used), tuple(notes))


@dataclass(frozen=True)
class _Read:
    source: Source
    rows: list[PromptCompletion]
    template: Template
    notes: list[str]


def _read_all(section: DataSection, template: Template | None) -> list[_Read]:
    """Every source of training rows, each once."""
    sources = section.sources()
    named: dict[str, str] = {}
    for source in sources:
        # One file may be spelled in several ways.
        files = {str(Path(file).resolve()): file for file in files_of(source.source)} or {source.source: source.source}
        for place, file in files.items():
            if place in named:
                spelled = "" if named[place] == file else f", as {named[place]} too,"
                raise DatasetError(f"data.train: {file}{spelled} is named by two sources. Name it once, with a weight.")
        named |= files
    return [_Read(source, *read_source(source, section, template)) for source in sources]


def mixed(
    rows: Sequence[PromptCompletion], origins: Sequence[tuple[Source, set[str]]], seed: int
) -> list[PromptCompletion]:
    """Training rows in the weights or counts of their sources, in a seeded order; as they are where none has any.

    Held-out rows are parted from them before, so what is repeated here is on one side of the split.

    Args:
        origins: each source with the origins of its rows.
    """
    if all(source.weight in (None, 1) and source.rows is None for source, _ in origins):
        return list(rows)
    chance = random.Random(seed)
    chosen: list[PromptCompletion] = []
    for source, those in origins:
        own = [row for row in rows if row.origin in those]
        wanted = source.rows or max(1, round(len(own) * (source.weight or 1)))
        whole, rest = divmod(wanted, len(own)) if own else (0, 0)
        chosen += own * whole + chance.sample(own, rest)
    chance.shuffle(chosen)
    return chosen


def read_source(
    source: str | Source, section: DataSection, template: Template | None = None
) -> tuple[list[PromptCompletion], Template, list[str]]:
    """Every row of one source as prompts and completions, the template they were rendered with, and notes.

    Args:
        template: in place of the section's.

    Raises:
        DatasetError: as `read_rows` and the formats do.
    """
    source = Source(source=source) if isinstance(source, str) else source
    asked = template or template_of(section.template)
    pairs: list[PromptCompletion] = []
    notes: list[str] = []
    reasons: list[str] = []
    used = AS_IS
    for file in files_of(source.source) or [source.source]:
        found, form, more, left_out = _read_file(file, source, section, asked)
        pairs += found
        notes += more + [f"{file}: {reason}" for reason in left_out]
        reasons += left_out
        used = asked if form.name in TEMPLATED else used
    if not pairs:
        raise DatasetError(f"{source.source}: no row is left. {' '.join(reasons)}")
    return pairs, used, notes


def _read_file(
    file: str, source: Source, section: DataSection, template: Template
) -> tuple[list[PromptCompletion], Format, list[str], list[str]]:
    """The rows, their format, notes, and what was left out with the reasons."""
    if has_lone_surrogate(file):  # a folder or pattern may hold such a name; every row is named by it, in files too
        raise DatasetError(f"{file}: the file's name is not UTF-8. Rename it.")
    found = read_rows(file, source.revision or section.revision)
    form = detect_format(found.rows, source.format or section.format, source.columns or section.columns, file)
    reader = RowReader(form)
    pairs = reader.read(found.rows, template)
    problems = reader.problems + ([*reader.empty, *reader.unusable] if section.empty == "error" else [])
    if problems:
        raise DatasetError.of(file, problems)
    for key, origins in reader.lost.items():
        raise DatasetError(
            f"{file}: {len(origins)} rows have {LOST[key]} (first {origins[0]}), but data.template has no {key} for "
            f"it: it would be lost. Add one, or choose another template."
        )
    notes = [f"{file}: {len(found.rows)} rows, format {form.name} ({form.reason})"]
    if form.ignored:
        notes.append(f"{file}: columns not used: {', '.join(form.ignored)}")
    if form.name not in TEMPLATED and "template" in section.model_fields_set:
        notes.append(f"{file}: data.template is not applied, the rows are {form.name} already")
    notes += [f"{file}: {count} conversations {what}" for what, count in reader.notes.items()]
    left_out = []
    for origins, what in ((reader.empty, " as empty"), (reader.unusable, "")):
        if origins:
            more = "; …" if len(origins) > MOST_LISTED else ""
            left_out.append(f"{len(origins)} rows left out{what}: {'; '.join(origins[:MOST_LISTED])}{more}")
    return pairs, form, notes, left_out


def _share(count: int, fraction: float) -> int:
    return max(1, round(count * fraction)) if fraction else 0


def _fingerprint(splits: Sequence[Sequence[PromptCompletion]], template: Template) -> str:
    named = {"name": template.name, "with_input": template.with_input, "without_input": template.without_input}
    digest = hashlib.sha256(json.dumps(named, sort_keys=True).encode())
    for rows in splits:
        digest.update(b"\x00split\x00")
        for start in range(0, len(rows), ROWS_AT_ONCE):
            digest.update("".join(map(_row_as_json, rows[start : start + ROWS_AT_ONCE])).encode())
    return digest.hexdigest()


def _row_as_json(row: PromptCompletion) -> str:
    prompt = row.prompt
    # Where a conversation's earlier answers stand in its prompt the text alone does not tell.
    spans = prompt.spans if isinstance(prompt, Prompt) and prompt.has_answers else ()
    answers = "".join([f", {json_span(span)}" for span in spans])
    return f"[{json_text(prompt)}, {json_text(row.completion)}{answers}]"
