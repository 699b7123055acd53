"""bench: a real cell, an absent device and failing cells in one result file; compare: that file beside itself."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from listeners import silent

from peft_instruct.bench.records import read_bench
from peft_instruct.commands import bench as module
from peft_instruct.commands.bench import BenchResult, bench, compare
from peft_instruct.commands.bench_cell import run_cell
from peft_instruct.environment import HubState
from peft_instruct.errors import RecipeError
from peft_instruct.recipe import load_recipe


@pytest.fixture(scope="module")
def result(tiny_recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> BenchResult:
    """The tiny recipe on a CPU, in a process of its own, and on a CUDA device that this machine is said not to have."""
    out = tmp_path_factory.mktemp("bench") / "a.json"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("peft_instruct.model.device.available_devices", lambda: ["cpu"])
        return bench(str(tiny_recipe), devices=["cuda", "cpu"], steps=2, warmup=1, out=out, say=silent)


def test_an_absent_device_is_a_row_that_says_so_and_has_no_figures(result: BenchResult) -> None:
    absent = result.file.rows[0]
    assert (absent.cell.device, absent.status, absent.reason) == ("cuda", "absent", "cuda is not here")
    assert absent.measurement is None
    assert "absent: cuda is not here" in result.text()


def test_a_cell_is_measured_in_a_process_of_its_own_with_what_was_really_used(result: BenchResult) -> None:
    found = result.file.rows[1].measurement
    assert found is not None
    assert (found.device, found.dtype, found.num_warmup, found.num_steps) == ("cpu", "fp32", 1, 2)
    # LoRA of rank 4 on 2 layers, 64 wide: rank x (in + out) of the four matrices.
    assert found.num_trainable == 2 * 4 * ((64 + 192) + (64 + 64) + (64 + 256) + (256 + 64))
    assert 0 < found.completion_tokens_per_second.median < found.tokens_per_second.median
    assert found.memory.peak_bytes >= found.memory.baseline_bytes > 0
    # Attention and head come on top of 4 N + 6 A; but over half of these rows are preambles: each kind's counts once.
    blocks_and_adapter = 4 * 12 * 2 * 64**2 + 6 * found.num_trainable
    assert 0.4 * blocks_and_adapter < found.flops_per_token < blocks_and_adapter


def test_the_result_file_holds_what_the_command_returns(result: BenchResult) -> None:
    assert result.path is not None
    assert read_bench(result.path) == result.file
    assert json.loads(json.dumps(result.record())) == json.loads(result.path.read_text(encoding="utf-8"))
    assert result.num_measured == 1
    assert result.file.recipe == "tiny-lora" and result.file.environment["versions"]["torch"]


def test_a_failed_cell_is_a_row_with_its_reason_and_the_others_go_on(
    tiny_recipe: Path, result: BenchResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    figures = result.file.rows[1].model_dump(mode="json")["measurement"]
    answers: list[dict[str, Any]] = [{"failed": "the process was ended by SIGKILL"}, {"measured": figures}]
    monkeypatch.setattr(module, "run_isolated", lambda name, request: answers.pop(0))
    lines: list[str] = []
    out = tmp_path / "b.json"
    found = bench(str(tiny_recipe), devices=["cpu"], batch_sizes=[8, 4], steps=2, warmup=1, out=out, say=lines.append)
    assert [row.status for row in found.file.rows] == ["failed", "measured"]
    assert "cpu lora rank 4 fp32 batch 8 length 160: failed: the process was ended by SIGKILL" in found.text()
    assert lines[0] == "cell 1 of 2: cpu lora rank 4 fp32 batch 8 length 160, 1 + 2 steps"


def test_a_bench_that_is_interrupted_keeps_the_cells_it_has(
    tiny_recipe: Path, result: BenchResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    figures = result.file.rows[1].model_dump(mode="json")["measurement"]
    answers = [{"measured": figures}]

    def once(name: str, request: dict[str, Any]) -> dict[str, Any]:
        if not answers:
            raise KeyboardInterrupt
        return answers.pop()

    monkeypatch.setattr(module, "run_isolated", once)
    out = tmp_path / "c.json"
    with pytest.raises(KeyboardInterrupt):
        bench(str(tiny_recipe), devices=["cpu"], batch_sizes=[8, 4], out=out, say=silent)
    assert [row.status for row in read_bench(out).rows] == ["measured"]


def test_a_length_beyond_the_model_s_positions_is_a_reason_and_no_traceback(tiny_recipe: Path) -> None:
    recipe = load_recipe(str(tiny_recipe), ["data.max_length=300"])
    found = run_cell(recipe, 1, HubState(False))
    assert found["failed"].startswith("data.max_length: 300 is more than the 256 positions")


def test_memory_that_runs_out_is_a_reason(tiny_recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    def run_out(*arguments: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nmore")

    monkeypatch.setattr("peft_instruct.commands.bench_cell.measure_cell", run_out)
    found = run_cell(load_recipe(str(tiny_recipe)), 1, HubState(False))
    assert found == {"failed": "out of memory (CUDA out of memory. Tried to allocate 2 GiB.)"}


def test_compare_writes_one_table_with_ratios_in_text_and_markdown_and_a_plot(
    result: BenchResult, tmp_path: Path
) -> None:
    assert result.path is not None
    other, plot = tmp_path / "b.json", tmp_path / "plot.svg"
    other.write_bytes(result.path.read_bytes())
    found = compare([result.path, other], plot=plot)
    assert [line.ratio for line in found.comparison.lines] == [1.0, 1.0, None, None]
    assert found.text().splitlines()[0].split()[:2] == ["file", "device"]
    assert found.text().count("1.00×") == 2
    assert found.markdown().count("\n") == 5
    assert [line["file"] for line in found.record()["lines"]] == ["a.json", "b.json", "a.json", "b.json"]
    drawn = "".join(ElementTree.parse(plot).getroot().itertext())
    assert "absent: cuda is not here" in drawn and "a.json: cpu lora rank 4 fp32" in drawn


def test_a_sweep_is_measured_fitted_said_and_drawn(
    tiny_recipe: Path, result: BenchResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    figures = result.file.rows[1].model_dump(mode="json")["measurement"]
    asked: list[dict[str, Any]] = []

    def answer(name: str, request: dict[str, Any]) -> dict[str, Any]:
        asked.append(request)
        length = request["exact_length"] or request["recipe"]["data"]["max_length"]
        seconds = {"median": length**1.5, "smallest": length**1.5, "largest": length**1.5}
        return {"measured": {**figures, "step_seconds": seconds}} if length < 128 else {"failed": "out of memory"}

    monkeypatch.setattr(module, "run_isolated", answer)
    out, plot = tmp_path / "s.json", tmp_path / "s.svg"
    words = ["length=32,64,128", "method=lora,full"]
    found = bench(
        str(tiny_recipe), ["data.max_length=100"], devices=["cpu"], sweeps=words, out=out, plot=plot, say=silent
    )
    assert [request["exact_length"] for request in asked] == [32, 64, 128, None, None]
    assert [request["recipe"]["data"]["max_length"] for request in asked] == [100] * 5
    file = read_bench(out)
    assert file == found.file
    assert [(row.cell.axis, row.cell.max_length, row.status) for row in file.rows[:3]] == [
        ("length", 32, "measured"), ("length", 64, "measured"), ("length", 128, "failed"),
    ]  # fmt: skip
    assert [growth.values for growth in file.growth] == [[32, 64], ["lora", "full"]]
    assert file.growth[0].seconds_exponent == pytest.approx(1.5)
    assert "time per step grows more than in proportion: twice the length gives 2.83 times as much" in found.text()
    shown = "".join(ElementTree.parse(plot).getroot().itertext())
    assert "length^1.50" in shown and "full" in shown and "rows of exactly that length" in shown


def test_a_plot_without_a_sweep_is_refused_before_anything_is_measured(tiny_recipe: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="--plot draws what --sweep measures"):
        bench(str(tiny_recipe), plot=tmp_path / "a.svg", say=silent)
    (tmp_path / "no").write_text("a file")
    with pytest.raises(RecipeError, match=r"--plot .* cannot be written"):
        bench(str(tiny_recipe), sweeps=["rank"], plot=tmp_path / "no" / "a.svg", say=silent)


def test_results_of_before_stay_until_there_are_new_ones(tiny_recipe: Path, tmp_path: Path) -> None:
    out = tmp_path / "res.json"
    out.write_text("of an hour of measuring")
    bench(str(tiny_recipe), devices=["mps"], out=out, say=silent)
    assert out.read_text() == "of an hour of measuring"


def test_a_recipe_of_tokens_is_told_that_rows_are_measured(tiny_recipe: Path) -> None:
    said: list[str] = []
    bench(str(tiny_recipe), ("training.batch_tokens=512",), devices=["mps"], say=said.append)
    assert any("the recipe takes 512 tokens" in line for line in said)


def test_rows_of_a_length_sweep_are_trained_on(tiny_recipe: Path) -> None:
    recipe = load_recipe(str(tiny_recipe), ["training.max_steps=2", "training.batch_size=2"])
    found = run_cell(recipe, 1, HubState(False), exact_length=200)["measured"]
    # The recipe cuts at 160 tokens; the base has positions for 256.
    assert (found["tokens_per_step"], found["fill_fraction"]) == (400.0, 1.0)


@pytest.mark.parametrize(("steps", "warmup"), [(0, 3), (5, -1)])
def test_a_bench_of_nothing_is_refused(tiny_recipe: Path, steps: int, warmup: int) -> None:
    with pytest.raises(RecipeError, match="expected at least 1 after 0 or more"):
        bench(str(tiny_recipe), steps=steps, warmup=warmup, say=silent)


def test_compare_without_a_file_is_refused() -> None:
    with pytest.raises(RecipeError, match="no file is named"):
        compare([])


def test_importing_the_commands_imports_no_torch() -> None:
    script = (
        "import peft_instruct.commands.bench, peft_instruct.commands.bench_cell, sys; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_compare_needs_no_torch_at_all(result: BenchResult) -> None:
    script = (
        "import sys, pathlib\nfrom peft_instruct.commands.bench import compare\n"
        f"compare([pathlib.Path({str(result.path)!r})]).text()\nsys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
