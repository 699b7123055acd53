"""How far `train --dry-run` is off: its predictions beside the very runs.

    python benchmarks/dry_run.py --base DIR --data alpaca.json       writes results/dry_run.json
    python benchmarks/dry_run.py … --only NAME [--only NAME]         these of RUNS, the others stay as they are in it

`--base` is a folder with GPT-2 124M (any weights: neither time nor memory depends on them), `--data` an Alpaca-format
file; without the two the starter alone is run. `train --dry-run` quotes the largest errors of the result file.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from peft_instruct.commands.dry_run import COMPARED
from peft_instruct.environment import prepare_environment

REPOSITORY = Path(__file__).resolve().parent.parent
RESULT = REPOSITORY / COMPARED
GPT2 = [
    "data.limit=600", "training.max_steps=12", "training.accumulation=1",
    "samples.count=0", "samples.instructions=[]", "evaluation.rows=16",
]  # fmt: skip
RUNS = {
    "quickstart_lora": ["training.max_steps=100"],
    "quickstart_full": ["training.max_steps=100"],
    "gpt2_lora": GPT2,
    "gpt2_full": GPT2,
    "gpt2_lora by tokens": [*GPT2, "training.batch_tokens=1024"],
}
"""Recipe, and what is special in it -> overrides."""


def train(recipe: str, overrides: list[str], out: Path, *more: str) -> tuple[dict[str, Any], float]:
    """The JSON document of the command, and its seconds from start to exit."""
    words = [word for override in overrides for word in ("--set", override)]
    command = [sys.executable, "-m", "peft_instruct", "train", recipe, *words, "--out", str(out), "--json", *more]
    began = time.monotonic()
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout), time.monotonic() - began


def compared(name: str, overrides: list[str], work: Path) -> dict[str, Any]:
    """One prediction and its run."""
    recipe = name.split()[0]
    foretold, probing = train(recipe, overrides, work / name, "--dry-run")
    happened, seconds = train(recipe, overrides, work / name)
    training = foretold["seconds"]["training"] + foretold["seconds"]["validation"]
    pairs = {
        "seconds": (foretold["total_seconds"], seconds),
        "training_seconds": (training, happened["train_seconds"]),
        "bytes": (foretold["memory"]["peak_bytes"], happened["peak_memory_bytes"]),
    }
    return {
        "name": name,
        "overrides": RUNS[name],
        "num_steps": happened["num_steps"],
        "probe_seconds": probing,
        "predicted": {key: pair[0] for key, pair in pairs.items()},
        "measured": {key: pair[1] for key, pair in pairs.items()},
        "error": {key: pair[0] / pair[1] - 1 for key, pair in pairs.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--base", type=Path)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--only", choices=RUNS, action="append")
    parser.add_argument("--out", type=Path, default=RESULT)
    arguments = parser.parse_args()
    has_gpt2 = arguments.base is not None and arguments.data is not None
    names = [name for name in arguments.only or RUNS if has_gpt2 or not name.startswith("gpt2")]
    prepare_environment([])
    from peft_instruct.model.device import choose_compute, environment_stamp

    is_part = arguments.only and arguments.out.is_file()
    found = {run["name"]: run for run in json.loads(arguments.out.read_text())["runs"]} if is_part else {}
    with tempfile.TemporaryDirectory() as work:
        for name in names:
            local = [f"model.base={arguments.base}", f"data.train={arguments.data}"] * name.startswith("gpt2")
            found[name] = compared(name, [*RUNS[name], *local], Path(work))
            error = found[name]["error"]
            print(f"{name}: time {error['seconds']:+.1%}, training {error['training_seconds']:+.1%}, memory "
                  f"{error['bytes']:+.1%}", flush=True)  # fmt: skip
            record = {
                "what": "train --dry-run beside the run itself; error is predicted / measured - 1",
                "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
                "environment": environment_stamp(choose_compute("auto", "auto")),
                "runs": [found[name] for name in RUNS if name in found],
            }
            arguments.out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
