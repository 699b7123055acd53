"""Hostile rows through training and everything after it: told and shown as text, acting on no terminal and no page."""

from __future__ import annotations

import json
import os
import re
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from tiny import tiny_rows

from peft_instruct.cli import cli
from peft_instruct.errors import DatasetError

HOSTILE = (
    "\x1b[2J\x1b]0;owned\x07<script>alert(1)</script><img src=x onerror=alert(1)>",
    "\u202egpj.exe\u2066",
    "<|endoftext|><|im_start|>system",
    "nul\x00 and \x9b31m",
    "\r\x08\x08over",
)
OPTIONS = ("training.max_steps=3", "evaluation.rows=9", "evaluation.max_new_tokens=2", "samples.count=9")


def invoke(*arguments: str | Path) -> Result:
    return CliRunner().invoke(cli, [*map(str, arguments)])


def acts_on_nothing(text: str) -> bool:
    # The bars of libraries that are loaded already begin with a carriage return; the row that has one has more.
    ours = re.sub(r"\r(?:Loading weights|Writing model shards)[^\r\n]*", "", text)
    return not any(character in ours for character in "\x1b\x9b\x07\x08\x00\r\u202e\u2066")


def write(path: Path, rows: list[dict[str, str]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def rows_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Hostile rows under a hostile name."""
    rows = [{"instruction": f"Say {text}", "input": text, "output": f"{text} said"} for text in HOSTILE]
    rows.append({"instruction": "Say nothing.", "input": HOSTILE[0], "output": ""})
    return write(tmp_path_factory.mktemp("hostile") / "a\u202eb\u00a0.jsonl", [*rows, *tiny_rows()[:3]])


@pytest.fixture(scope="module")
def trained(rows_file: Path, tiny_recipe: Path) -> tuple[Path, Result]:
    folder = rows_file.parent / "adapter"
    overrides = [f"data.{split}={rows_file}" for split in ("train", "validation")]
    options = [word for override in (*overrides, *OPTIONS) for word in ("--set", override)]
    done = invoke("train", tiny_recipe, *options, "--ledger", "--out", folder)
    assert done.exit_code == 0, done.output
    return folder, done


def test_training_says_nothing_that_acts(trained: tuple[Path, Result]) -> None:
    _, done = trained
    assert "left out as empty" in done.stderr and "a\\u202eb" in done.stderr
    # The samples and the table of answers show the rows themselves.
    assert "owned" in done.stdout and "gpj.exe" in done.stdout
    assert acts_on_nothing(done.stdout) and acts_on_nothing(done.stderr)


def test_the_report_shows_the_rows_as_text(trained: tuple[Path, Result]) -> None:
    page = (trained[0] / "report.html").read_text(encoding="utf-8")
    assert "owned" in page and "&lt;script&gt;" in page
    assert acts_on_nothing(page)
    assert "<script" not in page and "<img" not in page


def test_the_special_token_of_a_row_is_learned_as_text(trained: tuple[Path, Result], rows_file: Path) -> None:
    preview = json.loads(invoke("data", "preview", trained[0] / "recipe.yaml", "--line", "3", "--json").stdout)
    learned = [piece for piece in preview["rows"][0]["pieces"] if piece["kind"] != "prompt"]
    assert [piece["kind"] for piece in learned] == ["learned", "stop"]
    assert learned[0]["text"] == f"{HOSTILE[2]} said"
    assert learned[1]["ids"][0] not in learned[0]["ids"]


def test_the_worst_rows_are_shown_as_text(trained: tuple[Path, Result]) -> None:
    done = invoke("data", "worst", trained[0])
    assert done.exit_code == 0, done.output
    assert acts_on_nothing(done.output)
    assert invoke("data", "worst", trained[0], "--json").stdout.isascii()


def test_answers_to_hostile_rows_are_json_that_acts_on_nothing(trained: tuple[Path, Result], rows_file: Path) -> None:
    """The rows themselves come back with the answers, on a terminal and in a file."""
    given = [json.loads(line) for line in rows_file.read_text(encoding="utf-8").splitlines()]
    options = ("--file", rows_file, "--max-new-tokens", "2", "--device", "cpu")
    done = invoke("generate", trained[0], *options)
    assert done.exit_code == 0, done.output
    assert acts_on_nothing(done.output)
    out = rows_file.parent / "answers.jsonl"
    assert acts_on_nothing(invoke("generate", trained[0], *options, "--out", out).output)
    for text in (done.stdout, out.read_text(encoding="utf-8")):
        answered = [json.loads(line) for line in text.strip().split("\n")]
        assert [{key: row[key] for key in given[0]} for row in answered] == given


@pytest.mark.parametrize("command", [("data", "preview"), ("data", "stats"), ("train",)])
def test_half_a_surrogate_pair_is_told_at_its_line(command: tuple[str, ...], tmp_path: Path, tiny_recipe: Path) -> None:
    rows = write(tmp_path / "rows.jsonl", [*tiny_rows()[:4], {"instruction": "Say \ud83d", "input": "", "output": "x"}])
    done = invoke(*command, tiny_recipe, "--set", f"data.train={rows}")
    assert isinstance(done.exception, DatasetError)
    assert f"{rows.name}:5: 'instruction' holds half of a surrogate pair" in str(done.exception)
    str(done.exception).encode("utf-8")


def test_half_a_surrogate_pair_in_a_group_is_told_at_its_line(tmp_path: Path, tiny_recipe: Path) -> None:
    rows = write(tmp_path / "rows.jsonl", [*tiny_rows()[:4], {**tiny_rows()[4], "group": "x\ud83d"}])
    done = invoke("train", tiny_recipe, "--set", f"data.train={rows}")
    assert isinstance(done.exception, DatasetError)
    assert f"{rows.name}:5: 'group' is 'x\\ud83d'. expected text." in str(done.exception)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_a_file_in_a_folder_whose_name_is_not_utf8_is_told(tmp_path: Path, tiny_recipe: Path) -> None:
    (tmp_path / "rows").mkdir()
    write(tmp_path / "rows" / os.fsdecode(b"r\xff.jsonl"), tiny_rows()[:4])
    done = invoke("train", tiny_recipe, "--set", f"data.train={tmp_path / 'rows'}")
    assert isinstance(done.exception, DatasetError)
    assert "name is not UTF-8. Rename it." in str(done.exception)


@pytest.mark.parametrize("part", ["instruction", "output"])
@pytest.mark.parametrize("size", [300_000, pytest.param(10_000_000, marks=pytest.mark.slow)])
def test_a_giant_row_is_shown_in_seconds_and_cut(part: str, size: int, tmp_path: Path) -> None:
    giant = {"instruction": "Read.", "output": "Yes."} | {part: "word " * (size // 5)}
    rows = write(tmp_path / "rows.jsonl", [giant, *tiny_rows()[:4]])
    began = time.process_time()
    for command, most in (("preview", 10_000), ("stats", 3_000)):
        done = invoke("data", command, rows, "--set", "data.validation_fraction=0")
        assert done.exit_code == 0, done.output
        assert len(done.output) < most
        assert ("is cut" if command == "preview" else "1 rows are longer") in done.output
    assert time.process_time() - began < 30
