"""Plots as SVG, the same bytes for the same records: no date, no random ids, text as text."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from peft_instruct.report.safe_text import safe_text

TRAIN_COLOUR, VALIDATION_COLOUR = "#3b6ea8", "#c4552d"
PANEL_INCHES = (7.2, 3.6)
BAR_INCHES = 0.38
ROOM_FOR_FIGURES = 1.3
"""Length of the axis for the longest bar of 1, so that the figure behind it fits."""

_STYLE = {
    # matplotlib salts the ids of clip paths and markers with a random number unless it is given one.
    "svg.hashsalt": "peft-instruct",
    "svg.fonttype": "none",
    "text.parse_math": False,
    "axes.formatter.use_mathtext": False,
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 10.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
}
_NO_METADATA = {"Date": None, "Creator": None, "Format": None, "Type": None}


@dataclass(frozen=True)
class Bar:
    """One measured device of a bench plot, or why it has no bar.

    Attributes:
        label: which cell, on which device.
        tokens_per_second: median; None draws no bar.
        smallest, largest: of the measured steps, drawn as a whisker.
        peak_bytes: peak memory.
        note: shown instead of a bar.
    """

    label: str
    tokens_per_second: float | None = None
    smallest: float = 0.0
    largest: float = 0.0
    peak_bytes: int = 0
    note: str = ""


def loss_plot_svg(records: Sequence[dict[str, Any]]) -> str:
    """Training and validation loss over optimizer steps.

    Args:
        records: lines of metrics.jsonl; those with `step` and a finite `loss` or `validation_loss` are drawn.
    """
    train, validation = _series(records, "loss"), _series(records, "validation_loss")
    with new_figure(PANEL_INCHES) as figure:
        axes = figure.add_subplot()
        if not train and not validation:
            axes.text(0.5, 0.5, "no loss was logged", ha="center", va="center", transform=axes.transAxes)
        if train:
            axes.plot(*zip(*train, strict=True), color=TRAIN_COLOUR, label="training", marker=_marker(train))
        if validation:
            axes.plot(*zip(*validation, strict=True), color=VALIDATION_COLOUR, label="validation", marker="o")
        if train or validation:
            axes.legend(frameon=False)
        axes.set_xlabel("step")
        axes.set_ylabel("loss (nats per completion token)")
        axes.grid(alpha=0.25)
        return as_svg(figure)


def bench_plot_svg(bars: Sequence[Bar]) -> str:
    """Throughput and peak memory side by side, one line per bar, the first on top."""
    height = 1.4 + BAR_INCHES * max(len(bars), 1)
    with new_figure((9.6, height)) as figure:
        speed, memory = figure.subplots(1, 2, sharey=True)
        places = list(range(len(bars)))
        for place, bar in zip(places, bars, strict=True):
            _draw_bar(speed, memory, place, bar)
        speed.set_yticks(places, [safe_text(bar.label, keep="") for bar in bars])
        speed.set_ylim(max(len(bars), 1) - 0.5, -0.5)
        speed.set_xlabel("real tokens per second; whisker: slowest to fastest step")
        speed.set_xlim(0, ROOM_FOR_FIGURES * max([bar.largest for bar in bars], default=0) or 1)
        memory.set_xlabel("peak memory (GB)")
        memory.set_xlim(0, ROOM_FOR_FIGURES * max([bar.peak_bytes / 1e9 for bar in bars], default=0) or 1)
        for axes in (speed, memory):
            axes.tick_params(axis="y", length=0)
            axes.xaxis.label.set_size(8.5)
        return as_svg(figure)


def histogram_svg(bins: Sequence[tuple[int, int, int]], limit: int) -> str:
    """Rows by length.

    Args:
        bins: (first, last, rows), lengths in tokens.
        limit: drawn as a line, where it is within reach.
    """
    with new_figure(PANEL_INCHES) as figure:
        axes = figure.add_subplot()
        starts = [first for first, _, _ in bins]
        axes.bar(starts, [count for _, _, count in bins], bins[0][1] - bins[0][0] + 1, align="edge", color=TRAIN_COLOUR)
        if limit <= bins[-1][1]:
            axes.axvline(limit, color=VALIDATION_COLOUR, label=f"max_length {limit}")
            axes.legend(frameon=False)
        axes.set_xlabel("tokens of a row")
        axes.set_ylabel("rows")
        return as_svg(figure)


def _draw_bar(speed: Axes, memory: Axes, place: int, bar: Bar) -> None:
    if bar.tokens_per_second is None:
        speed.text(0, place, f" {safe_text(bar.note, keep='')}", va="center", color="#777777", style="italic")
        return
    whisker = [[bar.tokens_per_second - bar.smallest], [bar.largest - bar.tokens_per_second]]
    speed.barh(place, bar.tokens_per_second, color=TRAIN_COLOUR, xerr=whisker, ecolor="#222222", capsize=2)
    speed.text(bar.largest, place, f"  {bar.tokens_per_second:,.0f}", va="center")
    memory.barh(place, bar.peak_bytes / 1e9, color=VALIDATION_COLOUR)
    memory.text(bar.peak_bytes / 1e9, place, f"  {bar.peak_bytes / 1e9:.2f}", va="center")


def _series(records: Sequence[dict[str, Any]], name: str) -> list[tuple[int, float]]:
    points = [(record["step"], record.get(name)) for record in records if "step" in record]
    return [(step, float(loss)) for step, loss in points if loss is not None and math.isfinite(loss)]


def _marker(points: Sequence[tuple[int, float]]) -> str | None:
    return "o" if len(points) == 1 else None  # a line of one point is not visible


@contextmanager
def new_figure(inches: tuple[float, float]) -> Iterator[Figure]:
    """A figure without pyplot: no global state, no display, nothing to close."""
    with matplotlib.rc_context(_STYLE):
        yield Figure(figsize=inches, layout="constrained")


def as_svg(figure: Figure) -> str:
    out = io.StringIO()
    FigureCanvasSVG(figure).print_svg(out, metadata=_NO_METADATA)
    return out.getvalue()
