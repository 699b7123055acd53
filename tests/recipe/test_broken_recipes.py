"""Every broken recipe is told whole: each problem at its place, exit code 2, no traceback, no torch, in no time."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from peft_instruct.errors import RecipeError
from peft_instruct.recipe import read_recipe

GOOD = "model: {base: gpt2}\ndata: {train: rows.json}\n"
TABLE = Path(__file__).with_name("broken_recipes.txt")


@dataclass(frozen=True)
class Broken:
    """A broken recipe: `expected` holds the beginning of each line of the message."""

    name: str
    content: str | bytes
    expected: tuple[str, ...]
    overrides: tuple[str, ...] = ()
    beside: dict[str, str] = field(default_factory=dict)

    def write(self, folder: Path) -> Path:
        folder.mkdir(exist_ok=True)
        for name, content in self.beside.items():
            (folder / name).write_text(content, encoding="utf-8")
        recipe = folder / "r.yaml"
        recipe.write_bytes(self.content if isinstance(self.content, bytes) else self.content.encode())
        return recipe


def _table() -> Iterator[Broken]:
    for block in TABLE.read_text(encoding="utf-8").split("\n## ")[1:]:
        name, *lines = block.rstrip("\n").split("\n")
        files: dict[str, list[str]] = {"r.yaml": []}
        into = files["r.yaml"]
        for line in lines:
            if line.startswith("@ "):
                into = files.setdefault(line[2:], [])
            elif not line.startswith(("$ ", "> ")):
                into.append(line)
        texts = {file: "\n".join(content) + "\n" for file, content in files.items()}
        yield Broken(
            name,
            texts.pop("r.yaml"),
            tuple(line[2:] for line in lines if line.startswith("> ")),
            tuple(line[2:] for line in lines if line.startswith("$ ")),
            texts,
        )


def _alias_bomb() -> str:
    """Nine levels of ten aliases each: a billion values in half a kilobyte."""
    levels = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    levels += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    return GOOD + "\n".join(levels) + "\n"


TOO_MUCH = "r.yaml: more than 10000 values (aliases count every time) or more than 32 levels."
UNREADABLE_OR_HUGE = (
    Broken("an empty file", "", ("r.yaml:1:1: is empty. expected a mapping",)),
    Broken("a byte order mark alone", "\ufeff", ("r.yaml:1:1: is empty.",)),
    Broken("a byte order mark", f"\ufeff{GOOD}nam: x\n", ("r.yaml:3:1: nam: unknown key. Did you mean `name`?",)),
    Broken("Windows line ends", f"{GOOD}nam: x\n".replace("\n", "\r\n"), ("r.yaml:3:1: nam: unknown key.",)),
    Broken("latin-1", "name: café\n".encode("latin-1"), ("r.yaml: not UTF-8 (byte 9). Save it as UTF-8.",)),
    Broken("UTF-16", GOOD.encode("utf-16"), ("r.yaml: not UTF-8 (byte 0).",)),
    Broken("a NUL", f"{GOOD}name: a\x00b\n", ("r.yaml: not valid YAML:",)),
    Broken("a bell", f"{GOOD}name: a\x07b\n", ("r.yaml: not valid YAML:",)),
    Broken("an alias bomb", _alias_bomb(), (TOO_MUCH,)),
    Broken("40 levels of brackets", f"{GOOD}x: {'[' * 40}{']' * 40}\n", (TOO_MUCH,)),
    Broken("5000 levels of brackets", f"{GOOD}x: {'[' * 5000}{']' * 5000}\n", (TOO_MUCH,)),
    Broken("500 levels of indentation", GOOD + "".join(f"{' ' * n}k:\n" for n in range(500)), (TOO_MUCH,)),
    Broken("a number of 5000 digits", f"{GOOD}training: {{seed: {'9' * 5000}}}\n", ("r.yaml:3:18: not valid YAML:",)),
    Broken("a megabyte", f"{GOOD}# {'x' * (1 << 20)}\n", ("r.yaml: larger than 1048576 bytes.",)),
    Broken(
        "300 unknown keys",
        GOOD + "".join(f"k{n}: 1\n" for n in range(300)),
        (*(f"r.yaml:{n + 3}:1: k{n}: unknown key." for n in range(20)), "... and 280 more"),
    ),
)
BROKEN = (*_table(), *UNREADABLE_OR_HUGE)


def test_the_table_has_every_name_once() -> None:
    assert len({broken.name for broken in BROKEN}) == len(BROKEN) >= 40


@pytest.mark.parametrize("broken", BROKEN, ids=[broken.name for broken in BROKEN])
def test_every_problem_is_told_at_its_place(broken: Broken, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken.write(tmp_path)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RecipeError) as caught:
        read_recipe("r.yaml", broken.overrides)
    _check_message(str(caught.value), broken)


def _check_message(message: str, broken: Broken) -> None:
    lines = message.split("\n")
    if len(lines) > 1:
        # The head counts the problems; "... and N more" stands for N.
        num_hidden = int(lines[-1].split()[2]) - 1 if lines[-1].strip().startswith("... and") else 0
        assert lines[0] == f"r.yaml: {len(lines) - 1 + num_hidden} problems"
        lines = [line.removeprefix("  ") for line in lines[1:]]
    assert len(lines) == len(broken.expected), message
    for line, expected in zip(lines, broken.expected, strict=True):
        assert line.startswith(expected)
        assert line.endswith((".", "?", "more")), "a sentence ends in a full stop"


# Runs the real entry point on every case in one process, so that 120 starts of Python are not paid for.
DRIVER = """
import contextlib, io, json, os, sys, time
from peft_instruct.cli import main
results = []
for case in json.load(sys.stdin):
    os.chdir(case["folder"])
    sys.argv = ["peft-instruct", "recipe", "validate", "r.yaml", *case["options"]]
    stdout, stderr, start, code = io.StringIO(), io.StringIO(), time.process_time(), None
    with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
        try:
            main()
        except SystemExit as leaving:
            code = leaving.code
    results.append([code, stdout.getvalue(), stderr.getvalue(), time.process_time() - start])
