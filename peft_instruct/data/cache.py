"""A folder of finished work: each entry a few arrays and a page of JSON, read back only when every byte is as written.

No pickle, nothing half-written (an entry appears by one rename), nothing older than needed (the least used go first).
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from peft_instruct.whole_file import sha256_of

VARIABLE = "PEFT_INSTRUCT_CACHE"
OFF = ("off", "0", "false", "no")
MOST_BYTES = 4 << 30
SEAL = "seal.json"
"""Written last: the SHA-256 of every other file of the entry."""
NOTE = "note.json"
PARTIAL = ".peft-instruct-"
"""What an entry is named while it is written."""
MOST_WRITING_SECONDS = 24 * 3600
"""A partial entry that has not changed for so long was left by a process that was killed."""


@dataclass(frozen=True)
class Entry:
    """What was kept under a key: arrays, mapped into memory and not writable, and what JSON holds."""

    arrays: Mapping[str, np.ndarray]
    note: Any


@dataclass(frozen=True)
class Cache:
    """Entries by key.

    Attributes:
        folder: where they lie; None keeps nothing and has nothing.
        most_bytes: of all entries together; beyond it the ones not used for longest are removed.
    """

    folder: Path | None
    most_bytes: int = MOST_BYTES

    @classmethod
    def of_user(cls, wanted: bool = True) -> Cache:
        """The folder that PEFT_INSTRUCT_CACHE names (`off`: none), else the usual place of this system."""
        named = os.environ.get(VARIABLE, "")
        if not wanted or named.lower() in OFF:
            return cls(None)
        return cls(Path(named) if named else _usual_folder())

    def load(self, key: str) -> Entry | None:
        """The entry, or None where there is none; one that is not as it was written is removed."""
        if self.folder is None:
            return None
        place = self.folder / key
        try:
            sealed = json.loads((place / SEAL).read_bytes())
            if sealed != _hashes(place):
                raise ValueError("not as written")
            with suppress(OSError):  # a folder that is shared to be read
                os.utime(place)
            arrays = {name: np.load(place / name, mmap_mode="r", allow_pickle=False) for name in sealed if name != NOTE}
            note = json.loads((place / NOTE).read_bytes())
        except (OSError, ValueError):  # not there, or a wreck without its seal, in whose place none could be kept
            shutil.rmtree(place, ignore_errors=True)
            return None
        return Entry({name.removesuffix(".npy"): array for name, array in arrays.items()}, note)

    def store(self, key: str, entry: Entry) -> str:
        """Keep an entry; what stands under its key already stays.

        Returns:
            Why it could not be kept; empty where it was.
        """
        if self.folder is None:
            return ""
        partial = None
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            partial = Path(tempfile.mkdtemp(prefix=PARTIAL, dir=self.folder))
            for name, array in entry.arrays.items():
                np.save(partial / f"{name}.npy", array, allow_pickle=False)
            (partial / NOTE).write_text(json.dumps(entry.note), encoding="utf-8")
            (partial / SEAL).write_text(json.dumps(_hashes(partial)), encoding="utf-8")
            # Another process may have been first: its entry is as good.
            try:
                os.rename(partial, self.folder / key)
            except OSError:
                if not (self.folder / key).exists():
                    raise
            self._shrink(key)
        except OSError as error:
            return f"{self.folder}: cannot be written ({error.strerror})"
        finally:
            if partial is not None:
                shutil.rmtree(partial, ignore_errors=True)
        return ""

    def _shrink(self, kept: str) -> None:
        """Down to `most_bytes`; the entry just made stays, and so does what another process is writing."""
        assert self.folder is not None
        sizes: dict[Path, tuple[float, int]] = {}
        for place in self.folder.iterdir():
            with suppress(OSError):  # another process may be removing it
                used = place.stat().st_mtime
                if place.name.startswith(PARTIAL):
                    if time.time() - used > MOST_WRITING_SECONDS:
                        shutil.rmtree(place, ignore_errors=True)
                # The folder may be one in which others keep things, too.
                elif (place / SEAL).is_file():
                    sizes[place] = (used, sum(file.stat().st_size for file in place.iterdir()))
        total = sum(size for _, size in sizes.values())
        for place in sorted(sizes, key=lambda place: sizes[place][0]):
            if total > self.most_bytes and place.name != kept:
                shutil.rmtree(place, ignore_errors=True)
                total -= sizes[place][1]


def _hashes(place: Path) -> dict[str, str]:
    return {file.name: sha256_of(file) for file in sorted(place.iterdir()) if file.name != SEAL}


def _usual_folder() -> Path:
    if sys.platform == "win32":
        root = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        root = Path.home() / "Library" / "Caches"
    else:
        root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return root / "peft-instruct"
