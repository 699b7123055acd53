"""Rows out of local files, the hub and the starter, each with its origin; every broken row told at once."""

from __future__ import annotations

import csv
import glob
import hashlib
import io
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peft_instruct.data.content import MOST_EXPANSION, most_unpacked, read_content
from peft_instruct.data.json_rows import BadRowError, read_json_array, read_json_lines
from peft_instruct.data.types import Row
from peft_instruct.errors import DatasetError, first_line
from peft_instruct.recipe.shipped import PACKAGE

STARTER = "starter:"
FILE_KINDS = (".json", ".jsonl", ".csv", ".tsv", ".parquet", ".txt")
COMPRESSED = (".gz", ".zst")
PICKLES = (".pkl", ".pickle", ".bin", ".pt", ".pth", ".ckpt", ".npy", ".npz", ".joblib")
PARQUET_ROWS_AT_ONCE = 64
UNREAD = " Nothing behind it could be read."
"""Ends the problem that ends a file."""
_HUB_ID = re.compile(r"^(?P<id>[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?)(:(?P<split>\w+))?$")


@dataclass(frozen=True)
class Rows:
    """All rows of one source and the SHA-256 of their content."""

    rows: list[Row]
    fingerprint: str
    source: str


def kind_of(source: str) -> str:
    """The kind of a file by its name, without what it is compressed by; empty where it is none of ours."""
    path = Path(source.lower())
    suffix = Path(path.stem).suffix if path.suffix in COMPRESSED else path.suffix
    return suffix if suffix in FILE_KINDS else ""


def is_hub_id(source: str) -> bool:
    """Whether a source names a hub dataset: not a file, not the starter, and shaped as `owner/name[:split]`."""
    named_file = source.startswith(STARTER) or bool(kind_of(source)) or os.path.exists(source)
    return not named_file and bool(_HUB_ID.match(source))


def files_of(source: str) -> list[str]:
    """The files that a source names: itself, all of our kinds in a folder, all that match a pattern; or none.

    Hidden files are passed over, in folders and by patterns.
    """
    path = Path(source)
    if os.path.isdir(source) and not kind_of(source):
        inside = [file for file in path.rglob("*") if not any(p.startswith(".") for p in file.relative_to(path).parts)]
    elif any(mark in source for mark in "*?[") and not os.path.exists(source):
        inside = [Path(name) for name in glob.glob(source, recursive=True)]
    else:
        return [source] if os.path.isfile(source) else []
    return [str(file) for file in sorted(inside) if kind_of(file.name) and file.is_file()]


def read_rows(source: str, revision: str = "main", problems: list[str] | None = None) -> Rows:
    """Every row of one file, hub dataset or part of the starter.

    Args:
        source: a local file, a hub id with an optional split (`owner/name:test`), or `starter:SPLIT`.
        revision: the revision of a hub dataset.
        problems: takes what is wrong with broken rows, in place of an error.

    Raises:
        DatasetError: missing, unreadable, empty, or with broken rows (all of them told).
    """
    if source.startswith(STARTER):
        source = str(local_file(source))
    if is_hub_id(source):
        return _from_hub(source, revision)
    path = Path(source)
    # Not Path's: that of Python 3.11 raises where a name is too long to be one.
    if not os.path.exists(source):
        raise DatasetError(f"{source}: no such file. expected a {_kinds()} file, a hub id, or starter:train.")
    if path.is_dir() and not kind_of(source):
        raise DatasetError(f"{source}: a folder without a file of rows in it. expected {_kinds()}.")
    if path.suffix.lower() in PICKLES:
        raise DatasetError(f"{source}: pickles can run code and are not read. expected a {_kinds()} file.")
    if not (path.is_file() or path.is_dir()):
        raise DatasetError(f"{source}: a device or a pipe. expected a {_kinds()} file.")
    if not kind_of(source):
        raise DatasetError(f"{source}: cannot tell what it holds ({path.suffix or 'no suffix'}). expected {_kinds()}.")
    content = read_content(path)
    rows = _checked(source, _parse(path, content), problems)
    return Rows(rows, hashlib.sha256(content).hexdigest(), source)


def _parse(path: Path, content: bytes) -> Iterator[Row | BadRowError]:
    kind = kind_of(path.name)
    if kind == ".parquet":
        return _parquet_rows(path, content)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DatasetError(f"{path}:{line}: not UTF-8 (byte {error.start}). Save the file as UTF-8.") from error
    if kind in (".csv", ".tsv"):
        names = text.partition("\n")[0]
        # As spreadsheets write it where the comma stands in numbers.
        semicolons = kind == ".csv" and ";" in names and "," not in names
        return _csv_rows(text, str(path), "\t" if kind == ".tsv" else ";" if semicolons else ",")
    if kind == ".txt":
        return iter([Row({"text": text}, f"{path}:1")] if text.strip() else [])
    # Many `.json` files are JSON Lines and the other way round; the first character tells.
    begins_as_list = text.lstrip()[:1] == "["
    return read_json_array(text, str(path)) if begins_as_list else _lines_or_one_record(text, path)


def _lines_or_one_record(text: str, path: Path) -> Iterator[Row | BadRowError]:
    """JSON Lines; a `.json` file that is one record spread over lines is told as what it is."""
    found = list(read_json_lines(text, str(path)))
    is_spread = bool(found) and all(isinstance(each, BadRowError) for each in found)
    if kind_of(path.name) == ".json" and is_spread and text.lstrip()[:1] == "{":
        yield BadRowError(1, 1, "one record, not a list. expected `[{...}, ...]` or one record a line")
    else:
        yield from found


