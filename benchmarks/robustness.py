"""The long forms of the fault tests, counted. `python benchmarks/robustness.py [--only kill --cases 50]`

Writes results/robustness.json; a part that is run again with `--cases` adds to what is there, with another seed.
`--render` writes the README's table from it.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections import Counter
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import readme_table

HERE = Path(__file__).resolve().parent
TESTS = HERE.parent / "tests"
RESULT = readme_table.RESULTS / "robustness.json"
FUZZED = 5000


@dataclass(frozen=True)
class Part:
    """One kind of fault.

    Attributes:
        what: happens, and what holds then.
        short: how often in the suite.
        tests: a file of tests, and what the names of its tests hold.
        only: the mark of the tests; empty for tests that have no long form.
    """

    what: str
    short: str
    tests: tuple[str, str]
    only: str = "slow"


PARTS = {
    "kill": Part(
        "kill -9 at random times, a finished run included; the same command ends bit-equal to the run left alone",
        "20",
        ("faults/test_kill.py", "killed_at_random"),
    ),
    "kill_at_writes": Part(
        "kill -9 at every single write of a save, and of putting an adapter in its place",
        "all",
        ("training/test_save_points.py", ""),
        only="",
    ),
    "exact": Part(
        "stopped at 12 kinds of places by SIGTERM, SIGINT and kill -9: tensors, optimizer, random state and every "
        "logged loss end bit-equal",
        "4",
        ("faults/test_exact.py", ""),
    ),
    "signals": Part(
        "SIGTERM and SIGINT in every phase, imports and saves included; exit code, bit-equal end",
        "10",
        ("faults/test_signals.py", ""),
    ),
    "term_then_kill": Part(
        "SIGTERM, and SIGKILL within a second of it: no good checkpoint is lost", "5", ("faults/test_kill.py", "asked")
    ),
    "damage": Part(
        "truncations and flipped bits over all files of a checkpoint, and of an adapter: each is seen",
        "60 and 60",
        ("faults/test_damage.py", ""),
    ),
    "disk": Part(
        "a disk that fills up (a real small one, and a limit on file sizes): one line, resumable",
        "3",
        ("faults/test_storage.py", "disk or grow"),
        only="",
    ),
    "writers": Part("two writers at once: exactly one wins", "5", ("faults/test_storage.py", "writers")),
}


def run_part(part: Part, cases: int, seed: int) -> dict[str, Any]:
    """What the long form of a part came to: cases tried and passed, seconds, and whatever else its tests count."""
    file, names = part.tests
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        environment = {**os.environ, "FAULT_SEED": str(seed), **({"FAULT_CASES": str(cases)} if cases else {})}
        command = [sys.executable, "-m", "pytest", "-n", "0", "-m", part.only, "-k", names, f"--junitxml={report}"]
        command += ["-o", "junit_family=xunit1"]  # the other one has no properties
        began = time.monotonic()
        subprocess.run([*command, str(TESTS / file)], env=environment, cwd=HERE.parent, check=False)
        seconds = time.monotonic() - began
        return {**counted(report.read_text(encoding="utf-8")), "seconds": round(seconds, 1)}


def counted(report: str) -> dict[str, Any]:
    """Cases of every test that ran, as a JUnit report has them; a test that tells no number is one case.

    A test that fails has passed none of its cases.
    """
    counts: Counter[str] = Counter()
    failures = []
    for test in ElementTree.fromstring(report).iter("testcase"):
        if test.find("skipped") is not None:
            continue
        found = {each.get("name", ""): int(each.get("value", "0")) for each in test.iter("property")}
        cases = found.pop("cases", 1)
        failed = test.find("failure") is not None or test.find("error") is not None
        failures += [str(test.get("name"))] if failed else []
        counts.update({"tried": cases, "passed": 0 if failed else cases, **found})
    return {**counts, "failures": failures}


def run_fuzz(wanted: int) -> dict[str, Any]:
    """Recipes and rows gone wrong: how many were read, how many told, and the slowest. A traceback ends the command."""
    sys.path.insert(0, str(TESTS / "faults"))
    from mutations import DATA_FILES
    from test_fuzz import fuzz_recipes, fuzz_rows, parquet_files

    DATA_FILES[".parquet"] = tuple(parquet_files())
    with tempfile.TemporaryDirectory() as folder:
        rounds = {"recipes": fuzz_recipes(Path(folder), wanted // 2, repeatable=False)}
        for suffix in DATA_FILES:
            cases = wanted // 2 // len(DATA_FILES) + 1
            rounds[f"rows ({suffix})"] = fuzz_rows(Path(folder), suffix, cases, repeatable=False)
    return {
        "num_cases": sum(fuzzed.num_cases for fuzzed in rounds.values()),
        "num_tracebacks": 0,
        "slowest_seconds": round(max(fuzzed.slowest_seconds for fuzzed in rounds.values()), 3),
        "rounds": {
            name: {**fuzzed.outcomes, "slowest_seconds": round(fuzzed.slowest_seconds, 3)}
            for name, fuzzed in rounds.items()
        },
    }


def added(before: dict[str, Any] | None, now: dict[str, Any]) -> dict[str, Any]:
    """Two rounds of a part in one."""
    if before is None:
        return now
    return {
        name: round(value + now.get(name, 0), 1) if isinstance(value, int | float) else [*value, *now.get(name, [])]
        for name, value in before.items()
        if name != "date"
    }


def block() -> str:
    """The README's table between its marks; a part that was not run yet says so."""
    record = json.loads(RESULT.read_text(encoding="utf-8"))
    lines = ["| what happens | in the suite | long form: passed of tried |", "|---|---|---|"]
    for name, part in PARTS.items():
        found = record["faults"].get(name)
        said = f"{found['passed']:,} of {found['tried']:,} ({found['seconds']:.0f} s)" if found else "not run yet"
        lines.append(f"| {part.what} | {part.short} | {said} |")
    dates = sorted(found["date"] for found in record["faults"].values())
    when = f"; {dates[-1]}" if dates else ""
    libraries = readme_table.libraries(record["versions"])
    source = f"{record['machine']}; {libraries}{when}. From `{RESULT.relative_to(HERE.parent)}`."
    return readme_table.marked("faults", __file__, "\n".join([*lines, "", source]))


def machine() -> str:
    from peft_instruct.model.device import choose_compute

    return choose_compute("cpu").device_name


def main() -> None:
    from peft_instruct.environment import library_versions

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", action="append", choices=[*PARTS, "fuzz"], help="a part; again for more")
    parser.add_argument("--cases", type=int, default=0, help="of each part, added to what is there; else all, anew")
    parser.add_argument("--render", action="store_true", help="only write the README's table")
    asked = parser.parse_args()
    if asked.render:
        readme_table.write(block())
        return
    record = json.loads(RESULT.read_text(encoding="utf-8"))
    if (record["versions"], record["machine"]) != (library_versions(), machine()):
        record = {**record, "versions": library_versions(), "machine": machine(), "faults": {}}
    today = {"date": date.today().isoformat()}
    for name in asked.only or [*PARTS, "fuzz"]:
        if name == "fuzz":
            record["fuzz"] = {**today, "machine": machine(), **run_fuzz(asked.cases or FUZZED)}
        else:
            before = record["faults"].get(name) if asked.cases else None
            found = run_part(PARTS[name], asked.cases, before["tried"] if before else 0)
            record["faults"][name] = {**today, **added(before, found)}
            print(name, record["faults"][name])
        RESULT.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
