"""The bytes of a file, unpacked where its name says that it is packed."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path
from typing import Any

from peft_instruct.errors import DatasetError, first_line

MOST_EXPANSION = 100
LEAST_EXPANSION_BYTES = 64 << 20
"""Text packs to a tenth; what packs to a hundredth of its size was made to fill the memory."""


def most_unpacked(num_packed: int) -> int:
    """The most bytes that so many packed ones may come to."""
    return max(MOST_EXPANSION * num_packed, LEAST_EXPANSION_BYTES)


def read_content(path: Path) -> bytes:
    """What a file holds, `.gz` and `.zst` unpacked.

    Raises:
        DatasetError: it cannot be read, is not what its name says, or was made to fill the memory.
    """
    try:
        packed_as = path.suffix.lower()
        if packed_as == ".gz":
            return _whole(path, gzip.open(path))
        return _whole(path, _open_zst(path)) if packed_as == ".zst" else path.read_bytes()
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DatasetError(f"{path}: not whole, or not packed as {path.suffix} ({error}). Pack it again.") from error
    except OSError as error:
        what = error.strerror or first_line(error)
        raise DatasetError(f"{path}: cannot be read ({what}).") from error


def _whole(path: Path, opened: Any) -> bytes:
    most = most_unpacked(path.stat().st_size)
    with opened as stream:
        content = bytes(stream.read(most + 1))
    if len(content) > most:
        raise DatasetError(f"{path}: unpacks to more than {MOST_EXPANSION} times its size. Not read: pack real rows.")
    return content


def _open_zst(path: Path) -> Any:
    import pyarrow

    return pyarrow.CompressedInputStream(pyarrow.OSFile(str(path), "rb"), "zstd")
