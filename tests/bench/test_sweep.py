"""A sweep varies one axis around a point, its rows are as long as it says, and its exponents are those of the data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_up import measured_row

from peft_instruct.bench.cells import METHODS, cell_recipe, plan
from peft_instruct.bench.filled import filled_rows
from peft_instruct.bench.growth import exponent, growth_lines, growths, in_words
from peft_instruct.bench.records import BenchRow, Cell, Measurement
from peft_instruct.bench.sweep import FIELDS, Sweep, read_sweeps, swept
from peft_instruct.data.types import IGNORED_LABEL, Tokens
from peft_instruct.errors import RecipeError
from peft_instruct.recipe import Recipe, load_recipe


@pytest.fixture
def recipe(tiny_recipe: Path) -> Recipe:
    return load_recipe(str(tiny_recipe))


def test_one_axis_after_another_is_varied_and_the_rest_held(recipe: Recipe) -> None:
    (point,) = plan(recipe, devices=["cpu"])
    cells = swept(recipe, [point], read_sweeps(["rank=2,8", "batch = 1,16 ,16"]))
    assert [(cell.axis, cell.rank, cell.batch_size) for cell in cells] == [
        ("rank", 2, 8),
        ("rank", 8, 8),
        ("batch", 4, 1),
        ("batch", 4, 16),
    ]
    for cell in cells:
        assert (
            cell.model_copy(update={"axis": None, FIELDS[str(cell.axis)]: getattr(point, FIELDS[str(cell.axis)])})
            == point
        )
    assert [cell_recipe(recipe, cell, 1).method.rank for cell in cells] == [2, 8, 4, 4]


def test_a_sweep_over_methods_gives_full_training_no_rank(recipe: Recipe) -> None:
    cells = swept(recipe, plan(recipe, devices=["cpu"]), read_sweeps(["method=full,dora"]))
    assert [(cell.method, cell.rank) for cell in cells] == [("full", None), ("dora", 4)]
    assert [cell_recipe(recipe, cell, 1).method.kind for cell in cells] == ["full", "lora"]


@pytest.mark.parametrize("axis", FIELDS)
def test_usual_values_hold_the_point_itself(recipe: Recipe, axis: Any) -> None:
    (point,) = plan(recipe, devices=["cpu"])
    values = [getattr(cell, FIELDS[axis]) for cell in swept(recipe, [point], [Sweep(axis)])]
    assert getattr(point, FIELDS[axis]) in values
    assert len(values) == len(set(values)) >= 3
    if axis == "length":  # the base may have no more positions
        assert max(values) == point.max_length


def test_every_device_and_precision_is_a_point(recipe: Recipe) -> None:
    points = plan(recipe, devices=["cpu", "cuda"], precisions=["fp32", "bf16"])
    assert len(swept(recipe, points, read_sweeps(["rank=1,2,3"]))) == 4 * 3


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["depth=3"], "'depth' is not one of length, batch, rank, method."),
        (["rank=4", "rank=8"], "rank is swept already."),
        (["rank="], "no value. expected rank=A,B, or rank alone"),
        (["rank=0"], "'0' is no whole number from 1."),
        (["length=1"], "'1' is no whole number from 2."),
        (["batch=-2"], "'-2' is no whole number from 1."),
        (["batch=²"], "'²' is no whole number from 1."),
        (["method=adapter"], f"'adapter' is not one of {', '.join(METHODS)}."),
    ],
)
def test_a_wrong_word_is_told(words: list[str], told: str) -> None:
    with pytest.raises(RecipeError) as error:
        read_sweeps(words)
    assert told in str(error.value)


def test_a_sweep_goes_around_one_point_that_has_the_axis(recipe: Recipe) -> None:
    with pytest.raises(RecipeError, match="goes around one point"):
        swept(recipe, plan(recipe, devices=["cpu"], batch_sizes=[1, 2]), read_sweeps(["length"]))
    with pytest.raises(RecipeError, match="full training has no rank"):
        swept(recipe, plan(recipe, devices=["cpu"], methods=["full"]), read_sweeps(["rank"]))


def tokens(prompt: int, completion: int, first_id: int) -> Tokens:
    ids = tuple(range(first_id, first_id + prompt + completion))
    return Tokens(ids, (*[IGNORED_LABEL] * prompt, *ids[prompt:]), prompt, f"rows:{first_id}")


@given(
    st.lists(st.tuples(st.integers(0, 6), st.integers(1, 4)), min_size=1, max_size=5),
    st.integers(2, 40),
    st.integers(1, 6),
)
def test_filled_rows_have_their_length_and_are_rows_one_after_another(
    shapes: list[tuple[int, int]], length: int, count: int
) -> None:
    rows = [tokens(prompt, completion, 100 * number) for number, (prompt, completion) in enumerate(shapes)]
    found = filled_rows(rows, length, count)
    assert [len(row.input_ids) for row in found] == [length] * count
    whole = {(row.input_ids, row.labels) for row in rows}
    for row in found:
        # As the collator demands: the prompt has no label, and each label is its id.
        assert set(row.labels[: row.prompt_length]) <= {IGNORED_LABEL} and row.labels[row.prompt_length] >= 0
        assert all(label in (token, IGNORED_LABEL) for token, label in zip(row.input_ids, row.labels, strict=True))
        end = rows[row.input_ids[-1] // 100]
        assert row.input_ids[-len(end.input_ids) :] == end.input_ids[-length:]
        assert whole  # rows are not changed
    assert filled_rows(rows[:1], length, 2)[0].input_ids == filled_rows(rows[:1], length, 2)[1].input_ids


@given(st.floats(-2, 3), st.floats(0.1, 1000), st.lists(st.integers(1, 4096), min_size=2, max_size=6, unique=True))
def test_the_exponent_of_a_power_is_found(slope: float, scale: float, values: list[int]) -> None:
    found = exponent(values, [scale * value**slope for value in values])
    assert found == pytest.approx(slope, abs=1e-6)


def test_a_part_that_does_not_grow_lowers_the_exponent() -> None:
    assert 0 < (exponent([1, 2, 4], [10 + 1, 10 + 2, 10 + 4]) or 0) < 0.2
    assert exponent([8, 8], [1.0, 2.0]) is None


@pytest.mark.parametrize(
    ("slope", "words"),
    [(0.02, "stays the same"), (0.7, "grows less than in proportion"), (-0.5, "falls less than in proportion"),
     (1.03, "grows in proportion"), (1.5, "grows more than in proportion"), (2.04, "grows with the square"),
     (2.5, "grows faster than the square"), (-1.0, "falls in proportion")],
)  # fmt: skip
def test_an_exponent_is_said_in_words(slope: float, words: str) -> None:
    assert in_words(slope) == words


def point(batch: int, seconds_per_row: float) -> BenchRow:
    """A step of `batch` rows, 100 tokens each, that takes time in proportion to the rows and 1 MB for each."""
    row = measured_row("cpu", 100 / seconds_per_row)
    found: Measurement = row.measurement  # type: ignore[assignment]
    changed = {
        "step_seconds": found.step_seconds.model_copy(update={"median": batch * seconds_per_row}),
        "memory": found.memory.model_copy(update={"peak_bytes": batch * 1_000_000}),
    }
    cell = Cell(device="cpu", method="lora", precision="auto", batch_size=batch, max_length=64, rank=4, axis="batch")
    return BenchRow(cell=cell, status="measured", measurement=found.model_copy(update=changed))


def test_growth_is_of_the_points_that_were_measured_and_is_said() -> None:
    (found,) = growths([point(8, 0.25), point(2, 0.25), measured_row("cpu")])
    assert (found.axis, found.values, found.around) == ("batch", [2, 8], "lora, rank 4, length 64")
    assert found.seconds_exponent == pytest.approx(1) and found.memory_exponent == pytest.approx(1)
    assert found.tokens_per_second_exponent == pytest.approx(0)
    assert growth_lines(found) == [
        "batch on cpu (lora, rank 4, length 64), 2 points:",
        "  time per step grows in proportion: twice the batch gives 2.00 times as much (exponent 1.00)",
        "  tokens per second stays the same: twice the batch gives 1.00 times as much (exponent 0.00)",
        "  peak memory grows in proportion: twice the batch gives 2.00 times as much (exponent 1.00)",
        "  through two points every noise is a law: measure a third before relying on it",
    ]
    (three,) = growths([point(batch, 0.25) for batch in (2, 4, 8)])
    assert len(growth_lines(three)) == 4


def test_the_precisions_of_a_sweep_are_told_apart() -> None:
    rows = [point(batch, 0.25) for batch in (2, 8)]
    both = [row.model_copy(update={"cell": row.cell.model_copy(update={"precision": precision})})
            for precision in ("fp32", "bf16") for row in rows]  # fmt: skip
    assert [found.around for found in growths(both)] == [
        f"lora, {precision}, rank 4, length 64" for precision in ("fp32", "bf16")
    ]


def test_one_point_has_no_growth_and_methods_have_no_exponent() -> None:
    (one,) = growths([point(8, 0.25)])
    assert one.seconds_exponent is None and growth_lines(one) == []
    full = point(8, 0.5)
    methods = [full.model_copy(update={"cell": full.cell.model_copy(update={"axis": "method", "method": method})})
               for method in ("lora", "full")]  # fmt: skip
    (found,) = growths(methods)
    assert (found.values, found.around, found.memory_exponent) == (["lora", "full"], "batch 8, length 64", None)
