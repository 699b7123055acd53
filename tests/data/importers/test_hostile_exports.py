"""Exports that were made to do harm, or are damaged: told in a line, or read without effect. Never a traceback."""

from __future__ import annotations

import io
import json
import struct
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from peft_instruct.data.importers import export as bounds
from peft_instruct.data.importers.run import import_export
from peft_instruct.errors import DatasetError

TERMINAL = "\x1b[2J\x1b]0;owned\x07\x1b]8;;http://x\x1b\\click\x1b]8;;\x1b\\ \x00\x9b31m \ud83d half"


def slack(*messages: dict[str, Any]) -> dict[str, str]:
    return {"users.json": "[]", "help/2026-03-02.json": json.dumps(messages)}


def thread(question: str, answer: str) -> tuple[dict[str, Any], dict[str, Any]]:
    first = {"type": "message", "ts": "1.0", "user": "U1", "text": question}
    return first, {"type": "message", "ts": "2.0", "thread_ts": "1.0", "user": "U2", "text": answer}


def zipped(path: Path, files: dict[str, str | bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def test_terminal_escapes_nul_and_lone_surrogates_are_taken_out_and_counted(tmp_path: Path) -> None:
    imported = import_export(zipped(tmp_path / "e.zip", slack(*thread(f"a{TERMINAL}?", "b\x07"))))
    assert imported.rows[0]["instruction"] == "aclick 31m \ufffd half?"
    assert imported.rows[0]["output"] == "b"
    assert imported.num_cleaned == 2
    json.dumps(imported.rows, ensure_ascii=False).encode()


def test_names_that_leave_the_archive_write_nothing(tmp_path: Path) -> None:
    inner = tmp_path / "in"
    inner.mkdir()
    files = slack(*thread("q?", "a"))
    files |= {"../../evil.json": "[]", "/etc/evil.json": "[]", "..\\evil.json": "[]", "x/../../2026-01-01.json": "[]"}
    before = sorted(tmp_path.rglob("*"))
    imported = import_export(zipped(inner / "e.zip", files))
    assert len(imported.rows) == 1
    assert sorted(tmp_path.rglob("*")) == sorted([*before, inner / "e.zip"])


def test_links_in_a_folder_are_not_followed(tmp_path: Path) -> None:
    secret = tmp_path / "secret.json"
    secret.write_text(json.dumps(thread("secret?", "yes")))
    folder = tmp_path / "export"
    (folder / "help").mkdir(parents=True)
    for name, content in slack(*thread("q?", "a")).items():
        (folder / name).write_text(content)
    (folder / "help" / "2026-03-03.json").symlink_to(secret)
    (folder / "loop").symlink_to(folder)
    imported = import_export(folder)
    assert [row["instruction"] for row in imported.rows] == ["q?"]
    assert sorted(item.file for item in imported.dropped if item.reason == "link or special file") == [
        "help/2026-03-03.json",
        "loop",
    ]


def test_a_bomb_is_refused_by_its_size_before_it_is_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "MAX_TOTAL_BYTES", 10 * 2**20)
    path = zipped(tmp_path / "e.zip", {**slack(), **{f"c/2026-01-{day:02}.json": b" " * 2**20 for day in range(1, 12)}})
    assert path.stat().st_size < 2**20
    with pytest.raises(DatasetError, match=r"0\.0 GiB unpacked\. expected at most"):
        import_export(path)


def test_a_single_large_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "MAX_FILE_BYTES", 1000)
    with pytest.raises(DatasetError, match=r"help/2026-03-02\.json: .* MiB\. expected at most"):
        import_export(zipped(tmp_path / "e.zip", slack(*thread("q" * 2000, "a"))))
    (tmp_path / "faq.csv").write_text("q,a\n" * 1000)
    with pytest.raises(DatasetError, match=r"faq\.csv: .* MiB\. expected at most"):
        import_export(tmp_path / "faq.csv")


def test_a_zip_that_lies_about_a_size_gives_no_more_than_it_says(tmp_path: Path) -> None:
    path = zipped(tmp_path / "e.zip", {**slack(*thread("q?", "a")), "c/2026-01-01.json": b" " * 2**20})
    content = path.read_bytes()
    # Uncompressed size, in the local header and in the directory.
    path.write_bytes(content.replace(struct.pack("<I", 2**20), struct.pack("<I", 16)))
    with pytest.raises(DatasetError, match=r"c/2026-01-01\.json: cannot be unpacked"):
        import_export(path)


def test_too_many_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "MAX_FILES", 3)
    with pytest.raises(DatasetError, match=r"4 files\. expected at most 3"):
        import_export(zipped(tmp_path / "e.zip", {**slack(), "a": "", "b": ""}))


