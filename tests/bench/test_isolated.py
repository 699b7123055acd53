"""A cell that dies is a reason, and the bench goes on."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from peft_instruct.bench.isolated import run_isolated


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A name whose body each test writes."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return "a_cell_of_a_test"


def body(tmp_path: Path, module: str, text: str) -> None:
    (tmp_path / f"{module}.py").write_text(text, encoding="utf-8")


def test_the_request_goes_in_and_the_result_comes_out(tmp_path: Path, module: str) -> None:
    body(
        tmp_path,
        module,
        "import json, sys, pathlib\n"
        "asked = json.loads(pathlib.Path(sys.argv[1]).read_text())\n"
        "pathlib.Path(sys.argv[2]).write_text(json.dumps({'measured': asked['number'] + 1}))\n",
    )
    assert run_isolated(module, {"number": 41}) == {"measured": 42}


def test_a_process_that_ends_with_an_error_tells_its_last_line(tmp_path: Path, module: str) -> None:
    body(tmp_path, module, "print('noise')\nraise MemoryError('DefaultCPUAllocator: can\\'t allocate memory')\n")
    assert run_isolated(module, {}) == {
        "failed": "the process ended with exit code 1 (MemoryError: DefaultCPUAllocator: can't allocate memory)"
    }


@pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX's")
def test_a_killed_process_is_named_with_the_likely_cause(tmp_path: Path, module: str) -> None:
    body(tmp_path, module, "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n")
    assert run_isolated(module, {}) == {
        "failed": "the process was ended by SIGKILL: most often the system's answer to too little memory"
    }


def test_a_result_counts_even_when_the_process_fails_after_it(tmp_path: Path, module: str) -> None:
    body(
        tmp_path,
        module,
        "import sys, pathlib\npathlib.Path(sys.argv[2]).write_text('{\"measured\": 1}')\nsys.exit(3)\n",
    )
    assert run_isolated(module, {}) == {"measured": 1}
