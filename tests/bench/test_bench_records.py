"""A result file comes back as it was written, and nothing else is read as one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_up import absent_row, bench_file, cell, failed_row, measured_row, measurement

from peft_instruct.bench.records import BenchRow, Spread, read_bench, write_bench
from peft_instruct.errors import RecipeError


def test_a_result_file_comes_back_as_it_was_written(tmp_path: Path) -> None:
    file = bench_file(measured_row("cpu"), absent_row("cuda"), failed_row("mps", "out of memory"))
    write_bench(tmp_path / "results" / "a.json", file)
    assert read_bench(tmp_path / "results" / "a.json") == file
    assert [path.name for path in (tmp_path / "results").iterdir()] == ["a.json"]


def test_a_file_of_before_there_were_ranks_and_sweeps_is_read(tmp_path: Path) -> None:
    document = bench_file(measured_row("cpu")).model_dump(mode="json")
    del document["growth"], document["rows"][0]["cell"]["rank"], document["rows"][0]["cell"]["axis"]
    (tmp_path / "old.json").write_text(json.dumps(document), encoding="utf-8")
    assert read_bench(tmp_path / "old.json") == bench_file(measured_row("cpu"))


@given(st.lists(st.floats(min_value=1e-6, max_value=1e12), min_size=1, max_size=20))
def test_a_spread_has_its_median_between_its_ends(values: list[float]) -> None:
    found = Spread.of(values)
    assert min(values) == found.smallest <= found.median <= found.largest == max(values)


@pytest.mark.parametrize(
    "wrong",
    [
        {"status": "measured"},
        {"status": "absent"},
        {"status": "failed"},
        {"status": "absent", "reason": "cuda is not here", "measurement": measurement()},
        {"status": "measured", "reason": "fast", "measurement": measurement()},
    ],
    ids=["measured without figures", "absent without reason", "failed without reason", "absent with figures",
         "measured with reason"],
)  # fmt: skip
def test_figures_stand_only_in_rows_that_were_measured(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="status"):
        BenchRow.model_validate({"cell": cell(), **wrong})


def broken(tmp_path: Path, change: Any) -> Path:
    document = bench_file(measured_row("cpu")).model_dump(mode="json")
    change(document)
    path = tmp_path / "broken.json"
    path.write_text(json.dumps(document), encoding="utf-8")
    return path


def test_every_wrong_value_is_named_at_once(tmp_path: Path) -> None:
    def change(document: dict[str, Any]) -> None:
        document["schema_version"] = 2
        document["speed"] = "fast"
        document["rows"][0]["measurement"]["tokens_per_second"]["median"] = -1.0
        del document["rows"][0]["measurement"]["memory"]["how"]

    path = broken(tmp_path, change)
    with pytest.raises(RecipeError) as error:
        read_bench(path)
    assert str(error.value) == (
        f"{path}: not a bench result of version 1: 4 problems\n"
        "  schema_version: Input should be 1.\n"
        "  rows.0.measurement.tokens_per_second.median: Input should be greater than 0.\n"
        "  rows.0.measurement.memory.how: Field required.\n"
        "  speed: Extra inputs are not permitted."
    )


@pytest.mark.parametrize("figure", [float("nan"), float("inf")])
def test_a_figure_that_is_not_a_finite_number_is_refused(tmp_path: Path, figure: float) -> None:
    def change(document: dict[str, Any]) -> None:
        document["rows"][0]["measurement"]["tokens_per_step"] = figure

    with pytest.raises(RecipeError, match=r"rows\.0\.measurement\.tokens_per_step: "):
        read_bench(broken(tmp_path, change))


@pytest.mark.parametrize(
    ("content", "told"),
    [(None, "no such file"), (b"", "Invalid JSON"), (b"[]", "should be an object"), (b"\xff\xfe", "cannot be read")],
)
def test_a_file_that_is_no_result_is_told_with_its_name(tmp_path: Path, content: bytes | None, told: str) -> None:
    path = tmp_path / "a.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(RecipeError, match=told) as error:
        read_bench(path)
    assert str(error.value).startswith(str(path))


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RecipeError, match="cannot be written"):
        write_bench(tmp_path / "file" / "a.json", bench_file())
