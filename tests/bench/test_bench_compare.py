"""Ratios are of like with like, and what is not there has none."""

from __future__ import annotations

from pathlib import Path

import pytest
from made_up import absent_row, bench_file, failed_row, measured_row

from peft_instruct.bench.compare import compare_files

A, B = Path("here/a.json"), Path("there/b.json")


def test_cuda_of_one_file_stands_beside_mps_of_another_with_their_ratio() -> None:
    found = compare_files([(A, bench_file(measured_row("cuda", 8000.0))), (B, bench_file(measured_row("mps", 2000.0)))])
    assert [(line.file, line.row.cell.device, line.ratio) for line in found.lines] == [
        ("a.json", "cuda", 1.0),
        ("b.json", "mps", 0.25),
    ]
    assert found.notes == ()


def test_methods_are_compared_with_themselves_only() -> None:
    found = compare_files(
        [
            (A, bench_file(measured_row("cpu", 100.0), measured_row("cpu", 50.0, method="full"))),
            (B, bench_file(measured_row("cpu", 300.0), measured_row("cpu", 200.0, method="full"))),
        ]
    )
    assert [(line.row.cell.method, line.ratio) for line in found.lines] == [
        ("lora", 1.0),
        ("lora", 3.0),
        ("full", 1.0),
        ("full", 4.0),
    ]


def test_ranks_and_rows_of_an_exact_length_are_other_work() -> None:
    row = measured_row("cpu", 100.0)
    others = [row.model_copy(update={"cell": row.cell.model_copy(update=change)})
              for change in ({"rank": 8}, {"rank": 8, "axis": "length"}, {"rank": 8, "axis": "batch"})]  # fmt: skip
    found = compare_files([(A, bench_file(row, *others[:2])), (B, bench_file(others[2]))])
    assert [(line.file, line.row.cell.axis, line.ratio) for line in found.lines] == [
        ("a.json", None, 1.0),
        ("a.json", None, 1.0),
        ("b.json", "batch", 1.0),
        ("a.json", "length", 1.0),
    ]


def test_a_row_without_figures_has_no_ratio_and_is_no_reference() -> None:
    found = compare_files(
        [
            (A, bench_file(failed_row("cuda", "out of memory"), absent_row("mps"), absent_row("mps", method="full"))),
            (B, bench_file(measured_row("cpu", 100.0))),
        ]
    )
    assert [(line.row.cell.device, line.row.status, line.ratio) for line in found.lines] == [
        ("cuda", "failed", None),
        ("cpu", "measured", 1.0),
        ("mps", "absent", None),
    ]


def test_files_of_the_same_name_are_told_apart_by_their_paths() -> None:
    file = bench_file(measured_row())
    found = compare_files([(Path("x/a.json"), file), (Path("y/a.json"), file)])
    assert [line.file for line in found.lines] == ["x/a.json", "y/a.json"]


def test_another_recipe_and_other_rows_are_noted() -> None:
    row = measured_row("cpu", 100.0)
    assert row.measurement is not None
    other = row.model_copy(update={"measurement": row.measurement.model_copy(update={"tokens_per_step": 450.0})})
    found = compare_files([(A, bench_file(row)), (B, bench_file(other, recipe_sha256="cd" * 32))])
    assert found.notes == (
        "the recipes are not the same (a.json: made-up abababab, b.json: made-up cdcdcdcd); a folder that is named "
        "otherwise counts as another",
        "b.json: cpu lora auto batch 8 length 512: 450 real tokens a step, the line it is compared with has 900: "
        "not the same rows",
    )


@pytest.mark.parametrize("tokens", [900.0, 905.0])
def test_the_same_rows_are_not_noted(tokens: float) -> None:
    row = measured_row()
    assert row.measurement is not None
    near = row.model_copy(update={"measurement": row.measurement.model_copy(update={"tokens_per_step": tokens})})
    assert compare_files([(A, bench_file(row)), (B, bench_file(near))]).notes == ()
