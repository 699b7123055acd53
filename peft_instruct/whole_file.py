"""Files as a whole: there, or as they were before (after an error, on a full disk, after a crash), and their hash."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

BLOCK_BYTES = 1 << 20


def blocks_of(path: Path) -> Iterator[bytes]:
    """A file that may be larger than memory, some of it at a time."""
    with path.open("rb") as stream:
        while block := stream.read(BLOCK_BYTES):
            yield block


def sha256_of(path: Path) -> str:
    digest = hashlib.sha256()
    for block in blocks_of(path):
        digest.update(block)
    return digest.hexdigest()


def partial_file(path: Path) -> Path:
    """Where a file is written until it is finished."""
    return path.with_name(f".{path.name}.partial")


@contextmanager
def whole_file(path: Path, *, keeps: bool = False) -> Iterator[TextIO]:
    """A text file, in UTF-8 with plain line ends, that appears under its name when the block is done.

    Args:
        keeps: of a block that fails, what it has written stays in `partial_file`.

    Raises:
        OSError: it cannot be written there.
    """
    partial = partial_file(path)
    try:
        with partial.open("w", encoding="utf-8", newline="\n") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(partial, path)
    except BaseException:
        if partial.is_file() and not (keeps and partial.stat().st_size):
            partial.unlink()
        raise
