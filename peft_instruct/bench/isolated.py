"""Each cell in a process of its own: no warm cache, no memory and no failure of one reaches another."""

from __future__ import annotations

import json
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from peft_instruct.environment import in_own_process
from peft_instruct.whole_file import whole_file

MOST_CHARACTERS_OF_A_REASON = 400


def run_isolated(module: str, request: dict[str, Any]) -> dict[str, Any]:
    """Run `module REQUEST.json OUT.json`.

    Returns:
        what the process wrote to OUT.json; `{"failed": reason}` where it wrote nothing.
    """
    with tempfile.TemporaryDirectory(prefix="peft-instruct-bench-") as folder:
        asked, out, errors = (Path(folder) / name for name in ("request.json", "out.json", "stderr.txt"))
        asked.write_text(json.dumps(request), encoding="utf-8")
        # Into a file: a pipe would have to be drained while the cell is timed.
        with errors.open("wb") as stderr:
            done = subprocess.run(
                in_own_process(module, asked, out),
                stdin=subprocess.DEVNULL,
                stdout=stderr,
                stderr=stderr,
                check=False,
            )
        if out.is_file():
            found: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
            return found
        return {"failed": _reason(done.returncode, errors.read_text(encoding="utf-8", errors="replace"))}


def hand_back(found: dict[str, Any], out: Path) -> None:
    """What the process does at its end: OUT.json is there whole, or not at all."""
    with whole_file(out) as file:
        json.dump(found, file)


def _reason(exit_code: int, output: str) -> str:
    if exit_code < 0:
        name = signal.Signals(-exit_code).name
        likely = ": most often the system's answer to too little memory" if name == "SIGKILL" else ""
        return f"the process was ended by {name}{likely}"
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    last = lines[-1] if lines else "no output"
    return f"the process ended with exit code {exit_code} ({last[:MOST_CHARACTERS_OF_A_REASON]})"
