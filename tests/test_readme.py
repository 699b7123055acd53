"""What the README says is so: commands, recipes, files and figures are looked up where they live."""

from __future__ import annotations

import importlib
import json
import re
import shlex
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from peft_instruct.cli import cli
from peft_instruct.commands.dry_run import COMPARED, worst_errors
from peft_instruct.recipe import load_recipe
from peft_instruct.recipe.shipped import shipped_recipes

REPOSITORY = Path(__file__).resolve().parent.parent
README = (REPOSITORY / "README.md").read_text(encoding="utf-8")


def shown_commands() -> list[str]:
    blocks = re.findall(r"```bash\n(.*?)```", README, flags=re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [line.split("#")[0].strip() for line in lines if line.startswith("peft-instruct ")]


def test_there_are_commands_to_check() -> None:
    assert len(shown_commands()) > 5


@pytest.mark.parametrize("line", shown_commands())
def test_every_shown_command_and_option_exists(line: str) -> None:
    """The command is parsed to its end (`--help` stops it before it runs)."""
    result = CliRunner().invoke(cli, [*shlex.split(line)[1:], "--help"])
    assert result.exit_code == 0, result.output


def test_every_command_stands_in_the_table() -> None:
    for name, command in cli.commands.items():
        names = [f"{name} {sub}" for sub in command.commands] if isinstance(command, click.Group) else [name]
        for full in names:
            assert f"`{full}" in README or f"`{full.removesuffix(' run')} " in README, full


def test_every_shipped_recipe_stands_in_the_table_with_its_own_description() -> None:
    for path in shipped_recipes():
        assert f"| `{path.stem}` | {load_recipe(str(path)).description} |" in README, path.stem


def test_every_file_that_the_readme_names_is_there() -> None:
    for name in re.findall(r"`((?:peft_instruct|recipes|benchmarks|tests|adapters)/[\w./-]+)`", README):
        if not name.startswith(("adapters/gpt2", "adapters/quickstart")):
            assert (REPOSITORY / name).exists(), name


def test_the_figures_of_the_tour_are_those_of_the_shipped_run() -> None:
    manifest = json.loads((REPOSITORY / "peft_instruct/starter/adapters/quickstart-lora/manifest.json").read_text())
    metrics = manifest["metrics"]
    base, tuned = metrics["exact match"]
    assert re.search(rf"exact match +{base:.4g} +{tuned:.4g}\n", README)
    assert f"{metrics['num_steps']} steps in {metrics['train_seconds']:.1f} s" in README
    unseen = json.loads((REPOSITORY / "benchmarks/results/quickstart_lora_unseen.json").read_text())
    assert f"answers {unseen['tuned']['exact_match']:.1%} (" in README


def test_the_figures_of_the_fuzzing_are_those_of_its_result_file() -> None:
    record = json.loads((REPOSITORY / "benchmarks/results/robustness.json").read_text(encoding="utf-8"))
    found, by_coverage = record["fuzz"], record["atheris"]
    assert found["num_tracebacks"] == by_coverage["num_tracebacks"] == 0
    assert f"and {by_coverage['num_cases']:,} inputs by coverage (atheris), no traceback" in README
    assert f"{found['num_cases']:,} mutations, no traceback, the slowest {found['slowest_seconds']:.2f} s" in README


def test_the_figures_of_data_check_are_those_of_its_result_file() -> None:
    found = json.loads((REPOSITORY / "benchmarks/results/data_check.json").read_text(encoding="utf-8"))
    seconds, size = found["median_wall_seconds"], found["most_bytes"] / 1e9
    assert seconds < 30 and size < 1
    assert f"{found['num_rows']:,} rows take {seconds:.0f} s and {size:.2f} GB on one core" in " ".join(README.split())


def test_the_figures_of_mislabelled_rows_are_those_of_their_result_file() -> None:
    found = json.loads((REPOSITORY / "benchmarks/results/mislabelled.json").read_text(encoding="utf-8"))
    precision, recall = (f"{found[name]:.0%}".replace("%", " %") for name in ("precision", "recall"))
    said = f"of the rows listed as mislabelled {precision} were such, and {recall} of those were listed"
    assert f"{said} ({len(found['runs'])} seeds" in " ".join(README.split())


def test_the_figures_of_the_memory_of_rows_are_those_of_their_result_file() -> None:
    found = json.loads((REPOSITORY / "benchmarks/results/preparation_memory.json").read_text(encoding="utf-8"))
    cold, cached = found["groups cold"], found["groups cached"]
    figures = cold["file_bytes"], cold["more_bytes"], cached["more_bytes"]
    size, most, least = (f"{number / 1e6:.0f}" for number in figures)
    said = " ".join(README.split())
    assert f"a file of {size} MB ({cold['num_rows']:,} rows) takes {most} MB, each further byte" in said
    assert f"each further byte {cold['bytes_per_further_byte']:.0f}; out of the cache {least} MB" in said


def test_no_fault_has_done_harm() -> None:
    found = json.loads((REPOSITORY / "benchmarks/results/robustness.json").read_text(encoding="utf-8"))["faults"]
    assert [name for name, part in found.items() if part["failures"] or part["passed"] != part["tried"]] == []


def test_the_seconds_of_preparation_are_those_of_its_result_file() -> None:
    seconds = json.loads((REPOSITORY / "benchmarks/results/preparation.json").read_text())["median_seconds"]
    assert f"52,000 rows take {seconds['ours cold']:.1f} s (SFTTrainer's own way" in README
    assert f"near-duplicates: {seconds['trl cold']:.1f} s),\nand {seconds['ours warm']:.2f} s the next time" in README


@pytest.mark.parametrize(
    ("file", "words"),
    [
        ("bench_gpt2_lora", "on the AMD EPYC a LoRA step does {:.0f} GFLOP/s, {:.0%} of the rate"),
        ("bench_gpt2_lora_amx", "on the Xeon with AMX {:.0f} GFLOP/s, {:.0%} of the rate there"),
    ],
)
def test_the_share_of_the_matrix_rate_is_that_of_its_result_file(file: str, words: str) -> None:
    rows = json.loads((REPOSITORY / f"benchmarks/results/{file}.json").read_text())["rows"]
    (found,) = (row["measurement"] for row in rows if row["measurement"])
    done, share = found["model_flops_per_second"]["median"], found["share_of_matrix_rate"]
    assert words.format(done / 1e9, share) in " ".join(README.split())


def test_the_cost_of_safe_checkpoints_is_that_of_its_result_file() -> None:
    found = json.loads((REPOSITORY / "benchmarks/results/checkpoint_overhead.json").read_text(encoding="utf-8"))
    assert found["overhead"] <= 0.05
    assert f"rotation add {found['overhead']:.2%} to GPT-2 124M LoRA" in README.replace("\n", " ")


@pytest.mark.parametrize("script", ["starter_table", "robustness", "compare_rivals", "generation"])
def test_a_table_is_what_its_command_makes_of_the_result_files(script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(REPOSITORY / "benchmarks")
    assert importlib.import_module(script).block() in README


def test_the_tables_of_rivals_are_what_their_command_makes_of_the_result_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(REPOSITORY / "benchmarks")
    page = (REPOSITORY / "benchmarks" / "README.md").read_text(encoding="utf-8")
    assert importlib.import_module("compare_rivals").tables() in page


def test_the_errors_of_dry_runs_are_the_worst_of_their_result_file() -> None:
    worst, runs = worst_errors(), json.loads((REPOSITORY / COMPARED).read_text(encoding="utf-8"))["runs"]
    training = max(abs(run["error"]["training_seconds"]) for run in runs)
    models = {"quickstart": "the starter", "gpt2": "GPT-2 124M"}
    named = " and of ".join(text for name, text in models.items() if any(run["name"].startswith(name) for run in runs))
    assert (
        f"Beside {len(runs)} real runs of {named} it was off by at most {worst['seconds']:.0%} in time (the "
        f"training alone: {training:.0%}) and {worst['bytes']:.0%} in memory"
    ) in " ".join(README.split())
