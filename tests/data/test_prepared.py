"""Rows that were prepared once: the same as if prepared again, and prepared again whenever anything differs."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny import tiny_rows

from peft_instruct.data import prepare as prepare_room
from peft_instruct.data import prepared
from peft_instruct.data.cache import PARTIAL, Cache, Entry
from peft_instruct.data.columns import RowColumns, arrays_of
from peft_instruct.data.prepare import _fingerprint, read_instruction_data
from peft_instruct.data.prepared import Preparation
from peft_instruct.data.templates import AS_IS
from peft_instruct.data.tokens import model_rows
from peft_instruct.data.types import Prompt, PromptCompletion, Span
from peft_instruct.model.tokenizer import load_tokenizer
from peft_instruct.recipe.data_section import DataSection


@pytest.fixture
def rows_file(tmp_path: Path) -> Path:
    path = tmp_path / "rows.json"
    rows = [*tiny_rows(), {"instruction": "Say nothing.", "input": "", "output": " "}]
    path.write_text(json.dumps(rows), encoding="utf-8")
    return path


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


@pytest.fixture(scope="module")
def tokenizer(tiny_base_folder: Path) -> Any:
    return load_tokenizer(tiny_base_folder)


def prepare(section: DataSection, cache: Cache, tokenizer: Any, seed: int = 0) -> tuple[Any, Any, Any, list[str]]:
    """Data, tokens, report, and which of the two came out of the cache."""
    lines: list[str] = []
    preparation = Preparation(section, seed, cache, say=lines.append)
    data = preparation.data()
    tokens, report = preparation.rows("train", data.train, tokenizer)
    return data, tokens, report, [line.split(":")[0] for line in lines if "from the cache" in line]


def test_what_comes_out_of_the_cache_is_what_would_be_prepared(rows_file: Path, cache: Cache, tokenizer: Any) -> None:
    section = DataSection(train=str(rows_file), validation_fraction=0.1, test_fraction=0.1, max_length=50)
    expected = read_instruction_data(section, 3)
    expected_tokens, expected_report = model_rows(expected.train, tokenizer, section)
    for found_there in ([], ["data", "train"]):
        data, tokens, report, cached = prepare(section, cache, tokenizer, seed=3)
        assert cached == found_there
        for split in ("train", "validation", "test"):
            assert list(getattr(data, split)) == getattr(expected, split)
            spans = [[getattr(row.prompt, "spans", None) for row in rows] for rows in (getattr(data, split),)]
            assert spans == [[row.prompt.spans for row in getattr(expected, split)]]
        assert (data.template, data.fingerprint, data.notes) == (
            expected.template,
            expected.fingerprint,
            expected.notes,
        )
        assert any("left out as empty" in note for note in data.notes)
        assert list(tokens) == list(expected_tokens)
        assert report == expected_report
        assert report.truncated


ODD = 'quote " back \\ slash / tab \t null \x00 \x7f é 漢 🙂 \u2028'
ANSWERED = Prompt([Span("template", "Q: "), Span("data", ODD), Span("answer", ""), Span("token", "sep")])
ROWS = [
    PromptCompletion(ANSWERED, ODD, "a.jsonl:1", ODD, (ODD, "b"), ODD),
    PromptCompletion(Prompt([Span("template", "Q: "), Span("data", ODD)]), "x", "a.jsonl:2"),
    PromptCompletion(Prompt([]), "x", "a.jsonl:3"),
    PromptCompletion(ODD, "", "a.jsonl:4", "", ("c",)),
]


def test_the_fingerprint_is_of_the_rows_as_json_writes_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepare_room, "ROWS_AT_ONCE", 3)
    template = {"name": AS_IS.name, "with_input": AS_IS.with_input, "without_input": AS_IS.without_input}
    digest = hashlib.sha256(json.dumps(template, sort_keys=True).encode() + b"\x00split\x00")
    for row in ROWS:
        answers = [[span.kind, span.text] for span in ANSWERED.spans] if row is ROWS[0] else []
        digest.update(json.dumps([row.prompt, row.completion, *answers], ensure_ascii=False).encode())
    assert _fingerprint([ROWS], AS_IS) == digest.hexdigest()


def test_rows_are_the_same_out_of_their_columns() -> None:
    for rows in (ROWS, []):
        again = RowColumns(arrays_of(rows, "train"), "train")
        assert list(again) == again[:] == rows
        assert [type(row.prompt) for row in again] == [type(row.prompt) for row in rows]
        spans = [getattr(row.prompt, "spans", None) for row in again]
        assert spans == [getattr(row.prompt, "spans", None) for row in rows]
    assert again[-1:] == [] and RowColumns(arrays_of(ROWS, "x"), "x")[-1] == ROWS[-1]


def test_a_change_of_anything_that_decides_prepares_again(
    rows_file: Path, cache: Cache, tokenizer: Any, monkeypatch: pytest.MonkeyPatch, starter_tokenizer: Any
) -> None:
    section = DataSection(train=str(rows_file))
    prepare(section, cache, tokenizer)
    assert prepare(section, cache, tokenizer)[3] == ["data", "train"]
    assert prepare(section, cache, tokenizer, seed=1)[3] == []
    for changed in (
        {"template": "plain"},
        {"limit": 5},
        {"validation_fraction": 0.2},
        {"split": "rows"},
        {"revision": "other"},
    ):
        assert prepare(DataSection(train=str(rows_file), **changed), cache, tokenizer)[3] == [], changed
    # What only plays a part once rows become tokens leaves the rows as they are.
    for only_tokens in ({"max_length": 40}, {"overlong": "drop"}):
        assert prepare(DataSection(train=str(rows_file), **only_tokens), cache, tokenizer)[3] == ["data"], only_tokens
    assert prepare(section, cache, starter_tokenizer)[3] == ["data"]
    with monkeypatch.context() as patch:
        patch.setattr(prepared, "_makers", lambda: ["another version of this room"])
        assert prepare(section, cache, tokenizer)[3] == []
    # The same size and the same time: what `datasets` takes for the same file.
    before, text = rows_file.stat(), rows_file.read_text(encoding="utf-8")
    rows_file.write_text(text.replace("Say nothing.", "Say nothinG."), encoding="utf-8")
    os.utime(rows_file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert rows_file.stat().st_size == before.st_size
    assert prepare(section, cache, tokenizer)[3] == []


@pytest.fixture(scope="module")
def starter_tokenizer() -> Any:
    from peft_instruct.recipe.shipped import PACKAGE

    return load_tokenizer(PACKAGE / "starter" / "base")


def test_this_rooms_source_is_part_of_the_key() -> None:
    makers = prepared._makers()
    assert prepared.sha256_of(Path(prepared.__file__).with_name("near.py")) in makers
    assert any(line.startswith("tokenizers 0.") for line in makers)


@pytest.mark.parametrize("name", ["train_span.npy", "ids.npy", "note.json", "seal.json"])
def test_a_damaged_entry_is_made_again(rows_file: Path, cache: Cache, tokenizer: Any, name: str) -> None:
    section = DataSection(train=str(rows_file))
    _, expected, _, _ = prepare(section, cache, tokenizer)
    assert cache.folder is not None
    for path in cache.folder.glob(f"*/{name}"):
        damaged = bytearray(path.read_bytes())
        damaged[-2] ^= 1
        path.write_bytes(damaged)
    for found_there in (1 if name in ("train_span.npy", "ids.npy") else 0, 2):
        _, tokens, _, cached = prepare(section, cache, tokenizer)
        assert list(tokens) == list(expected)
        assert len(cached) == found_there


def test_a_branch_of_the_hub_is_not_kept_and_a_commit_is() -> None:
    assert prepared._content("owner/name", "main") is None
    assert prepared._content("owner/name", "0" * 40) == "0" * 40


def test_two_processes_at_once_leave_one_whole_entry(rows_file: Path, cache: Cache) -> None:
    script = (
        "import sys; from pathlib import Path; from peft_instruct.data.cache import Cache;"
        "from peft_instruct.data.prepared import Preparation;"
        "from peft_instruct.recipe.data_section import DataSection;"
        "print(Preparation(DataSection(train=sys.argv[1]), 0, Cache(Path(sys.argv[2]))).data().fingerprint)"
    )
    asked = [sys.executable, "-c", script, str(rows_file), str(cache.folder)]
    both = [subprocess.Popen(asked, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    fingerprints = {process.communicate(timeout=120)[0].strip() for process in both}
    assert [process.returncode for process in both] == [0, 0]
    assert fingerprints == {read_instruction_data(DataSection(train=str(rows_file)), 0).fingerprint}
    assert cache.folder is not None
    (entry,) = cache.folder.iterdir()
    assert cache.load(entry.name) is not None


def test_an_entry_that_was_made_meanwhile_stays(cache: Cache) -> None:
    first, second = (Entry({"numbers": np.arange(3)}, {"by": name}) for name in ("first", "second"))
    assert cache.store("key", first) == cache.store("key", second) == ""
    found = cache.load("key")
    assert found is not None
    assert found.note == {"by": "first"}
    assert not found.arrays["numbers"].flags.writeable


def test_another_process_may_be_first_at_the_last_moment(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = Entry({"numbers": np.arange(3)}, None)

    def late(partial: Path, place: Path, rename: Any = os.rename) -> None:
        monkeypatch.setattr(os, "rename", rename)
        assert cache.store("key", entry) == ""
        rename(partial, place)  # Linux: ENOTEMPTY, which is no FileExistsError

    monkeypatch.setattr(os, "rename", late)
    assert cache.store("key", entry) == ""


def test_a_cache_that_can_only_be_read_is_read(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    cache.store("key", Entry({"numbers": np.arange(3)}, "note"))
    monkeypatch.setattr(os, "utime", refused)
    found = cache.load("key")
    assert found is not None and found.note == "note"


def test_what_a_killed_process_left_half_written_goes(cache: Cache) -> None:
    assert cache.folder is not None
    for name, age in ((f"{PARTIAL}old", 25 * 3600), (f"{PARTIAL}new", 60)):
        (cache.folder / name).mkdir(parents=True)
        (cache.folder / name / "numbers.npy").write_bytes(b"half")
        then = time.time() - age
        os.utime(cache.folder / name, (then, then))
    cache.store("key", Entry({}, None))
    assert sorted(path.name for path in cache.folder.iterdir()) == [f"{PARTIAL}new", "key"]


def test_the_least_used_entries_go_when_there_are_too_many(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache", most_bytes=10_000)
    entry = Entry({"numbers": np.zeros(500)}, None)
    for age, key in enumerate(("first", "second")):
        cache.store(key, entry)
        os.utime(tmp_path / "cache" / key, (age, age))
    assert cache.load("first") is not None  # used, so no longer the oldest
    cache.store("third", entry)
    assert sorted(path.name for path in (tmp_path / "cache").iterdir()) == ["first", "third"]


def test_an_entry_whose_removal_was_cut_short_is_made_anew(cache: Cache) -> None:
    assert cache.folder is not None
    cache.store("key", Entry({}, "old"))
    (cache.folder / "key" / "seal.json").unlink()
    assert cache.load("key") is None
    cache.store("key", Entry({}, "new"))
    found = cache.load("key")
    assert found is not None and found.note == "new"


def test_what_is_no_entry_stays_where_the_folder_is_not_the_caches_alone(tmp_path: Path) -> None:
    for other in ("thesis", "model", ".git"):
        (tmp_path / other).mkdir()
        (tmp_path / other / "file").write_bytes(b"x" * 20_000)
        os.utime(tmp_path / other, (0, 0))
    (tmp_path / "file").write_bytes(b"x" * 20_000)
    cache = Cache(tmp_path, most_bytes=1)
    for key in ("first", "second"):
        assert cache.store(key, Entry({"numbers": np.zeros(500)}, None)) == ""
    assert sorted(path.name for path in tmp_path.iterdir()) == [".git", "file", "model", "second", "thesis"]


def test_the_cache_can_be_elsewhere_or_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PEFT_INSTRUCT_CACHE", str(tmp_path))
    assert Cache.of_user() == Cache(tmp_path)
    assert Cache.of_user(wanted=False) == Cache(None)
    monkeypatch.setenv("PEFT_INSTRUCT_CACHE", "off")
    assert Cache.of_user() == Cache(None)
    assert Cache(None).store("key", Entry({}, None)) == ""
    assert Cache(None).load("key") is None


def test_a_cache_that_cannot_be_written_is_told_and_nothing_else_happens(
    rows_file: Path, tmp_path: Path, tokenizer: Any
) -> None:
    (tmp_path / "file").write_text("")
    lines: list[str] = []
    section, nowhere = DataSection(train=str(rows_file)), Cache(tmp_path / "file" / "cache")
    preparation = Preparation(section, 0, nowhere, say=lines.append)
    assert len(preparation.data().train) == 61
    assert len(lines) == 1
    assert "the next run prepares the rows again" in lines[0]
