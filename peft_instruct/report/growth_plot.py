"""How cost grows along one axis, as SVG: time, throughput and memory side by side, in the style of the other plots."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, NullFormatter

from peft_instruct.report.plots import TRAIN_COLOUR, VALIDATION_COLOUR, as_svg, new_figure
from peft_instruct.report.safe_text import safe_text

LABELS = ("seconds per step", "real tokens per second", "peak memory (GB)")
COLOURS = (TRAIN_COLOUR, TRAIN_COLOUR, VALIDATION_COLOUR)
ROW_INCHES = 3.0
LEAST_SPREAD = 2.0
"""From the bottom to the top of a logarithmic panel, as a factor."""
MARGIN = 1.1


@dataclass(frozen=True)
class Curve:
    """What one axis costs.

    Attributes:
        title: what is held.
        values: numbers, drawn on logarithmic axes, or words, drawn as bars.
        costs: as LABELS, each with one figure for each value.
        exponents: as LABELS; None draws no fitted line.
    """

    axis: str
    title: str
    values: tuple[int | str, ...]
    costs: tuple[tuple[float, ...], ...]
    exponents: tuple[float | None, ...]


def growth_plot_svg(curves: Sequence[Curve]) -> str:
    """One line of three panels for each curve."""
    with new_figure((9.6, ROW_INCHES * max(len(curves), 1))) as figure:
        if not curves:
            axes = figure.add_subplot()
            axes.text(0.5, 0.5, "nothing was measured", ha="center", va="center", transform=axes.transAxes)
            return as_svg(figure)
        panels = figure.subplots(len(curves), len(LABELS), squeeze=False)
        for curve, line in zip(curves, panels, strict=True):
            for axes, name, colour, costs, slope in zip(
                line, LABELS, COLOURS, curve.costs, curve.exponents, strict=True
            ):
                _draw(axes, curve, costs, slope, colour)
                axes.set_xlabel(curve.axis)
                axes.set_ylabel(name)
            line[0].set_title(safe_text(curve.title, keep=""), loc="left", fontsize=8.5)
        return as_svg(figure)


def _draw(axes: Axes, curve: Curve, costs: Sequence[float], slope: float | None, colour: str) -> None:
    if isinstance(curve.values[0], str):
        axes.bar([safe_text(str(value), keep="") for value in curve.values], costs, color=colour)
        return
    values = [float(value) for value in curve.values]
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.plot(values, costs, color=colour, marker="o")
    if slope is not None:
        axes.plot(values, _fitted(values, costs, slope), color="#777777", linestyle="--", linewidth=1)
        axes.text(0.04, 0.94, f"{curve.axis}^{slope:.2f}", va="top", color="#777777", transform=axes.transAxes)
    axes.set_xticks(values, [str(value) for value in curve.values])
    axes.xaxis.set_minor_formatter(NullFormatter())
    lowest, highest = min(costs), max(costs)
    # Of costs that hardly grow, a panel that they fill would show noise as growth.
    spread = max(LEAST_SPREAD / (highest / lowest), 1.0) ** 0.5
    axes.set_ylim(lowest / spread / MARGIN, highest * spread * MARGIN)
    # Costs within one power of ten would have no tick with a figure.
    ends = [lowest, highest] if highest > MARGIN * lowest else [highest]
    axes.yaxis.set_major_locator(FixedLocator(ends))
    axes.set_yticklabels([f"{cost:,.0f}" if cost >= 1000 else f"{cost:.3g}" for cost in ends])
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.grid(alpha=0.25, which="both")


def _fitted(values: Sequence[float], costs: Sequence[float], slope: float) -> list[float]:
    """The line of that slope through the geometric mean, which least squares goes through."""
    scale = 1.0
    for value, cost in zip(values, costs, strict=True):
        scale *= (cost / value**slope) ** (1 / len(values))
    return [scale * value**slope for value in values]
