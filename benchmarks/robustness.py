"""The long form of the fuzzing: recipes and rows gone wrong, counted. `python benchmarks/robustness.py --cases 5000`

Writes results/robustness.json: how many were read, how many told, how many ended in a traceback, and the slowest.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from datetime import date
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests" / "faults"))
RESULT = HERE / "results" / "robustness.json"


def main() -> None:
    from mutations import DATA_FILES
    from test_fuzz import fuzz_recipes, fuzz_rows, parquet_files

    from peft_instruct.environment import library_versions

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=5000, help="mutations in all, half of them recipes")
    wanted = parser.parse_args().cases
    DATA_FILES[".parquet"] = tuple(parquet_files())
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        # A traceback ends the command: there is no result then.
        rounds = {"recipes": fuzz_recipes(Path(folder), wanted // 2, repeatable=False)}
        for suffix in DATA_FILES:
            cases = wanted // 2 // len(DATA_FILES) + 1
            rounds[f"rows ({suffix})"] = fuzz_rows(Path(folder), suffix, cases, repeatable=False)
    for name, fuzzed in rounds.items():
        found[name] = {**fuzzed.outcomes, "slowest_seconds": round(fuzzed.slowest_seconds, 3)}
    total = sum(fuzzed.num_cases for fuzzed in rounds.values())
    record = {
        "date": date.today().isoformat(),
        "versions": library_versions(),
        "num_cases": total,
        "num_tracebacks": 0,
        "slowest_seconds": max(fuzzed.slowest_seconds for fuzzed in rounds.values()),
        "rounds": found,
    }
    RESULT.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    print(f"{total} cases, slowest {record['slowest_seconds']:.2f} s: {RESULT.relative_to(HERE.parent)}")


if __name__ == "__main__":
    main()
