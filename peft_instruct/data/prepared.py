"""Preparation that is done once: the rows of a data section and their tokens, out of the cache where nothing changed.

What decides the rows is in the key: the content of every file, the data section, the seed, the tokenizer, this room's
own source and the libraries that read and cut text. `datasets`' own cache is not used: it takes a file of the same
size and time for the same file, and does not see a change in an installed package.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from peft_instruct.data.cache import Cache, Entry
from peft_instruct.data.columns import RowColumns, Texts, arrays_of
from peft_instruct.data.prepare import InstructionData, read_instruction_data, without_collector
from peft_instruct.data.sources import files_of, is_hub_id, local_file
from peft_instruct.data.table import TokenTable
from peft_instruct.data.template import Template
from peft_instruct.data.templates import template_of
from peft_instruct.data.tokens import model_rows
from peft_instruct.data.types import LengthReport, PromptCompletion
from peft_instruct.data.units import Tokenizer
from peft_instruct.recipe.data_section import DataSection, Source
from peft_instruct.whole_file import sha256_of

Say = Callable[[str], None]
SPLITS = ("train", "validation", "test")
DECIDING_LIBRARIES = ("tokenizers", "transformers", "datasets", "pyarrow", "numpy")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_ONLY_TOKENS = {"max_length", "overlong", "packing"}
"""Keys of the data section that play no part before rows become tokens."""


@dataclass
class Preparation:
    """The rows of a run and their tokens, from the cache or made and kept there; the same either way.

    Attributes:
        template: in place of the section's.
        say: told what came out of the cache, and why something could not be kept.
    """

    section: DataSection
    seed: int
    cache: Cache
    template: Template | None = None
    say: Say = field(default=lambda line: None)
    _key: str | None = None

    @without_collector()
    def data(self) -> InstructionData:
        """As `read_instruction_data`.

        Raises:
            DatasetError: as there.
        """
        self._key = self._data_key()
        if self._key is None:
            return read_instruction_data(self.section, self.seed, self.template)
        found = self.cache.load(self._key)
        if found is not None:
            self.say(f"data: rows as prepared before ({self._key[:12]}, from the cache)")
            return _data_of(found)
        data = read_instruction_data(self.section, self.seed, self.template)
        # A file that was written to meanwhile is not the one of the key.
        if self._data_key() == self._key:
            self._keep(self._key, _entry_of(data))
        else:
            self._key = None
        return data

    @without_collector()
    def rows(
        self, split: str, rows: Sequence[PromptCompletion], tokenizer: Tokenizer
    ) -> tuple[TokenTable, LengthReport]:
        """As `model_rows`, of one split of `data()`.

        Raises:
            DatasetError: as there.
        """
        tokenizer_key = None if self._key is None else _tokenizer_key(tokenizer)
        if tokenizer_key is None:
            return model_rows(rows, tokenizer, self.section)
        limits = self.section.model_dump(include=_ONLY_TOKENS)
        key = _hash([self._key, split, limits, tokenizer_key])
        found = self.cache.load(key)
        if found is not None:
            self.say(f"{split}: tokens as prepared before ({key[:12]}, from the cache)")
            return _table_of(found), LengthReport(**found.note)
        table, report = model_rows(rows, tokenizer, self.section)
        arrays = {"ids": table.ids, "learned": table.learned, "offsets": table.offsets}
        self._keep(key, Entry(arrays | Texts.of(table.origins).arrays("origins"), asdict(report)))
        return table, report

    def _keep(self, key: str, entry: Entry) -> None:
        refused = self.cache.store(key, entry)
        if refused:
            self.say(f"cache: {refused}; the next run prepares the rows again")

    def _data_key(self) -> str | None:
        """None where the content cannot be known without reading all of it, or where it is wrong anyway."""
        section = self.section
        if self.cache.folder is None:
            return None
        contents = list(_contents(section))
        if None in contents:
            return None
        named = section.model_dump(mode="json", exclude={*_ONLY_TOKENS, "template"})
        template = asdict(self.template or template_of(section.template))
        given = sorted(section.model_fields_set - _ONLY_TOKENS)
        return _hash([named, given, template, self.seed, contents, _makers()])


def _entry_of(data: InstructionData) -> Entry:
    arrays: dict[str, np.ndarray] = {}
    for split in SPLITS:
        arrays |= arrays_of(getattr(data, split), split)
    return Entry(arrays, {"template": asdict(data.template), "fingerprint": data.fingerprint, "notes": data.notes})


def _data_of(entry: Entry) -> InstructionData:
    train, validation, test = (RowColumns(entry.arrays, split) for split in SPLITS)
    note = entry.note
    # The held-out rows are few and all of them are read.
    return InstructionData(
        train, list(validation), list(test), Template(**note["template"]), note["fingerprint"], tuple(note["notes"])
    )


def _table_of(entry: Entry) -> TokenTable:
    arrays = entry.arrays
    return TokenTable(arrays["ids"], arrays["learned"], arrays["offsets"], Texts.within(arrays, "origins"))


def _contents(section: DataSection) -> Iterator[tuple[str, str] | None]:
    """Every file that is read, by name and by content."""
    held_out = [Source(source=name) for name in (section.validation, section.test) if name]
    for source in (*section.sources(), *held_out):
        for file in files_of(source.source) or [source.source]:
            content = _content(file, source.revision or section.revision)
            yield None if content is None else (file, content)


def _content(source: str, revision: str) -> str | None:
    """What a source holds, in a few characters: the commit of a hub id, the hash of a file."""
    if is_hub_id(source):
        return revision if _COMMIT.fullmatch(revision) else None
    path = local_file(source)
    try:
        return sha256_of(path) if os.path.isfile(path) else None
    except OSError:
        return None


def _tokenizer_key(tokenizer: Any) -> str | None:
    """Everything that a tokenizer's ids come from; None for one written in Python, which does not show it."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return None
    ends = [tokenizer.bos_token_id, tokenizer.eos_token_id, getattr(tokenizer, "sep_token_id", None)]
    return _hash([type(tokenizer).__name__, backend.to_str(), ends, sorted(map(str, tokenizer.all_special_tokens))])


@lru_cache(maxsize=1)
def _makers() -> list[str]:
    """This room's source, so that no edit of it is missed, and the versions of what it calls."""
    sources = sorted(Path(__file__).parent.glob("*.py"))
    return [*map(sha256_of, sources), *map(_version, ("peft-instruct", *DECIDING_LIBRARIES))]


def _version(name: str) -> str:
    try:
        return f"{name} {version(name)}"
    except PackageNotFoundError:
        return name


def _hash(parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
