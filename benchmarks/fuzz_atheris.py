"""Recipes and rows fuzzed by what the code does with them. `python benchmarks/fuzz_atheris.py --seconds 120`

atheris (libFuzzer) keeps the inputs that reach new lines and changes those further. It is no dependency of the project:
`pip install atheris` (Linux, Python 3.11 to 3.13) before. Adds `atheris` to results/robustness.json; an input that ends
in a traceback, or takes five seconds, is kept in a file that is named, and there is no result then.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from datetime import date
from pathlib import Path

HERE = Path(__file__).resolve().parent
RESULT = HERE / "results" / "robustness.json"
SUFFIXES = (".yaml", ".json", ".jsonl", ".csv")
"""The first byte of an input chooses among them."""
MOST_BYTES = 4096


def fuzz_here(options: list[str]) -> None:
    """libFuzzer in this process, which it ends."""
    import atheris

    sys.path.insert(0, str(HERE.parent / "tests" / "faults"))
    with atheris.instrument_imports(include=["peft_instruct"]):
        from test_fuzz import recipe_outcome, rows_outcome

    with tempfile.TemporaryDirectory() as folder:

        def one(content: bytes) -> None:
            suffix = SUFFIXES[content[0] % len(SUFFIXES)] if content else ".yaml"
            act = recipe_outcome if suffix == ".yaml" else rows_outcome
            act(Path(folder) / f"x{suffix}", content[1:])

        atheris.Setup([sys.argv[0], *options], one)
        atheris.Fuzz()


def write_corpus(folder: Path) -> None:
    sys.path.insert(0, str(HERE.parent / "tests" / "faults"))
    from mutations import DATA_FILES
    from test_fuzz import recipe_originals

    originals = [(0, content) for content in recipe_originals()]
    originals += [(SUFFIXES.index(suffix), content) for suffix in SUFFIXES[1:] for content in DATA_FILES[suffix]]
    for number, (kind, content) in enumerate(originals):
        (folder / str(number)).write_bytes(bytes([kind]) + content[: MOST_BYTES - 1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=120)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        write_corpus(Path(folder))
        options = [f"-max_total_time={asked.seconds}", "-timeout=5", f"-max_len={MOST_BYTES}", folder]
        command = [sys.executable, __file__, "--here", *options]
        done = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False, cwd=HERE.parent)
    ended = re.search(r"Done (\d+) runs in (\d+) second", done.stderr)
    if done.returncode or ended is None:
        raise SystemExit(done.stderr[-4000:])
    # libFuzzer's counters that were touched: at the originals, and in the end.
    covered = re.findall(r"cov: (\d+)", done.stderr)
    record = json.loads(RESULT.read_text(encoding="utf-8"))
    record["atheris"] = {
        "date": date.today().isoformat(),
        "num_cases": int(ended[1]),
        "seconds": int(ended[2]),
        "num_tracebacks": 0,
        "coverage_first": int(covered[0]),
        "coverage": int(covered[-1]),
    }
    RESULT.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    print(record["atheris"])


if __name__ == "__main__":
    if sys.argv[1:2] == ["--here"]:
        fuzz_here(sys.argv[2:])
    else:
        main()
