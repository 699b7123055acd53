"""The same rows through peft-instruct and through what people use instead, alternating in one run.

    python benchmarks/compare_rivals.py --base DIR --data alpaca.json --work DIR        measure, write the result file
    python benchmarks/compare_rivals.py --render        the tables, here and in the README, from what was measured

`--base` is a folder with GPT-2 124M (random weights will do: no figure depends on what they hold) and `--data` any
Alpaca-format file. The starter: `--model "The starter" --base peft_instruct/starter/base --data starter:train
--max-length 192 --steps 200 --case cpu_starter`; a processor that emulates bf16: `ONEDNN_MAX_CPU_ISA=AVX2` before the
command, `--case cpu_avx2 --fp32`. Without `--fp32` a step of TRL as documented, which turns bf16 on, takes minutes.

Each rival lives in a virtual environment of its own under `--work`, made where it is not there; each measurement is a
process of its own: an epoch over the same rows, in the order that the program makes of them. A ratio is the median over
the rounds of ours by theirs in the same round. All but TRL as documented take bf16 where the device is faster in it
than in fp32, else fp32; TRL's own default is bf16.
On a machine with CUDA, `--device cuda` measures there.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import readme_table

RIVALS = Path(__file__).resolve().parent / "rivals"
# Program -> what its virtual environment needs; None: this one.
PROGRAMS: dict[str, list[str] | None] = {
    "ours": None,
    "trl_documented": ["torch<2.14", "trl", "peft"],
    "trl_tuned": ["torch<2.14", "trl", "peft"],
    "transformers_peft": ["torch<2.14", "trl", "peft"],
    "llama_factory": ["torch==2.11.0", "torchaudio==2.11.0", "llamafactory"],
}
TITLES = {
    "ours": "peft-instruct",
    "trl_documented": "TRL's SFTTrainer as documented",
    "trl_tuned": "TRL's SFTTrainer, tuned by hand",
    "transformers_peft": "transformers.Trainer + PEFT",
    "llama_factory": "LLaMA-Factory",
}
BATCH_SIZE = 8
# What of the environment decides a speed; in the result file where it is set.
VARIABLES = ("ONEDNN_MAX_CPU_ISA", "OMP_NUM_THREADS")


def environment_python(program: str, work: Path) -> str:
    """The interpreter that a program runs in, its virtual environment made first."""
    needs = PROGRAMS[program]
    if needs is None:
        return sys.executable
    folder = work / "environments" / (program if program == "llama_factory" else "trl")
    python = folder / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "-q", *needs], check=True)
    return str(python)


def write_rows(data: Path, out: Path, count: int) -> None:
    """Prompts and completions by our Alpaca template; as many as the steps take, so that all programs see the same."""
    from peft_instruct.data.prepare import read_source
    from peft_instruct.recipe.data_section import DataSection

    pairs = read_source(str(data), DataSection(train=str(data)))[0][:count]
    with out.open("w", encoding="utf-8") as stream:
        for pair in pairs:
            stream.write(json.dumps({"prompt": pair.prompt, "completion": pair.completion}) + "\n")


def measure(program: str, asked: dict[str, Any], work: Path) -> dict[str, Any]:
    folder = work / "runs" / program
    request, out = work / "request.json", work / "answer.json"
    out.unlink(missing_ok=True)
    request.write_text(json.dumps({**asked, "folder": str(folder)}), encoding="utf-8")
    script = RIVALS / f"{program}.py"
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "true", "WANDB_DISABLED": "true"}
    with (work / f"{program}.log").open("ab") as log:
        subprocess.run(
            [environment_python(program, work), str(script), str(request), str(out)],
            stdout=log, stderr=log, env=environment, check=False,
        )  # fmt: skip
    if not out.is_file():
        # The last line alone: the ones before it name places of the machine.
        said = (work / f"{program}.log").read_text(encoding="utf-8", errors="replace").strip()
        return {"failed": said.splitlines()[-1][-400:] if said else "said nothing"}
    return dict(json.loads(out.read_text(encoding="utf-8")))


def compare(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """The record after each round, so that a stopped comparison leaves what it has."""
    from peft_instruct.model.device import choose_compute, environment_stamp

    options.work.mkdir(parents=True, exist_ok=True)
    num_rows = BATCH_SIZE * (options.warmup + options.steps)
    write_rows(options.data, options.work / "rows.jsonl", num_rows)
    for program in options.programs:
        environment_python(program, options.work)
    compute = choose_compute(options.device)
    before = json.loads(result_file(options).read_text(encoding="utf-8"))["rounds"] if options.append else {}
    record = {
        "made_by": "python benchmarks/compare_rivals.py",
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "model": options.model, "batch_size": BATCH_SIZE, "num_rows": num_rows, "num_steps": options.steps,
        "environment": environment_stamp(compute),
        "variables": {name: os.environ[name] for name in VARIABLES if name in os.environ},
        "rounds": before,
    }  # fmt: skip
    for method in options.methods:
        asked = {
            "base": str(options.base.resolve()), "rows": str((options.work / "rows.jsonl").resolve()),
            "method": method, "batch_size": BATCH_SIZE, "max_length": options.max_length, "num_warmup": options.warmup,
            "num_steps": options.warmup + options.steps, "device": options.device,
            "learning_rate": 2e-4 if method == "lora" else 5e-5, "most_seconds": options.most_seconds,
        }  # fmt: skip
        for number in range(options.rounds):
            # Turned by one each round, so that no program always follows the same one.
            turn = number % len(options.programs)
            found = {}
            for program in options.programs[turn:] + options.programs[:turn]:
                bf16 = not options.fp32 if program == "trl_documented" else compute.precision == "bf16"
                found[program] = measure(program, {**asked, "bf16": bf16}, options.work)
                speed = found[program].get("tokens_per_second", found[program])
                print(f"{method} round {number + 1} {program}: {speed}", file=sys.stderr)
            record["rounds"].setdefault(method, []).append(found)
            yield record


def summary(record: dict[str, Any]) -> list[dict[str, Any]]:
    """One line per method and program: medians over the rounds, the ratio from within each round."""
    lines = []
    for method, rounds in record["rounds"].items():
        for program in dict.fromkeys(program for found in rounds for program in found):
            measured = [found for found in rounds if "tokens_per_second" in found.get(program, {})]
            if not measured:
                lines.append({"method": method, "program": program})
                continue
            runs = [found[program] for found in measured]
            ratios = [
                found["ours"]["tokens_per_second"] / run["tokens_per_second"]
                for found, run in zip(measured, runs, strict=True)
            ]
            speeds = [run["tokens_per_second"] for run in runs]
            lines.append(
                {
                    "method": method, "program": program, "settings": runs[0]["settings"],
                    "tokens_per_second": statistics.median(speeds), "slowest": min(speeds), "fastest": max(speeds),
                    "fill_fraction": statistics.median(run["fill_fraction"] for run in runs),
                    "peak_resident_gb": statistics.median(run["peak_resident_bytes"] for run in runs) / 1e9,
                    "ours_by_theirs": statistics.median(ratios), "ratios": [round(ratio, 2) for ratio in ratios],
                }
            )  # fmt: skip
    return lines


def table(record: dict[str, Any], file: str) -> str:
    """A table and the line that says of what."""
    out = [
        "| | real tokens/s (slowest–fastest) | peak memory | ours by theirs |",
        "|---|---|---|---|",
    ]
    for line in summary(record):
        name = f"{line['method']}: {TITLES[line['program']]}"
        if "ratios" not in line:
            out.append(f"| {name} | did not run | | |")
            continue
        ratio = "" if line["program"] == "ours" else f"{line['ours_by_theirs']:.1f}×"
        out.append(
            f"| {name} | {line['tokens_per_second']:.0f} ({line['slowest']:.0f}–{line['fastest']:.0f}) "
            f"| {line['peak_resident_gb']:.1f} GB | {ratio} |"
        )
    environment = record["environment"]
    num_rounds = min(len(line["ratios"]) for line in summary(record) if "ratios" in line)
    machine = [environment["device_name"], *(f"{name}={value}" for name, value in record["variables"].items())]
    out.append("")
    out.append(
        f"{record['model']}, batch {record['batch_size']}, at least {num_rounds} alternating rounds of "
        f"{record['num_steps']} steps (fewer where rows come in random order); {', '.join(machine)}, "
        f"{readme_table.libraries(environment['versions'])}, {record['created'][:10]}. "
        f"From `benchmarks/results/{file}`."
    )
    return "\n".join(out)


def records() -> dict[str, dict[str, Any]]:
    """What was measured, by the names of the result files."""
    files = sorted(readme_table.RESULTS.glob("rivals_*.json"))
    return {file.name: json.loads(file.read_text(encoding="utf-8")) for file in files}


def tables() -> str:
    """A table of each result file, between the marks of the page of benchmarks."""
    found = "\n\n".join(table(record, name) for name, record in records().items())
    return readme_table.marked("rivals tables", __file__, found)


def block() -> str:
    """What they come to, for the README: ours by theirs, a column for each file, GPT-2 first."""
    columns, cells = [], []
    for record in sorted(
        records().values(), key=lambda record: (record["model"] != "GPT-2 124M", record["environment"]["precision"])
    ):
        environment = record["environment"]
        columns.append(
            f"{record['model']}, {environment['precision']}: {environment['device_name']}, {record['created'][:10]}"
        )
        cells.append({(line["method"], line["program"]): line for line in summary(record) if "ratios" in line})
    out = [f"| ours by theirs | {' | '.join(columns)} |", "|---|" + "---|" * len(columns)]
    for method in ("lora", "full"):
        ours = [lines.get((method, "ours")) for lines in cells]
        out.append(
            _row(f"{method}: real tokens/s here", [line and f"{line['tokens_per_second']:,.0f}" for line in ours])
        )
        for program in list(PROGRAMS)[1:]:
            theirs = [lines.get((method, program)) for lines in cells]
            out.append(_row(f"by {TITLES[program]}", [line and f"{line['ours_by_theirs']:.1f}×" for line in theirs]))
        tuned = [lines.get((method, "trl_tuned")) for lines in cells]
        memory = [
            mine["peak_resident_gb"] / other["peak_resident_gb"] if mine and other else None
            for mine, other in zip(ours, tuned, strict=True)
        ]
        out.append(
            _row(f"share of the peak memory of {TITLES['trl_tuned']}", [share and f"{share:.2f}×" for share in memory])
        )
    return readme_table.marked("rivals", __file__, "\n".join(out))


def _row(name: str, cells: Sequence[str | None]) -> str:
    return f"| {name} | {' | '.join(cell or '–' for cell in cells)} |"


def result_file(options: argparse.Namespace) -> Path:
    return readme_table.RESULTS / f"rivals_{options.case or options.device}.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="GPT-2 124M", help="what the base is, in words")
    parser.add_argument("--base", type=Path, help="folder with the base")
    parser.add_argument("--data", type=Path, help="Alpaca-format rows")
    parser.add_argument("--max-length", type=int, default=512)
    parser.add_argument("--case", default="", help="names the result file, where the device does not")
    parser.add_argument("--work", type=Path, help="where the environments and the runs go")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--warmup", type=int, default=2)
    parser.add_argument("--most-seconds", type=float, default=60, help="measured seconds of a rival in random order")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--methods", nargs="+", default=["lora", "full"])
    parser.add_argument("--programs", nargs="+", default=list(PROGRAMS), choices=list(PROGRAMS))
    parser.add_argument("--fp32", action="store_true", help="TRL as documented, but with bf16 switched off")
    parser.add_argument("--append", action="store_true", help="to the rounds of the result file, of the same settings")
    parser.add_argument("--render", action="store_true", help="write the tables from the result files")
    options = parser.parse_args()
    if options.render:
        readme_table.write(block())
        readme_table.write(tables(), readme_table.BENCHMARKS)
        return
    if not (options.base and options.data and options.work):
        parser.error("--base, --data and --work say what is measured, and where")
    for record in compare(options):
        result_file(options).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print(table(record, result_file(options).name))


if __name__ == "__main__":
    main()
