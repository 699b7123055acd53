"""The honest table: the starter tuned by each method, three seeds each, on items that no training row names.

    python benchmarks/starter_table.py              measures (about 25 minutes on 2 cores) and writes the result file
    python benchmarks/starter_table.py --curve      full training at several learning rates, to a file of its own
    python benchmarks/starter_table.py --render     writes the README's table from the result files

Each run is a process of its own: the real `train`, and the real `evaluate` of the folder it leaves, on the held-out
questions and on the same in phrasings that no training row uses.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import readme_table

RESULT = readme_table.RESULTS / "starter_table.json"
CURVE = readme_table.RESULTS / "starter_full_curve.json"
CURVE_RATES = (1e-4, 2e-4, 5e-4, 1e-3)
SEEDS = (0, 1, 2)
METHODS = {
    "LoRA r=4": ("quickstart_lora", ["method.rank=4", "method.alpha=8"]),
    "LoRA r=16": ("quickstart_lora", ["method.rank=16", "method.alpha=32"]),
    "rsLoRA r=16": ("quickstart_lora", ["method.rank=16", "method.rslora=true", "method.alpha=16"]),
    "DoRA r=16": ("quickstart_dora", ["method.rank=16", "method.alpha=32"]),
    "full": ("quickstart_full", []),
}


def measure(method: str, seed: int, folder: Path, *overrides: str) -> dict[str, Any]:
    """One run in a process of its own (`run_one`)."""
    one = [sys.executable, __file__, "--one", method, str(seed), str(folder), *overrides]
    done = subprocess.run(one, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{method}, seed {seed}: exit code {done.returncode}: {done.stderr[-800:]}")
    return dict(json.loads(done.stdout))


def run_one(method: str, seed: int, folder: Path, *more: str) -> dict[str, Any]:
    """The figures of `train`, and of `evaluate` on both held-out files; `more` are overrides beyond the method's."""
    from peft_instruct.commands.evaluate import evaluate
    from peft_instruct.commands.train import train
    from peft_instruct.environment import prepare_environment

    prepare_environment([])

    def say(line: str) -> None:
        print(line, file=sys.stderr)

    recipe, overrides = METHODS[method]
    trained = train(recipe, [*overrides, f"training.seed={seed}", "evaluation.rows=0", *more], out=folder, say=say)
    tested, unseen = (
        evaluate(
            str(folder), data=f"starter:{split}", rows=9999, batch_size=64, say=say,
            untuned=split == "test" and (method, seed) == (next(iter(METHODS)), SEEDS[0]),
        ).record()
        for split in ("test", "test_unseen_phrasings")
    )  # fmt: skip
    return {
        "method": method,
        "seed": seed,
        "base": tested["base"],
        "exact_match": tested["tuned"]["exact_match"],
        "unseen_exact_match": unseen["tuned"]["exact_match"],
        "stop_share": tested["tuned"]["stop_share"],
        "perplexity": tested["tuned"]["perplexity"],
        "train_seconds": trained.train_seconds,
        "total_seconds": trained.total_seconds,
        "peak_memory_bytes": trained.peak_memory_bytes,
        "weight_bytes": trained.weight_bytes,
        "skills": {name: group["exact_match"] for name, group in tested["tuned"]["groups"].items()},
        "environment": tested["environment"],
    }


def measure_all(seeds: tuple[int, ...]) -> Iterator[dict[str, Any]]:
    """The record after each run, so that a stopped comparison leaves what it has."""
    runs: list[dict[str, Any]] = []
    base, environment = None, None
    with tempfile.TemporaryDirectory() as scratch:
        # Seeds outermost: a machine that slows down slows every method alike.
        for seed in seeds:
            for number, method in enumerate(METHODS):
                run = measure(method, seed, Path(scratch) / f"run-{seed}-{number}")
                print(f"{method} seed {seed}: {run['exact_match']:.1%}, {run['train_seconds']:.0f} s", file=sys.stderr)
                found, environment = run.pop("base"), run.pop("environment")
                base = base or {name: found[name] for name in ("exact_match", "perplexity", "stop_share")}
                runs.append(run)
                yield {
                    "made_by": "python benchmarks/starter_table.py",
                    "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
                    "environment": environment,
                    "base": base,
                    "runs": runs,
                }


def measure_curve() -> dict[str, Any]:
    """Full training, seed 0, at each learning rate."""
    runs = []
    with tempfile.TemporaryDirectory() as scratch:
        for rate in CURVE_RATES:
            run = measure("full", SEEDS[0], Path(scratch) / str(rate), f"training.learning_rate={rate}")
            print(f"full at {rate}: {run['exact_match']:.1%}", file=sys.stderr)
            environment = run.pop("environment")
            runs.append({"learning_rate": rate, **run})
    return {
        "made_by": "python benchmarks/starter_table.py --curve",
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "environment": environment,
        "runs": runs,
    }


