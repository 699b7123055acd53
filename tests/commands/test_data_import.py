"""`data import` as a person meets it: rows that train reads, what was left out, nothing overwritten, nothing acting."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from peft_instruct.cli import cli
from peft_instruct.commands.data_import import data_import
from peft_instruct.data.importers.kinds import KINDS
from peft_instruct.data.prepare import read_source
from peft_instruct.errors import RecipeError
from peft_instruct.recipe.data_section import DataSection

FAQ = "## Who am I?\n\n\x1b[31mAna, ana@example.org\x1b[0m\u202e\n\n## Alone?\n\n## Why?\n\nBecause of 192.168.7.7.\n"


@pytest.fixture
def faq(tmp_path: Path) -> Path:
    path = tmp_path / "faq.md"
    path.write_text(FAQ, encoding="utf-8")
    return path


def test_what_is_written_is_what_training_reads(faq: Path, tmp_path: Path) -> None:
    out = tmp_path / "rows.jsonl"
    result = data_import(faq, out=out)
    pairs, _, _ = read_source(str(out), DataSection(train=str(out)))
    assert [(pair.asked, pair.completion) for pair in pairs] == [
        ("Who am I?", "Ana, [EMAIL]\u202e"),
        ("Why?", "Because of [IP]."),
    ]
    record = json.loads(out.read_text(encoding="utf-8").splitlines()[1])
    assert record["provenance"] == {"file": "faq.md", "ids": ["line 7", "line 9"], "time": ""}
    assert result.record()["masked"] == {"email": 1, "phone": 0, "card": 0, "secret": 0, "ip": 1, "iban": 0, "ssn": 0}
    assert result.record()["dropped"] == {"a heading or question without an answer": 1}


def test_the_terminal_is_not_acted_on(faq: Path, tmp_path: Path) -> None:
    odd = faq.rename(tmp_path / "a\x1b[31m\u202e.md")
    out = tmp_path / "rows.jsonl"
    command = [sys.executable, "-m", "peft_instruct", "data", "import", str(odd), "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stdout and "\u202e" not in done.stdout
    assert "5 messages -> 2 rows" in done.stdout
    assert "masked: 1 e-mail addresses, 1 IP addresses" in done.stdout


def test_the_dropped_are_listed_masked_on_request(faq: Path, tmp_path: Path) -> None:
    faq.write_text("hello bob@example.org\n\n## Q?\n\nA\n")
    dropped = tmp_path / "dropped.jsonl"
    data_import(faq, out=tmp_path / "rows.jsonl", dropped=dropped)
    assert json.loads(dropped.read_text()) == {
        "file": "faq.md", "id": "line 1", "reason": "outside of any question", "text": "hello [EMAIL]",
    }  # fmt: skip


def test_without_masking_everything_stays(faq: Path, tmp_path: Path) -> None:
    result = data_import(faq, out=tmp_path / "rows.jsonl", masks=False)
    assert "ana@example.org" in (tmp_path / "rows.jsonl").read_text(encoding="utf-8")
    assert "masked: nothing, as --no-mask says" in result.text()


def test_what_cannot_be_written_is_told_before_anything_is_read(faq: Path, tmp_path: Path) -> None:
    there = tmp_path / "rows.jsonl"
    there.write_text("mine\n")
    with pytest.raises(RecipeError) as told:
        data_import(tmp_path / "no-such-export", out=there, dropped=tmp_path / "no" / "d.jsonl", kind="slak")
    assert [line.split(": ")[1][:14] for line in str(told.value).splitlines()] == [
        "'slak' is not ",
        "is there alrea",
        "no folder " + str(tmp_path)[:4],
    ]
    assert there.read_text() == "mine\n"
    with pytest.raises(RecipeError, match="JSON Lines"):
        data_import(faq, out=tmp_path / "rows.csv")
    data_import(faq, out=there, replaces=True)
    assert there.read_text(encoding="utf-8").startswith("{")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["faq.md", "rows.jsonl"]


def test_an_export_is_never_overwritten_by_its_own_rows(tmp_path: Path) -> None:
    source = tmp_path / "tickets.jsonl"
    source.write_text("{}")
    with pytest.raises(RecipeError, match="is there already"):
        data_import(source, out=source, replaces=True)


def test_help_names_every_kind() -> None:
    # Help is wrapped, at hyphens too.
    text = "".join(CliRunner().invoke(cli, ["data", "import", "--help"]).output.split())
    assert [kind for kind in KINDS if kind not in text] == []


def test_json_is_one_document(faq: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(cli, ["data", "import", str(faq), "--out", str(tmp_path / "rows.jsonl"), "--json"])
    assert done.exit_code == 0
    assert json.loads(done.stdout)["num_rows"] == 2


def test_an_address_that_the_list_of_what_was_left_out_cuts_is_masked_before(tmp_path: Path) -> None:
    source, dropped = tmp_path / "faq.md", tmp_path / "dropped.jsonl"
    source.write_text(f"## Who?\n\nAna.\n\n## {'a' * 190} ana.lopez@example.org\n", encoding="utf-8")
    data_import(source, out=tmp_path / "rows.jsonl", dropped=dropped)
    assert dropped.read_text() and "ana.lopez" not in dropped.read_text()


def test_rows_and_what_was_left_out_go_to_two_files(faq: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="is where the rows go"):
        data_import(faq, out=tmp_path / "a.jsonl", dropped=tmp_path / "b" / ".." / "a.jsonl")