def _csv_rows(text: str, path: str, delimiter: str) -> Iterator[Row | BadRowError]:
    """Rows of a CSV with a header; every value stays text (`007` and `NA` included)."""
    # A field may be as long as the file; the module's own limit is 128 KiB.
    csv.field_size_limit(max(len(text), 131072))
    reader = csv.reader(io.StringIO(text, newline=""), strict=True, delimiter=delimiter)
    header: list[str] = []
    line = 1
    try:
        for values in reader:
            if not header:
                header = [name.strip() for name in values]
                if len(set(header)) != len(header):
                    yield BadRowError(1, 1, f"a column name stands twice in the header: {', '.join(header)}")
                    return
            elif values:
                if len(values) != len(header):
                    yield BadRowError(line, 1, f"{len(values)} fields. the header names {len(header)}")
                else:
                    yield Row(dict(zip(header, values, strict=True)), f"{path}:{line}")
            line = reader.line_num + 1
    except csv.Error as error:
        yield BadRowError(line, 1, f"not CSV: {error}", ends=True)


def _parquet_rows(path: Path, content: bytes) -> Iterator[Row | BadRowError]:
    import pyarrow as arrow
    import pyarrow.parquet as parquet

    most_bytes = most_unpacked(len(content))
    bomb = DatasetError(
        f"{path}: {len(content)} bytes that unfold to more than {most_bytes}. expected at most {MOST_EXPANSION} times "
        "its size. Write it anew as JSON Lines."
    )
    num_characters = 0
    try:
        file = parquet.ParquetFile(io.BytesIO(content))
        groups = [file.metadata.row_group(index) for index in range(file.metadata.num_row_groups)]
        if sum(group.total_byte_size for group in groups) > most_bytes:
            raise bomb
        found = (values for batch in file.iter_batches(PARQUET_ROWS_AT_ONCE) for values in batch.to_pylist())
        for number, values in enumerate(found, start=1):
            # A page of one repeated text is small even then, and in pyarrow's memory too.
            num_characters += sum(len(value) for value in values.values() if isinstance(value, str | bytes | list))
            if num_characters > most_bytes:
                raise bomb
            yield Row(values, f"{path}:{number}")
    except (arrow.ArrowException, OSError, ValueError, OverflowError) as error:
        raise DatasetError(f"{path}: not a parquet file ({first_line(error)}).") from error


def _from_hub(source: str, revision: str) -> Rows:
    """Rows of a hub dataset, downloaded or out of the cache.

    Raises:
        DatasetError: not there, no such split, or the hub could not be reached and nothing is cached.
    """
    import datasets
    from datasets.exceptions import DatasetNotFoundError, DatasetsError

    named = _HUB_ID.match(source)
    assert named is not None
    split = named["split"] or "train"
    datasets.disable_progress_bars()
    # datasets 5.2 tells S3 the name of every data set that is loaded, and asks a second service for its size.
    datasets.config.HF_UPDATE_DOWNLOAD_COUNTS = datasets.config.USE_PARQUET_EXPORT = False
    try:
        loaded = datasets.load_dataset(named["id"], split=split, revision=revision)
    except DatasetNotFoundError as error:
        raise DatasetError(f"{source}: no such file, and no such dataset on the hub (revision {revision}).") from error
    except (ConnectionError, OSError, DatasetsError, ValueError, RuntimeError) as error:
        raise DatasetError(
            f"{source}: cannot be loaded from the hub ({first_line(error)}). "
            f"Ways on: a local file (--set data.train=FILE.json), or `peft-instruct train quickstart_lora`."
        ) from error
    digest = hashlib.sha256(f"{source}@{revision}:{split}:{loaded._fingerprint}".encode()).hexdigest()
    rows = [Row(dict(values), f"{source} row {number}") for number, values in enumerate(loaded, start=1)]
    return Rows(_checked(source, iter(rows)), digest, source)


def _checked(source: str, found: Iterator[Row | BadRowError], told: list[str] | None = None) -> list[Row]:
    rows: list[Row] = []
    problems: list[str] = [] if told is None else told
    for item in found:
        if isinstance(item, BadRowError):
            problems.append(f"{source}:{item.line}:{item.column}: {item.what}.{UNREAD if item.ends else ''}")
        elif not isinstance(item.values, dict):
            problems.append(f"{item.origin}: {_kind(item.values)}. expected a record, `{{...}}`.")
        else:
            rows.append(item)
    if problems and (told is None or not rows):
        raise DatasetError.of(source, problems)
    if not rows:
        raise DatasetError(f"{source}: no rows. expected at least one record.")
    return rows


def local_file(source: str) -> Path:
    """The file of a source that is not on the hub.

    Raises:
        DatasetError: no such part of the starter.
    """
    if not source.startswith(STARTER):
        return Path(source)
    folder = PACKAGE / "starter" / "instructions"
    path = folder / f"{source.removeprefix(STARTER)}.jsonl"
    if not path.is_file():
        known = ", ".join(f"{STARTER}{file.stem}" for file in sorted(folder.glob("*.jsonl")))
        raise DatasetError(f"{source}: no such part of the starter. expected one of {known or 'none shipped'}.")
    return path


def _kind(value: Any) -> str:
    names = {list: "a list", str: "a text", int: "a number", float: "a number", bool: "true or false"}
    return "null" if value is None else names.get(type(value), type(value).__name__)


def _kinds() -> str:
    return f"{', '.join(FILE_KINDS[:-1])} or {FILE_KINDS[-1]} (also .gz, .zst)"
