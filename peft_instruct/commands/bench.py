"""`bench`: throughput and memory of a recipe on every device asked for; `bench compare`: result files side by side."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from peft_instruct.bench.cells import cell_recipe, plan
from peft_instruct.bench.columns import HEADER, reason_line, table_row, without_repeated_absences
from peft_instruct.bench.compare import Comparison, Line, compare_files
from peft_instruct.bench.growth import curves, growth_lines, growths
from peft_instruct.bench.isolated import run_isolated
from peft_instruct.bench.records import BenchFile, BenchRow, Cell, Measurement, read_bench, write_bench
from peft_instruct.bench.sweep import read_sweeps, swept
from peft_instruct.commands.bench_plots import write_compare_plot, write_growth_plot
from peft_instruct.commands.hub_ids import hub_ids_of
from peft_instruct.commands.out_file import check_out
from peft_instruct.environment import prepare_environment
from peft_instruct.errors import RecipeError
from peft_instruct.recipe import Recipe, load_recipe
from peft_instruct.recipe.writing import exact_values, recipe_hash
from peft_instruct.report.tables import markdown_table, text_table

CELL_MODULE = "peft_instruct.commands.bench_cell"


@dataclass(frozen=True)
class BenchResult:
    """What was measured, and what was not.

    Attributes:
        path: the result file; None when none was asked for.
        plot: where the plot of the sweeps was written; None when none was asked for.
    """

    file: BenchFile
    path: Path | None
    plot: Path | None = None

    @property
    def num_measured(self) -> int:
        return sum(row.status == "measured" for row in self.file.rows)

    def record(self) -> dict[str, Any]:
        return self.file.model_dump(mode="json")

    def text(self) -> str:
        rows = self.file.rows
        shown = [table_row(row) for row in without_repeated_absences(rows)]
        lines = [text_table(HEADER, shown), ""]
        for growth in self.file.growth:
            lines += growth_lines(growth)
        lines += _remarks(rows)
        lines += [f"written to {self.path}"] if self.path else []
        return "\n".join([*lines, f"plot: {self.plot}"] if self.plot else lines)


@dataclass(frozen=True)
class CompareResult:
    """Result files side by side.

    Attributes:
        plot: where the plot was written; None when none was asked for.
    """

    comparison: Comparison
    plot: Path | None = None
    _header: tuple[str, ...] = field(default=("file", *HEADER[:7], "ratio", *HEADER[7:]), repr=False)

    def record(self) -> dict[str, Any]:
        return {"lines": [line.record() for line in self.comparison.lines], "notes": list(self.comparison.notes)}

    def markdown(self) -> str:
        return markdown_table(self._header, self._rows())

    def text(self) -> str:
        lines = [text_table(self._header, self._rows()), ""]
        lines += [
            "ratio: tokens/s by those of the first measured line of the same method, rank, precision, batch and length"
        ]
        lines += [f"note: {note}" for note in self.comparison.notes]
        lines += _remarks([line.row for line in self.comparison.lines])
        return "\n".join([*lines, f"plot: {self.plot}"] if self.plot else lines)

    def _rows(self) -> list[list[str]]:
        return [_compared_row(line) for line in self.comparison.lines]


def bench(
    recipe_name: str,
    overrides: Sequence[str] = (),
    *,
    devices: Sequence[str] | None = None,
    methods: Sequence[str] | None = None,
    batch_sizes: Sequence[int] | None = None,
    lengths: Sequence[int] | None = None,
    precisions: Sequence[str] | None = None,
    sweeps: Sequence[str] = (),
    steps: int = 10,
    warmup: int = 3,
    out: Path | None = None,
    plot: Path | None = None,
    say: Callable[[str], None],
) -> BenchResult:
    """Measure every combination, each in a process of its own; what is not here or fails is a row that says so.

    Args:
        devices: cuda, mps and cpu by default.
        methods, batch_sizes, lengths, precisions: the recipe's own by default.
        sweeps: `AXIS=A,B` or `AXIS`, of length, batch, rank and method: varied one after another around the point that
            the others name.
        steps: measured optimizer steps of a cell, after `warmup` unmeasured ones.
        out: the result file; written anew after every cell, so that an interrupted bench keeps what it has.
        plot: where an SVG of how cost grows along each sweep goes.

    Raises:
        RecipeError: the recipe or a word of the call is wrong; no failure of a cell is raised.
    """
    if steps < 1 or warmup < 0:
        raise RecipeError(f"bench: {steps} steps after {warmup} of warm-up. expected at least 1 after 0 or more.")
    axes = read_sweeps(sweeps)
    if plot is not None and not axes:
        raise RecipeError("bench: --plot draws what --sweep measures. expected --sweep length, say.")
    recipe = load_recipe(recipe_name, overrides)
    cells = plan(
        recipe, devices=devices, methods=methods, precisions=precisions, batch_sizes=batch_sizes, lengths=lengths
    )
    cells = swept(recipe, cells, axes) if axes else cells
    prepare_environment(hub_ids_of(recipe))
    file = _empty_file(recipe)
    _check_places(out, plot)
    if batch_sizes is None and recipe.training.batch_tokens:
        say(
            f"bench: measured are batches of {recipe.training.batch_size} rows; the recipe takes "
            f"{recipe.training.batch_tokens} tokens. --batch-sizes names others"
        )
    # Results of before stay until there is one to take their place.
    writes = out is not None and not out.exists()
    for row in _measured(recipe, cells, steps, warmup, say):
        rows = [*file.rows, row]
        file = file.model_copy(update={"rows": rows, "growth": growths(rows)})
        writes = writes or row.status == "measured"
        if out is not None and writes:
            write_bench(out, file)
    if plot is not None:
        write_growth_plot(plot, curves(file.rows))
    return BenchResult(file, out if writes else None, plot)


def _check_places(out: Path | None, plot: Path | None) -> None:
    """Before an hour of measuring, not after it."""
    for option, place in (("--out", out), ("--plot", plot)):
        if place is not None:
            check_out(place, option)


def compare(paths: Sequence[Path], plot: Path | None = None) -> CompareResult:
    """Put result files side by side.

    Args:
        plot: where an SVG of throughput and memory goes.

    Raises:
        RecipeError: no file named, or one is unusable.
    """
    if not paths:
        raise RecipeError("bench compare: no file is named. expected result files of `peft-instruct bench --out`.")
    comparison = compare_files([(path, read_bench(path)) for path in paths])
    if plot is not None:
        write_compare_plot(plot, comparison)
    return CompareResult(comparison, plot)


def _empty_file(recipe: Recipe) -> BenchFile:
    from peft_instruct.model.device import choose_compute, environment_stamp

    return BenchFile(
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        recipe=recipe.name,
        recipe_sha256=recipe_hash(recipe),
        environment=environment_stamp(choose_compute()),
        rows=[],
    )


def _measured(
    recipe: Recipe, cells: Sequence[Cell], steps: int, warmup: int, say: Callable[[str], None]
) -> Iterator[BenchRow]:
    """The row of one cell after the other, each told as it begins and ends."""
    from peft_instruct.model.device import available_devices

    devices_here = available_devices()
    for number, cell in enumerate(cells, start=1):
        say(f"cell {number} of {len(cells)}: {cell}, {warmup} + {steps} steps")
        began = time.monotonic()
        if cell.device in devices_here:
            row = _measure(recipe, cell, steps, warmup)
        else:
            row = BenchRow(cell=cell, status="absent", reason=f"{cell.device} is not here")
        say(f"  {_outcome(row)} ({time.monotonic() - began:.1f} s)")
        yield row


def _measure(recipe: Recipe, cell: Cell, steps: int, warmup: int) -> BenchRow:
    try:
        asked = cell_recipe(recipe, cell, warmup + steps)
    except RecipeError as error:
        return BenchRow(cell=cell, status="failed", reason=str(error))
    found = run_isolated(CELL_MODULE, _request(asked, cell, warmup))
    if "measured" in found:
        return BenchRow(cell=cell, status="measured", measurement=Measurement.model_validate(found["measured"]))
    return BenchRow(cell=cell, status="failed", reason=found["failed"])


def _request(asked: Recipe, cell: Cell, warmup: int) -> dict[str, Any]:
    exact_length = cell.max_length if cell.axis == "length" else None
    return {"recipe": exact_values(asked), "num_warmup": warmup, "exact_length": exact_length}


def _outcome(row: BenchRow) -> str:
    if row.measurement is None:
        return f"{row.status}: {row.reason}"
    found = row.measurement
    return f"{found.tokens_per_second.median:,.0f} tokens/s on {found.device} in {found.dtype}"


def _remarks(rows: Sequence[BenchRow]) -> list[str]:
    """What the figures mean and why some are not there, each thing once."""
    remarks = [reason_line(row) for row in rows if row.status != "measured"]
    for found in (row.measurement for row in rows if row.measurement):
        rate = found.matrix_rate
        remarks += [
            f"tokens: real ones, padding not counted; medians of {found.num_steps} steps after {found.num_warmup} of "
            "warm-up",
            f"{found.device}: {found.device_name}, {found.num_threads} threads",
            f"peak on {found.device}: {found.memory.how}",
            f"GFLOP/s: {found.flops_formula}",
            f"matrix rate on {found.device}: median of {rate.size} × {rate.size} products, in the dtype and process of "
            "the line",
        ]
    return list(dict.fromkeys(remarks))


def _compared_row(line: Line) -> list[str]:
    cells = table_row(line.row)
    return [line.file, *cells[:7], "–" if line.ratio is None else f"{line.ratio:.2f}×", *cells[7:]]