heavy = sorted({"torch", "transformers", "datasets", "trl", "peft", "numpy"} & set(sys.modules))
print(json.dumps({"results": results, "heavy": heavy}))
"""


def test_the_command_line_exits_with_2_without_a_traceback_or_torch(tmp_path: Path) -> None:
    cases = []
    for number, broken in enumerate(BROKEN):
        broken.write(tmp_path / str(number))
        options = [part for override in broken.overrides for part in ("--set", override)]
        cases.append({"folder": str(tmp_path / str(number)), "options": options})
    done = subprocess.run(
        [sys.executable, "-c", DRIVER], input=json.dumps(cases), capture_output=True, text=True, check=True
    )
    answer = json.loads(done.stdout)
    assert answer["heavy"] == []
    for broken, (code, stdout, stderr, seconds) in zip(BROKEN, answer["results"], strict=True):
        assert code == 2, (broken.name, stderr)
        assert stdout == "", broken.name
        assert "Traceback" not in stderr, broken.name
        assert stderr.startswith("error: "), broken.name
        _check_message(stderr.removeprefix("error: ").rstrip("\n"), broken)
        assert seconds < 2, f"{broken.name}: nothing that a file holds may take the time that a bomb would"


@pytest.mark.parametrize("name", ["five problems", "an alias bomb", "a cycle of two"])
def test_a_fresh_command_tells_it_within_a_second(name: str, tmp_path: Path) -> None:
    broken = next(broken for broken in BROKEN if broken.name == name)
    broken.write(tmp_path)
    command = [sys.executable, "-m", "peft_instruct", "recipe", "validate", "r.yaml"]
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        seconds.append(time.perf_counter() - start)
        assert done.returncode == 2
        assert done.stdout == ""
        _check_message(done.stderr.removeprefix("error: ").rstrip("\n"), broken)
    # The least of three: other work on the machine only ever adds time.
    assert min(seconds) < 1.0
