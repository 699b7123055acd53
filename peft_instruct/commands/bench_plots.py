"""What was measured -> what is drawn: bars of result files side by side, and curves of a sweep."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from peft_instruct.bench.columns import reason_line
from peft_instruct.bench.compare import Comparison
from peft_instruct.bench.growth import growths, named_exponents
from peft_instruct.bench.records import BenchRow
from peft_instruct.errors import RecipeError


def write_compare_plot(path: Path, comparison: Comparison) -> None:
    """A bar for each line.

    Raises:
        RecipeError: the file cannot be written.
    """
    from peft_instruct.report.plots import Bar, bench_plot_svg

    bars = []
    for line in comparison.lines:
        cell, found = line.row.cell, line.row.measurement
        device, precision = (found.device, found.dtype) if found else (cell.device, cell.precision)
        rank = f" rank {cell.rank}" if cell.rank else ""
        label = f"{line.file}: {device} {cell.method}{rank} {precision} {cell.batch_size}×{cell.max_length}"
        if found is None:
            bars.append(Bar(label, note=reason_line(line.row)))
        else:
            speed = found.tokens_per_second
            bars.append(Bar(label, speed.median, speed.smallest, speed.largest, found.memory.peak_bytes))
    _write(path, bench_plot_svg(bars))


def write_growth_plot(path: Path, curves: Sequence[Sequence[BenchRow]]) -> None:
    """A line of panels for each curve.

    Raises:
        RecipeError: the file cannot be written.
    """
    from peft_instruct.report.growth_plot import Curve, growth_plot_svg

    drawn = []
    for rows in curves:
        (growth,) = growths(rows)
        found = [row.measurement for row in rows if row.measurement]
        drawn.append(
            Curve(
                axis=growth.axis,
                title=f"{growth.device}: {growth.around}",
                values=tuple(growth.values),
                costs=(
                    tuple(one.step_seconds.median for one in found),
                    tuple(one.tokens_per_second.median for one in found),
                    tuple(one.memory.peak_bytes / 1e9 for one in found),
                ),
                exponents=tuple(slope for _, slope in named_exponents(growth)),
            )
        )
    _write(path, growth_plot_svg(drawn))


def _write(path: Path, svg: str) -> None:
    try:
        path.write_text(svg, encoding="utf-8")
    except OSError as error:
        raise RecipeError(f"{path}: cannot be written ({error.strerror}). Name another file with --plot.") from error
