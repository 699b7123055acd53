"""`data check` on many rows: seconds, memory and findings. `python benchmarks/data_check.py --data alpaca.json`

The rows are those of `benchmarks/preparation_memory.py`: the file's own (the starter's where none is named), repeated
with a number in every text until there are `--rows`. The command runs as a user types it, in a process of its own,
whose seconds hold its start and its imports.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from preparation_memory import numbered_rows

REPOSITORY = Path(__file__).resolve().parent.parent
RESULT = REPOSITORY / "benchmarks" / "results" / "data_check.json"
STARTER_ROWS = REPOSITORY / "peft_instruct" / "starter" / "instructions" / "train.jsonl"


def checked(rows: Path) -> tuple[dict[str, float], dict[str, Any]]:
    """The figures of one run, and what it printed."""
    printed = rows.with_suffix(".findings")
    start = time.perf_counter()
    with printed.open("wb") as out:
        child = subprocess.Popen(
            [sys.executable, "-m", "peft_instruct", "data", "check", str(rows), "--json"],
            stdout=out,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        )
        # A child's ru_maxrss begins at what its parent held; this process holds a twentieth of it.
        _, status, used = os.wait4(child.pid, 0)
    seconds = time.perf_counter() - start
    found = json.loads(printed.read_text(encoding="utf-8"))
    if os.waitstatus_to_exitcode(status) not in (0, 3):
        raise SystemExit("data check failed; see above")
    figures = {
        "wall_seconds": round(seconds, 2),
        "processor_seconds": round(used.ru_utime + used.ru_stime, 2),
        "peak_bytes": used.ru_maxrss * (1 if sys.platform == "darwin" else 1024),
    }
    return figures, found


def measured(data: Path, count: int, num_rounds: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="data-check-") as folder:
        rows = Path(folder) / "rows.json"
        numbered_rows(data, count, rows)
        rounds = []
        for _ in range(num_rounds):
            figures, found = checked(rows)
            print(figures, file=sys.stderr)
            rounds.append(figures)
        return {
            "data": data.name,
            "num_rows": sum(found["rows"].values()),
            "num_bytes": rows.stat().st_size,
            "num_findings": len(found["findings"]),
            "findings": {code: kind["count"] for code, kind in found["kinds"].items()},
            "median_wall_seconds": statistics.median(each["wall_seconds"] for each in rounds),
            "most_bytes": max(each["peak_bytes"] for each in rounds),
            "rounds": rounds,
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=STARTER_ROWS, help="an Alpaca-format .json or .jsonl file")
    parser.add_argument("--rows", type=int, default=52_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=RESULT)
    asked = parser.parse_args()
    figures = measured(asked.data, asked.rows, asked.rounds)
    # After the measurement: torch in this process would count as memory of the child.
    from peft_instruct.environment import library_versions
    from peft_instruct.model.device import choose_compute, environment_stamp

    result = {
        "made": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "environment": environment_stamp(choose_compute("cpu", "fp32")) | {"versions": library_versions()},
        **figures,
    }
    asked.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps({key: result[key] for key in ("num_rows", "median_wall_seconds", "most_bytes")}))


if __name__ == "__main__":
    main()
