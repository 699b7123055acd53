"""Files that must outlive a crash: hashed, flushed to the disk, and declared whole by a manifest written last."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from peft_instruct.errors import AdapterError, problems_of
from peft_instruct.whole_file import sha256_of, whole_file

MANIFEST = "manifest.json"
LOCK = "run.lock"
PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".pkl", ".ckpt")
MOST_MANIFEST_BYTES = 16 << 20
_UNSEALED = '"seal": ""'


class Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Sealed(Record):
    """What a manifest is besides its content; `seal` is over every byte of the file."""

    format_version: int
    seal: str = ""


AnySealed = TypeVar("AnySealed", bound=Sealed)


class FileStamp(Record):
    sha256: str
    num_bytes: int


def stamp(path: Path) -> FileStamp:
    return FileStamp(sha256=sha256_of(path), num_bytes=path.stat().st_size)


def damage(folder: Path, files: Mapping[str, FileStamp]) -> list[str]:
    """One problem for each file that is not as its stamp says; empty when all are."""
    problems = []
    for name, expected in files.items():
        file = folder / name
        if "\0" in name or not file.resolve().is_relative_to(folder.resolve()):
            problems.append(f"{name}: outside the folder.")
        elif not os.path.isfile(file):  # a Path asked for a name that is too long raises
            problems.append(f"{name}: missing.")
        elif file.stat().st_size != expected.num_bytes:
            problems.append(f"{name}: {file.stat().st_size} bytes. expected {expected.num_bytes}.")
        elif sha256_of(file) != expected.sha256:
            problems.append(f"{name}: its content was changed (SHA-256 differs).")
    return problems


def pickles(folder: Path) -> list[str]:
    """One problem for each file of a folder that is by its name a pickle, which may run code when it is read."""
    return [
        f"{file.name}: a pickle, which can run code. Nothing of ours writes one here; remove it."
        for file in sorted(folder.iterdir())
        if file.suffix in PICKLE_SUFFIXES
    ]


def seal(text: str) -> str:
    """A JSON text whose empty `seal` is filled with the SHA-256 of the rest, so that a changed byte of it is seen."""
    if text.count(_UNSEALED) != 1:
        raise ValueError("the text needs one empty seal")
    return text.replace(_UNSEALED, f'"seal": "{hashlib.sha256(text.encode()).hexdigest()}"')


def is_sealed(text: str, digest: str) -> bool:
    """Whether `text` is what `seal` made, byte for byte."""
    bare = text.replace(f'"seal": "{digest}"', _UNSEALED, 1)
    return bool(digest) and hashlib.sha256(bare.encode()).hexdigest() == digest


def read_sealed(path: Path, kind: type[AnySealed], format_version: int, advice: str = "") -> AnySealed:
    """The manifest in a file. An empty seal is left to the caller: what an earlier version wrote has none.

    Args:
        advice: a sentence for a manifest that is damaged.

    Raises:
        AdapterError: larger than any of ours, no such manifest, one whose content was changed, or another version's.
    """
    try:
        if path.stat().st_size > MOST_MANIFEST_BYTES:
            raise AdapterError(f"{path}: larger than {MOST_MANIFEST_BYTES} bytes, which no manifest of ours is.")
        text = path.read_bytes().decode("utf-8")
        manifest = kind.model_validate_json(text)
    except ValidationError as error:
        raise AdapterError(f"{path}: damaged ({problems_of(error)[0].rstrip('.')}).{advice}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise AdapterError(f"{path}: damaged ({error}).{advice}") from error
    if manifest.format_version != format_version:
        raise AdapterError(f"{path}: format {manifest.format_version}. this version reads {format_version}.")
    if manifest.seal and not is_sealed(text, manifest.seal):
        raise AdapterError(f"{path}: damaged (its content was changed).{advice}")
    return manifest


def write_last(path: Path, text: str) -> None:
    """Write a file, and its name in the folder, onto the disk."""
    with whole_file(path) as stream:
        stream.write(text)
    sync_folder(path.parent)


def sync_tree(folder: Path) -> None:
    """Every file and folder beneath onto the disk, and the folder itself."""
    for path in folder.rglob("*"):
        if path.is_file():
            _sync(path)
        elif path.is_dir():
            sync_folder(path)
    sync_folder(folder)


def sync_folder(folder: Path) -> None:
    """The names in a folder onto the disk, where the system knows such a thing."""
    if hasattr(os, "O_DIRECTORY"):
        _sync(folder)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
