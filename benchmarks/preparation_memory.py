"""Memory that rows take until a trainer may begin, per byte of their file. `python benchmarks/preparation_memory.py`

`--data` is any Alpaca-format file (the starter's rows where none is named): its rows are repeated with a number in
every text until the file has so many rows as asked. Each is prepared in a process of its own: read, checked, rendered,
split and tokenised, first with nothing in the cache, then out of it. The peak of the resident set is told over that of
the process before the rows are read, which holds the imports and the tokenizer.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from preparation import REPOSITORY

RESULT = REPOSITORY / "benchmarks" / "results" / "preparation_memory.json"
STARTER = REPOSITORY / "peft_instruct" / "starter"


def numbered_rows(data: Path, count: int, out: Path) -> None:
    text = data.read_text(encoding="utf-8")
    rows = [json.loads(line) for line in text.splitlines()] if data.suffix == ".jsonl" else json.loads(text)
    numbered = (
        {key: f"{row[key]} ({number})" if row[key].strip() else row[key] for key in ("instruction", "input", "output")}
        for number, row in ((number, rows[number % len(rows)]) for number in range(count))
    )
    out.write_text(json.dumps(list(numbered)), encoding="utf-8")


def prepared(rows: Path, split: str) -> dict[str, Any]:
    """What `train` does with a file before its first step, and what that takes."""
    from peft_instruct.bench.memory import peak_memory
    from peft_instruct.data.cache import Cache
    from peft_instruct.data.prepared import Preparation
    from peft_instruct.model.tokenizer import load_tokenizer
    from peft_instruct.recipe.data_section import DataSection
    from peft_instruct.training.collator import as_dataset

    tokenizer = load_tokenizer(STARTER / "base")
    section = DataSection(train=str(rows), max_length=512, split=split)
    before = peak_memory("cpu").num_bytes
    start = time.perf_counter()
    preparation = Preparation(section, 0, Cache.of_user())
    tokens, _ = preparation.rows("train", preparation.data().train, tokenizer)
    dataset = as_dataset(tokens)
    num_tokens = sum(len(row["input_ids"]) for row in dataset)
    peak = peak_memory("cpu")
    return {
        "seconds": round(time.perf_counter() - start, 2),
        "num_tokens": num_tokens,
        "more_bytes": peak.num_bytes - before,
        "how": peak.how,
    }


def measured(rows: Path, split: str, cache: Path) -> dict[str, Any]:
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "PEFT_INSTRUCT_CACHE": str(cache)}
    asked = [sys.executable, __file__, "--measure", split, "--data", str(rows)]
    done = subprocess.run(asked, stdout=subprocess.PIPE, text=True, env=environment, check=False)
    if done.returncode:
        raise SystemExit(f"{split}: failed; see above")
    found = dict(json.loads(done.stdout.splitlines()[-1]))
    return {**found, "bytes_per_byte": round(found["more_bytes"] / rows.stat().st_size, 1)}


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """By split and state: the memory of the largest file, and of each byte by which it is larger than the smallest."""
    found: dict[str, Any] = {}
    for split, state in dict.fromkeys((run["split"], run["state"]) for run in runs):
        own = sorted(
            (run for run in runs if (run["split"], run["state"]) == (split, state)), key=lambda run: run["file_bytes"]
        )
        first, last = own[0], own[-1]
        more = last["file_bytes"] - first["file_bytes"]
        found[f"{split} {state}"] = {
            "file_bytes": last["file_bytes"],
            "num_rows": last["num_rows"],
            "more_bytes": last["more_bytes"],
            "bytes_per_further_byte": round((last["more_bytes"] - first["more_bytes"]) / more, 1) if more else None,
        }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=STARTER / "instructions" / "train.jsonl")
    parser.add_argument("--rows", type=int, nargs="+", default=[26_000, 104_000])
    parser.add_argument("--splits", nargs="+", default=["groups", "rows"])
    parser.add_argument("--out", type=Path, default=RESULT)
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.measure:
        print(json.dumps(prepared(asked.data, asked.measure)))
        return
    runs = []
    with tempfile.TemporaryDirectory(prefix="preparation-memory-") as folder:
        for count in asked.rows:
            rows = Path(folder) / f"{count}.json"
            numbered_rows(asked.data, count, rows)
            for split in asked.splits:
                for state in ("cold", "cached"):
                    found = measured(rows, split, Path(folder) / f"{count}-{split}")
                    runs.append(
                        {"num_rows": count, "file_bytes": rows.stat().st_size, "split": split, "state": state, **found}
                    )
                    print(runs[-1], file=sys.stderr)
    from peft_instruct.environment import library_versions
    from peft_instruct.model.device import choose_compute, environment_stamp

    result = {
        "made": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "environment": environment_stamp(choose_compute("cpu", "fp32")) | {"versions": library_versions()},
        "data": asked.data.name,
        **summary(runs),
        "runs": runs,
    }
    asked.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(summary(runs)))


if __name__ == "__main__":
    main()
