"""manifest.json: what the weights of a folder are, where they came from, and how they must be prompted."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from peft_instruct.adapter.storage import (
    LOCK,
    MANIFEST,
    FileStamp,
    Record,
    Sealed,
    damage,
    pickles,
    read_sealed,
    seal,
    stamp,
    write_last,
)
from peft_instruct.data.templates import GOLDEN_EXAMPLES, Template
from peft_instruct.data.tokens import prompt_ids
from peft_instruct.data.units import text_ids
from peft_instruct.environment import seen_from
from peft_instruct.errors import AdapterError
from peft_instruct.model.base import Base
from peft_instruct.model.location import STARTER, Location, weight_fingerprint
from peft_instruct.recipe.schema import GenerationSection

FORMAT_VERSION = 1
FOR_PEOPLE = frozenset({"README.md", "report.html", "loss.svg", "metrics.jsonl"})
"""Files that nothing is computed from: a card may be edited for the hub."""


class BaseIdentity(Record):
    """Which base the weights belong to.

    Attributes:
        id: a hub id, `starter`, or the name of a folder.
        relative_path: of a folder, as seen from the adapter; empty for the others. Never absolute.
        fingerprint: SHA-256 of the base's weight files; empty for a base made from random weights.
    """

    id: str
    revision: str = ""
    relative_path: str = ""
    model_type: str
    fingerprint: str
    quantization: str = "none"

    @property
    def for_other_tools(self) -> str | None:
        """What they load the base by. The name of a folder may be that of a model of the hub (`gpt2`), which they would
        put under the adapter."""
        return None if self.relative_path else self.id


class TemplateRecord(Record):
    """A `Template`, field for field."""

    name: str
    with_input: str
    without_input: str
    with_system: str = ""
    follow_up: str = ""
    answer: str = "{answer}"
    stop: str = ""
    strips: bool = False


class GoldenIds(Record):
    """The ids that a fixed example must have, now and whenever the adapter is used."""

    prompt: list[int]
    completion: list[int]


class AdapterManifest(Sealed):
    format_version: int = FORMAT_VERSION
    name: str
    kind: Literal["lora", "full", "merged"]
    created: str
    base: BaseIdentity
    template: TemplateRecord
    golden: list[GoldenIds] = Field(min_length=len(GOLDEN_EXAMPLES), max_length=len(GOLDEN_EXAMPLES))
    generation: GenerationSection
    recipe_sha256: str
    data_fingerprint: str
    environment: dict[str, Any]
    metrics: dict[str, Any] = Field(default_factory=dict)
    proofs: dict[str, Any] = Field(default_factory=dict)
    files: dict[str, FileStamp]

    def prompt_template(self) -> Template:
        return Template(**self.template.model_dump())


def template_record(template: Template) -> TemplateRecord:
    return TemplateRecord.model_validate(asdict(template))


def identity_of(base: Base, adapter_folder: Path, init: str) -> BaseIdentity:
    location = base.location
    is_folder = not location.revision and location.id != STARTER
    return BaseIdentity(
        id=location.folder.resolve().name if is_folder else location.id,
        revision=location.revision,
        relative_path=seen_from(location.folder.resolve(), adapter_folder.resolve()) if is_folder else "",
        model_type=base.model_type,
        fingerprint=weight_fingerprint(location) if init == "pretrained" else "",
        quantization=base.quantization,
    )


def check_base(identity: BaseIdentity, location: Location, place: str) -> None:
    """Refuse a base whose weights are not those that the adapter was trained on.

    Raises:
        AdapterError: another base, or another version of it.
    """
    found = weight_fingerprint(location)
    if found != identity.fingerprint:
        raise AdapterError(
            f"{place}: trained on {identity.id} with weights {identity.fingerprint[:12]}…, but {location.id!r} has "
            f"{found[:12]}…. An adapter on another base of the same shape gives nonsense. Name the right one "
            "with --base."
        )


def golden_ids(tokenizer: Any, template: Template) -> list[GoldenIds]:
    prompts = prompt_ids(tokenizer, [template.prompt(e.instruction, e.input) for e in GOLDEN_EXAMPLES])
    completions = text_ids(tokenizer, [template.completion(e.output) for e in GOLDEN_EXAMPLES])
    return [
        GoldenIds(prompt=prompt, completion=[*completion, tokenizer.eos_token_id])
        for prompt, completion in zip(prompts, completions, strict=True)
    ]


def check_golden(manifest: AdapterManifest, tokenizer: Any, place: str) -> None:
    """Refuse a tokenizer or template that no longer gives the ids of training.

    Raises:
        AdapterError: naming the first id that differs.
    """
    now = golden_ids(tokenizer, manifest.prompt_template())
    for number, (then, here) in enumerate(zip(manifest.golden, now, strict=True), start=1):
        if then != here:
            pairs = zip([*then.prompt, *then.completion], [*here.prompt, *here.completion], strict=False)
            at = next((i for i, (a, b) in enumerate(pairs) if a != b), "the end")
            raise AdapterError(
                f"{place}: the tokenizer gives other ids than in training (golden example {number}, token {at}). "
                "Restore the tokenizer files of its base, or name the right base with --base."
            )


def stamp_files(folder: Path) -> dict[str, FileStamp]:
    """Hash and size of every file that belongs to the folder's content (no manifest, no lock, no checkpoints)."""
    return {
        path.relative_to(folder).as_posix(): stamp(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in (MANIFEST, LOCK) and "checkpoints" not in path.relative_to(folder).parts
    }


def write_manifest(folder: Path, manifest: AdapterManifest) -> None:
    """Write manifest.json in one step, last of all files: a folder without it is not an adapter."""
    unsealed = manifest.model_copy(update={"seal": ""})
    write_last(folder / MANIFEST, seal(unsealed.model_dump_json(indent=2) + "\n"))


def read_manifest(folder: Path) -> AdapterManifest:
    """The manifest of a folder whose files are all as they were written.

    Raises:
        AdapterError: no adapter, an unfinished or damaged one; every damaged file is named.
    """
    path = folder / MANIFEST
    if not folder.is_dir():
        raise AdapterError(f"{folder}: no such folder. expected one that `peft-instruct train` or `merge` wrote.")
    if not path.is_file():
        raise AdapterError(
            f"{folder}: no {MANIFEST}, so it is not a finished adapter. Train again, or name a finished one."
        )
    manifest = read_sealed(path, AdapterManifest, FORMAT_VERSION, " Restore it, or train again.")
    problems = _damage(folder, manifest)
    if problems:
        raise AdapterError.of(str(folder), problems)
    return manifest


def _damage(folder: Path, manifest: AdapterManifest) -> list[str]:
    read = {name: expected for name, expected in manifest.files.items() if name not in FOR_PEOPLE}
    return [*damage(folder, read), *pickles(folder)]
