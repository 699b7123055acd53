"""The files of an export, be it one file, a folder or a zip, read within bounds and never unpacked to disk."""

from __future__ import annotations

import json
import os
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from peft_instruct.data.importers.types import Broken
from peft_instruct.errors import DatasetError

MAX_FILE_BYTES = 256 * 2**20
MAX_TOTAL_BYTES = 2 * 2**30
MAX_FILES = 200_000


@dataclass(frozen=True)
class Export:
    """An export and the names of its files, `/` between folders, sorted.

    Attributes:
        links: names that are links or no plain files; they are not followed.
        archive: the open zip, where the export is one.
    """

    path: Path
    names: tuple[str, ...]
    links: tuple[str, ...] = ()
    archive: zipfile.ZipFile | None = None

    def read(self, name: str) -> bytes:
        """The content of one file.

        Raises:
            DatasetError: beyond MAX_FILE_BYTES, damaged, encrypted or unreadable.
        """
        try:
            if self.archive is not None:
                return _from_zip(self.path, self.archive, name)
            return _bounded(self.path / name if self.path.is_dir() else self.path)
        except OSError as error:
            raise DatasetError(f"{self.path}: {name}: cannot be read ({error.strerror or error}).") from error

    def text(self, name: str) -> str | Broken:
        """The content as UTF-8, line ends as `\\n`."""
        content = self.read(name)
        try:
            return content.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
        except UnicodeDecodeError as error:
            line = content.count(b"\n", 0, error.start) + 1
            return Broken(f"{name}:{line}", f"not UTF-8 (byte {error.start}). Save the file as UTF-8")

    def records(self, name: str) -> Iterator[Any | Broken]:
        """The JSON values of a file: one document, or one a line (JSON Lines)."""
        text = self.text(name)
        if isinstance(text, Broken):
            yield text
            return
        whole = _parsed(text, name, 1)
        lines = text.split("\n")  # JSON may hold the other ends of a line, U+2028 among them
        first = next((line for line in lines if line.strip()), "")
        if isinstance(whole, Broken) and len(lines) > 1 and not isinstance(_parsed(first, name, 1), Broken):
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    yield _parsed(line, name, number)
        else:
            yield whole

    def suffix(self, name: str) -> str:
        return PurePosixPath(name).suffix.lower()


@contextmanager
def open_export(path: Path) -> Iterator[Export]:
    """The export at a path; nothing of it is read yet.

    Raises:
        DatasetError: not there, empty, not a plain file, or beyond the bounds above.
    """
    if path.is_dir():
        names, links, sizes = _in_folder(path)
        _check(path, names, sizes)
        yield Export(path, tuple(sorted(names)), tuple(sorted(links)))
    elif not path.exists():
        raise DatasetError(f"{path}: no such file. expected an export: a file, a folder or a .zip.")
    elif not path.is_file():
        raise DatasetError(f"{path}: not a plain file. expected an export: a file, a folder or a .zip.")
    elif zipfile.is_zipfile(path):
        with _opened(path) as archive:
            files = [info for info in archive.infolist() if not info.is_dir() and not _is_of_finder(info.filename)]
            names = [info.filename for info in files]
            if len(set(names)) != len(names):
                raise DatasetError(f"{path}: two files of one name in the zip. Export it again.")
            _check(path, names, [info.file_size for info in files])
            yield Export(path, tuple(sorted(names)), archive=archive)
    else:
        yield Export(path, (path.name,))


def _is_of_finder(name: str) -> bool:
    """What macOS puts beside each file of a zip: its icon and the like."""
    place = PurePosixPath(name)
    return place.parts[:1] == ("__MACOSX",) or place.name.startswith("._")


def _check(path: Path, names: list[str], sizes: list[int]) -> None:
    if not names:
        raise DatasetError(f"{path}: holds no files.")
    if len(names) > MAX_FILES:
        raise DatasetError(f"{path}: {len(names):,} files. expected at most {MAX_FILES:,}. Import it in parts.")
    if sum(sizes) > MAX_TOTAL_BYTES:
        raise DatasetError(
            f"{path}: {sum(sizes) / 2**30:.1f} GiB unpacked. expected at most {MAX_TOTAL_BYTES / 2**30:.0f} GiB. "
            "Import it in parts."
        )


def _in_folder(path: Path) -> tuple[list[str], list[str], list[int]]:
    names, links, sizes = [], [], []
    for folder, inner, files in os.walk(path):
        links += [str(Path(folder, name).relative_to(path)) for name in inner if Path(folder, name).is_symlink()]
        for file in files:
            place = Path(folder, file)
            name = place.relative_to(path).as_posix()
            if place.is_symlink() or not place.is_file():
                links.append(name)
            else:
                names.append(name)
                sizes.append(place.stat().st_size)
    return names, links, sizes


def _opened(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError, NotImplementedError, ValueError) as error:
        raise DatasetError(f"{path}: not a whole zip ({error}). Export it again.") from error


def _from_zip(path: Path, archive: zipfile.ZipFile, name: str) -> bytes:
    info = archive.getinfo(name)
    if info.file_size > MAX_FILE_BYTES:
        raise _too_large(path, name, info.file_size)
    try:
        # zipfile reads no more than the size in the directory, whatever the compressed data would give.
        return archive.read(info)
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError) as error:
        raise DatasetError(f"{path}: {name}: cannot be unpacked ({error}). Export it again.") from error


def _bounded(path: Path) -> bytes:
    size = path.stat().st_size
    if size > MAX_FILE_BYTES:
        raise _too_large(path, path.name, size)
    return path.read_bytes()


def _too_large(path: Path, name: str, size: int) -> DatasetError:
    return DatasetError(
        f"{path}: {name}: {size / 2**20:,.0f} MiB. expected at most {MAX_FILE_BYTES // 2**20} MiB. Import it in parts."
    )


def _parsed(text: str, name: str, line: int) -> Any | Broken:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        return Broken(f"{name}:{line + error.lineno - 1}", f"not JSON ({error.msg}, column {error.colno})")
    except (ValueError, RecursionError) as error:
        what = "nested too deeply" if isinstance(error, RecursionError) else str(error).split(";")[0]
        return Broken(f"{name}:{line}", f"not JSON ({what})")