def _encrypted() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in slack(*thread("q?", "a")).items():
            archive.writestr(name, content)
    content = bytearray(buffer.getvalue())
    # The flag that says encrypted, in every header of a file.
    for mark, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        start = content.find(mark)
        while start >= 0:
            content[start + place] |= 1
            start = content.find(mark, start + 1)
    return bytes(content)


NESTED = "[" * 100_000 + "]" * 100_000
BROKEN: dict[str, tuple[str, str | bytes | Callable[[], bytes], str]] = {
    "empty": ("e.json", "", r"has|broken"),
    "not JSON": ("e.json", "{", "e.json:1: not JSON"),
    "nested": ("e.json", NESTED, "nested too deeply|not JSON"),
    "long number": ("e.json", '{"a": ' + "9" * 10_000 + "}", "not JSON"),
    "UTF-16": ("e.json", '{"a": 1}'.encode("utf-16"), "not UTF-8"),
    "a list of numbers": ("e.json", "[1, 2]", "int records"),
    "other keys": ("e.json", '{"foo": 1}', "the keys 'foo'"),
    "null": ("e.json", "null", "looks like no export"),
    "unknown suffix": ("e.exe", "MZ", "expected one of slack, discord"),
    "cut zip": ("e.zip", b"PK\x03\x04 and no directory", "looks like no export"),
    "encrypted zip": ("e.zip", _encrypted, "cannot be unpacked .*encrypted"),
    "no mail": ("e.mbox", "hello", "is no mbox"),
    "empty csv": ("e.csv", "", "columns none"),
    "open quote": ("e.csv", 'q,a\n"open', "not CSV"),
    "NUL in csv": ("e.csv", "q,a\n\x00,\x00\n", "."),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_export_is_told(tmp_path: Path, name: str) -> None:
    file, content, told = BROKEN[name]
    path = tmp_path / file
    made = content() if callable(content) else content
    path.write_bytes(made if isinstance(made, bytes) else made.encode())
    if name == "NUL in csv":
        assert [row["output"] for row in import_export(path).rows] == [""]
        return
    with pytest.raises(DatasetError, match=told):
        import_export(path)


def test_all_broken_files_are_told_at_once(tmp_path: Path) -> None:
    files = {**slack(*thread("q?", "a")), "c/2026-01-01.json": "[", "c/2026-01-02.json": '[{"ts": "1"},]'}
    with pytest.raises(DatasetError, match=r"(?s)2 problems.*c/2026-01-01\.json:1: .*c/2026-01-02\.json:1: "):
        import_export(zipped(tmp_path / "e.zip", files))


WRONG: list[Any] = [None, 1, "text", [], {}, [[]], {"a": None}, True, -1e400, "\x00"]


@pytest.mark.parametrize("kind", ["slack", "discord", "zendesk", "intercom"])
def test_fields_of_the_wrong_type_are_left_out(tmp_path: Path, kind: str) -> None:
    """Each field of a record in turn holds each wrong thing; whatever is lost is told."""
    good: dict[str, Any] = {
        "slack": {
            "ts": "1.0",
            "user": "U1",
            "text": "q?",
            "subtype": "",
            "thread_ts": "1.0",
            "message": {},
            "bot_id": "",
        },
        "discord": {
            "id": "1",
            "type": "Reply",
            "content": "q?",
            "author": {"id": "1"},
            "reference": {},
            "mentions": [],
        },
        "zendesk": {"id": 1, "author_id": 2, "body": "q?", "public": True, "via": {"source": {}}, "created_at": "x"},
        "intercom": {"id": "1", "part_type": "comment", "body": "q?", "author": {"type": "user"}, "created_at": 1},
    }[kind]
    records = [{**good, key: wrong} for key in good for wrong in WRONG] + WRONG
    text = {
        "slack": lambda: json.dumps([*thread("q?", "a"), *records]),
        "discord": lambda: json.dumps({"channel": {}, "messages": records}),
        "zendesk": lambda: json.dumps([{"id": 1, "requester_id": 2, "comments": records}, *WRONG]),
        "intercom": lambda: json.dumps([{"source": good, "conversation_parts": records}, *WRONG]),
    }[kind]()
    path = tmp_path / "help" / "2026-03-02.json"
    path.parent.mkdir()
    path.write_text(text.replace("-Infinity", "-1e400"))
    try:
        import_export(path, kind)
    except DatasetError as error:
        assert "no question with an answer" in str(error)


@pytest.mark.parametrize(
    "page", ["<" * 20_000, "<a " * 10_000, "<!--" * 10_000, "<div>" * 20_000, "<ul><li>" * 5_000 + "x",
             "&#x110000;" * 5_000, "<p>a</p>" * 20_000, "<script>" * 5_000, "<![CDATA[" * 5_000,
             "<a b=" * 100_000, "<a " + "b " * 50_000 + ">", "<a b='" + "x" * 100_000]
)  # fmt: skip
@pytest.mark.parametrize("suffix", ["html", "md"])
def test_hostile_pages_take_no_time_and_run_nothing(tmp_path: Path, page: str, suffix: str) -> None:
    path = tmp_path / f"faq.{suffix}"
    path.write_text(f"<h2>Is it safe?</h2>\n\n<p>Yes.</p>\n\n<h2>End?</h2>\n\n{page}")
    began = time.process_time()
    rows = import_export(path).rows
    assert time.process_time() - began < 5
    assert (rows[0]["instruction"], rows[0]["output"]) == ("Is it safe?", "Yes.")


def test_scripts_and_handlers_of_a_page_leave_no_trace(tmp_path: Path) -> None:
    path = tmp_path / "faq.html"
    path.write_text(
        "<h2 onclick=alert(1)>Safe?</h2><p>Yes<script>alert(2)</script><style>x</style>"
        "<iframe src=javascript:3></iframe><svg><script>alert(4)</script></svg> it is&lt;script&gt;.</p>"
    )
    assert import_export(path).rows[0]["output"] == "Yes it is<script>."


@pytest.mark.parametrize("header", ["From: \x00\xff", "Content-Type: text/plain; charset=nonsense",
                                    "Date: 99 Foo 99999", "Content-Type: multipart/mixed",
                                    "Content-Transfer-Encoding: base64\n\n!!!!",
                                    "Message-ID: <<>>\nReferences: " + "<x> " * 5_000,
                                    "Subject: =?utf-8?q?=?= =?x?b?!?="])  # fmt: skip
def test_broken_mails_are_told_or_left_out(tmp_path: Path, header: str) -> None:
    path = tmp_path / "box.mbox"
    good = "From a@x Mon Mar  2 09:00:00 2026\nFrom: {}\nMessage-ID: <{}>\nIn-Reply-To: <{}>\nSubject: s\n\n{}\n\n"
    text = good.format("a@x.org", 1, 0, "q?").replace("In-Reply-To: <0>\n", "") + good.format("b@x.org", 2, 1, "yes")
    path.write_bytes((text + f"From c@x Mon Mar  2 09:00:00 2026\n{header}\n\nbody\n").encode("latin-1"))
    try:
        assert import_export(path).rows[0]["output"] == "yes"
    except DatasetError as error:
        assert "mail 3" in str(error)


def test_a_fifo_is_not_waited_for(tmp_path: Path) -> None:
    import os

    os.mkfifo(tmp_path / "pipe.json")
    with pytest.raises(DatasetError, match="not a plain file"):
        import_export(tmp_path / "pipe.json")


def test_what_macos_puts_into_a_zip_is_no_file_of_it(tmp_path: Path) -> None:
    page = "## Who?\n\nAna.\n"
    path = zipped(tmp_path / "faq.zip", {"faq.md": page, "__MACOSX/._faq.md": b"\x00\x05\xff", "._faq.md": b"\xff"})
    assert [row["output"] for row in import_export(path).rows] == ["Ana."]


def test_a_line_of_json_lines_ends_at_its_line_feed(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    path.write_text('{"a": "one\u2028two\u0085"}\r\n\n{"a": 2}\n', encoding="utf-8")
    with bounds.open_export(path) as export:
        assert list(export.records("records.jsonl")) == [{"a": "one\u2028two\u0085"}, {"a": 2}]


def test_a_mail_box_that_begins_with_the_newest_is_a_whole_thread(tmp_path: Path) -> None:
    def mail(number: int, author: str, text: str, refers: str) -> str:
        head = f"From {author} Mon Mar  2 09:0{number}:00 2026\nMessage-ID: <{number}@x>\nFrom: {author}\n"
        when = f"Date: Mon, 2 Mar 2026 09:0{number}:00 +0000\n"
        return f"{head}{when}Subject: {'Re: ' if refers else ''}Printer\n{refers}\n{text}\n\n"

    mails = [mail(1, "ana@x.org", "Is the printer broken?", ""),
             mail(2, "bo@x.org", "Which one do you mean?", "In-Reply-To: <1@x>\n"),
             mail(3, "ana@x.org", "The one in the hall.", "In-Reply-To: <2@x>\n")]  # fmt: skip
    found = []
    for name, order in (("old", mails), ("new", mails[::-1])):
        path = tmp_path / f"{name}.mbox"
        path.write_text("".join(order))
        found.append([(row["instruction"], row["output"]) for row in import_export(path).rows])
    assert found[0] == found[1] == [("Is the printer broken?", "Which one do you mean?")]


def test_an_entry_of_a_zip_without_a_name_is_told(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(".", "nothing")
    with pytest.raises(DatasetError):
        import_export(tmp_path / "a.zip")
