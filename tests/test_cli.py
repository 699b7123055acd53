"""The command line as a person meets it: help, exit codes, one JSON document, a start that imports nothing heavy."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from peft_instruct.cli import cli
from peft_instruct.cli.output import show


def run(*arguments: str, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "peft_instruct", *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=cwd, env={**os.environ, **environment}
    )


def commands(group: click.Group, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    found = []
    for name, command in group.commands.items():
        found += commands(command, (*path, name)) if isinstance(command, click.Group) else [(*path, name)]
    return found


@pytest.mark.parametrize("path", commands(cli), ids=" ".join)
def test_every_command_has_help_and_every_option_says_what_it_does(path: tuple[str, ...]) -> None:
    result = CliRunner().invoke(cli, [*path, "--help"])
    assert result.exit_code == 0
    command: click.Command = cli
    for name in path:
        assert isinstance(command, click.Group)
        command = command.commands[name]
    assert command.help
    assert all(option.help for option in command.params if isinstance(option, click.Option))


def test_a_mistyped_command_is_named_with_the_near_one() -> None:
    done = run("trian", "x")
    assert done.returncode == 2
    assert "Did you mean 'train'?" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["train", "no_such_recipe"], 2, "no such recipe"),
        (["recipe", "show", "gpt2_lor"], 2, "Did you mean `gpt2_lora`?"),
        (["generate", "no/such/adapter", "Hi"], 4, "no such folder"),
        (["merge", "no/such/adapter"], 4, "no such folder"),
        (["evaluate", "no/such/adapter"], 4, "no such folder"),
        (["bench", "compare", "no_such.json"], 2, "no_such.json"),
        (["train", "quickstart_lora", "--dry-run", "--resume", "none"], 2, "Leave --resume away"),
        (["train", "gpt2_lora", "--set", "model.base=./nothing"], 4, "'./nothing' is not there"),
        (["train", "gpt2_lora", "--set", "training.device=cuda", "--set", "model.base=starter"], 5, "cuda is not here"),
    ],
)
def test_what_a_user_can_cause_is_one_message_and_its_exit_code(
    arguments: list[str], code: int, told: str, tmp_path: Path
) -> None:
    done = run(*arguments, cwd=tmp_path)
    assert done.returncode == code, done.stderr
    assert told in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize("numbers", ["0", "-1", "a", "64,²"])
def test_what_is_no_number_is_a_usage_error(numbers: str) -> None:
    result = CliRunner().invoke(cli, ["bench", "gpt2_lora", "--lengths", numbers])
    assert result.exit_code == 2 and "expected whole numbers from 1" in result.output


def test_json_is_one_document_on_stdout(tiny_adapter_folder: Path) -> None:
    for arguments in (
        ["recipe", "list"],
        ["recipe", "explain", "gpt2_lora"],
        ["doctor"],
        ["generate", str(tiny_adapter_folder), "Add 3 and 4."],
        ["evaluate", str(tiny_adapter_folder), "--rows", "2"],
    ):
        done = run(*arguments, "--json")
        assert done.returncode == 0, done.stderr
        assert isinstance(json.loads(done.stdout), dict), arguments
        assert "\x1b" not in done.stdout


def test_what_a_parquet_file_holds_and_json_does_not_is_text(capsys: pytest.CaptureFixture[str]) -> None:
    class Of:
        def record(self) -> dict[str, Any]:
            return {"day": date(2030, 1, 2), "price": Decimal("1.50"), "raw": b"\x00"}

        def text(self) -> str:
            return ""

    show(Of(), as_json=True)
    assert json.loads(capsys.readouterr().out) == {"day": "2030-01-02", "price": "1.50", "raw": "b'\\x00'"}


def test_escapes_of_a_model_or_a_file_act_on_no_terminal(tmp_path: Path) -> None:
    hostile = "\x1b[2Jrecipe\u202e.yaml"
    done = run("recipe", "validate", hostile)
    assert done.returncode == 2
    assert "\x1b" not in done.stderr
    assert "\\x1b[2Jrecipe\\u202e.yaml" in done.stderr


def test_what_stdout_has_no_bytes_for_is_escaped(tmp_path: Path) -> None:
    """As a pipe on Windows has it."""
    file = tmp_path / "rows.jsonl"
    file.write_text('{"instruction": "Say it.", "output": "so"}\n' * 40, encoding="utf-8")
    done = run("data", "preview", str(file), PYTHONIOENCODING="cp1252")
    assert done.returncode == 0, done.stderr
    assert "\\u27e6so\\u27e7" in done.stdout


def test_help_and_validation_start_fast_and_import_no_torch() -> None:
    """Each is compared with a bare `import click` in alternating runs; the time itself is a bench's matter, so the
    bound is loose: a start that imports torch takes ten times a bare click's."""
    script = "import sys; from peft_instruct.cli import cli; cli.main({0!r}, standalone_mode=False); "
    check = (
        "heavy = {'torch', 'transformers', 'trl', 'datasets', 'matplotlib', 'numpy'} & set(sys.modules); "
        "sys.exit(str(heavy) if heavy else 0)"
    )
    for arguments in (["recipe", "validate", "gpt2_lora"], ["recipe", "list"], ["recipe", "schema"]):
        done = subprocess.run(
            [sys.executable, "-c", script.format(arguments) + check], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr

    def seconds(code: str) -> float:
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
        return time.perf_counter() - began

    validate = "from peft_instruct.cli import cli; cli.main(['recipe', 'validate', 'gpt2_lora'], standalone_mode=False)"
    pairs = [(seconds("import click"), seconds(validate)) for _ in range(3)]
    assert min(ours / bare for bare, ours in pairs) < 10


def test_json_has_no_number_that_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    """A file of rows may hold one, and what reads the document next would stop at it."""

    class Odd:
        def record(self) -> dict[str, Any]:
            return {"rows": [{"score": math.nan}, {"score": math.inf}, {"score": 0.5}]}

        def text(self) -> str:
            return ""

    show(Odd(), as_json=True)
    assert json.loads(capsys.readouterr().out, parse_constant=pytest.fail) == {
        "rows": [{"score": None}, {"score": None}, {"score": 0.5}]
    }