def curve_line(curve: dict[str, Any]) -> str:
    shown = ", ".join(f"{run['learning_rate']:g}: {run['exact_match']:.1%}" for run in curve["runs"])
    return f"Full training by learning rate, seed 0 (`benchmarks/results/{CURVE.name}`): {shown}."


def table(record: dict[str, Any], curve: dict[str, Any] | None = None) -> str:
    """The README's table: means over seeds, with the lowest and highest in brackets where they differ."""
    runs = record["runs"]
    lines = [
        "| method | exact match | in unseen phrasings | answers that stop | perplexity | train, s | peak GB | MB |",
        "|---|---|---|---|---|---|---|---|",
    ]
    base = record["base"]
    lines.append(f"| base | {base['exact_match']:.1%} | | {base['stop_share']:.1%} | {base['perplexity']:.2f} | | | |")
    for method in METHODS:
        mine = [run for run in runs if run["method"] == method]
        if mine:
            lines.append(
                f"| {method} | {_spread(mine, 'exact_match', '.1%')} | {_spread(mine, 'unseen_exact_match', '.1%')} | "
                f"{_spread(mine, 'stop_share', '.1%')} | {_spread(mine, 'perplexity', '.3f')} | "
                f"{_spread(mine, 'train_seconds', '.0f')} | {_mean(mine, 'peak_memory_bytes') / 1e9:.2f} | "
                f"{_mean(mine, 'weight_bytes') / 1e6:.2f} |"
            )
    shown = [curve_line(curve), ""] if curve else []
    return "\n".join([*lines, "", *shown, *_skill_lines(runs), _machine(record)])


def _skill_lines(runs: list[dict[str, Any]]) -> list[str]:
    """Exact match by skill of the quickstart's own method, the weakest first."""
    mine = [run for run in runs if run["method"] == "LoRA r=16"]
    means = {name: statistics.mean(run["skills"][name] for run in mine) for name in mine[0]["skills"]}
    ordered = sorted(means.items(), key=lambda pair: pair[1])
    shown = ", ".join(f"{name.replace('_', ' ')} {share:.0%}" for name, share in ordered)
    weak = sum(share < 0.4 for share in means.values())
    return [f"By skill (LoRA r=16, mean of the seeds; {weak} of {len(means)} under 40 %): {shown}.", ""]


def _machine(record: dict[str, Any]) -> str:
    stamp = record["environment"]
    seeds = len({run["seed"] for run in record["runs"]})
    return (
        f"Mean (lowest–highest) of {seeds} seeds on {stamp['device_name']}, {stamp['threads']} threads; "
        f"{readme_table.libraries(stamp['versions'])}; {record['created'][:10]}. "
        f"From `benchmarks/results/{RESULT.name}`."
    )


def _mean(runs: list[dict[str, Any]], key: str) -> float:
    return statistics.mean(run[key] for run in runs)


def _spread(runs: list[dict[str, Any]], key: str, shape: str) -> str:
    values = [run[key] for run in runs]
    low, high = format(min(values), shape), format(max(values), shape)
    middle = format(statistics.mean(values), shape)
    return middle if low == high else f"{middle} ({low}–{high})"


def block() -> str:
    """The table between its marks, from the result files."""
    curve = json.loads(CURVE.read_text(encoding="utf-8")) if CURVE.is_file() else None
    return readme_table.marked("starter table", __file__, table(json.loads(RESULT.read_text(encoding="utf-8")), curve))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--render", action="store_true", help="only write the README's table")
    parser.add_argument("--curve", action="store_true", help="only full training at several learning rates")
    parser.add_argument("--seeds", type=int, default=len(SEEDS), help="how many seeds")
    parser.add_argument("--one", nargs="+", metavar="METHOD SEED FOLDER [OVERRIDE]", help="one run, figures on stdout")
    options = parser.parse_args()
    if options.one:
        method, seed, folder, *overrides = options.one
        print(json.dumps(run_one(method, int(seed), Path(folder), *overrides)))
        return
    if options.curve:
        CURVE.write_text(json.dumps(measure_curve(), indent=1) + "\n", encoding="utf-8")
    elif not options.render:
        RESULT.parent.mkdir(parents=True, exist_ok=True)
        for record in measure_all(SEEDS[: options.seeds]):
            RESULT.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    readme_table.write(block())


if __name__ == "__main__":
    main()
