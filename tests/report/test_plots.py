"""Plots are XML, the same bytes every time, and show what the records say."""

from __future__ import annotations

import math
import subprocess
import sys
from typing import Any
from xml.etree import ElementTree

import matplotlib
import pytest

from peft_instruct.report.growth_plot import Curve, growth_plot_svg
from peft_instruct.report.plots import Bar, bench_plot_svg, loss_plot_svg

RECORDS: list[dict[str, Any]] = [
    {"step": 10, "loss": 3.0, "learning_rate": 1e-4},
    {"step": 20, "loss": 2.5},
    {"step": 20, "validation_loss": 2.75},
    {"step": 20, "samples": {"Name a colour.": "red"}},
    {"step": 30, "loss": None},
    {"step": 40, "validation_loss": 2.25},
]
BARS = [
    Bar("a.json: cuda lora <bf16> $x^2$", 8000.0, 7500.0, 8100.0, 3_000_000_000),
    Bar("b.json: mps lora", note="absent: mps is not here"),
]


def texts(svg: str) -> list[str]:
    return [element.text or "" for element in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]


def test_the_loss_plot_names_both_losses_and_the_step() -> None:
    assert {"training", "validation", "step", "loss (nats per completion token)"} <= set(texts(loss_plot_svg(RECORDS)))


def test_training_alone_has_no_validation_in_its_legend() -> None:
    assert "validation" not in texts(loss_plot_svg(RECORDS[:2]))


@pytest.mark.parametrize("records", [[], [{"step": 1, "loss": None}], [{"step": 1, "loss": math.nan}]])
def test_a_run_without_a_loss_says_so(records: list[dict[str, Any]]) -> None:
    assert "no loss was logged" in texts(loss_plot_svg(records))


def test_a_bench_plot_shows_the_medians_the_memory_and_why_a_bar_is_missing() -> None:
    shown = [text.strip() for text in texts(bench_plot_svg(BARS))]
    assert {"8,000", "3.00", "absent: mps is not here"} <= set(shown)


def test_a_label_is_text_and_neither_markup_nor_mathematics() -> None:
    svg = bench_plot_svg(BARS)
    assert "a.json: cuda lora <bf16> $x^2$" in texts(svg)
    assert "<bf16>" not in svg


@pytest.mark.parametrize("bars", [[], [Bar("x", note="absent: x is not here")]])
def test_a_bench_without_figures_is_still_a_plot(bars: list[Bar]) -> None:
    ElementTree.fromstring(bench_plot_svg(bars))


GROWTH = [
    Curve("length", "cpu: <lora>", (64, 128), ((1.0, 4.0), (64.0, 32.0), (2.0, 2.5)), (2.0, -1.0, 0.32)),
    Curve("method", "cpu", ("lora", "full"), ((1.0, 4.0), (64.0, 32.0), (2.0, 2.5)), (None, None, None)),
    Curve("rank", "cpu", (8,), ((1.0,), (64.0,), (2.0,)), (None, None, None)),
]


def test_a_growth_plot_shows_every_curve_its_points_and_its_exponents() -> None:
    shown = [text.strip() for text in texts(growth_plot_svg(GROWTH))]
    assert {"length^2.00", "length^-1.00", "length^0.32", "64", "128", "lora", "full", "cpu: <lora>"} <= set(shown)
    assert shown.count("seconds per step") == shown.count("peak memory (GB)") == 3
    assert "rank^" not in "".join(shown)
    assert growth_plot_svg(GROWTH) == growth_plot_svg(GROWTH)


def test_a_sweep_of_which_nothing_was_measured_is_still_a_plot() -> None:
    assert "nothing was measured" in texts(growth_plot_svg([]))


def test_the_same_records_give_the_same_bytes_in_another_process_and_carry_no_date() -> None:
    script = f"from peft_instruct.report.plots import *\nprint(loss_plot_svg({RECORDS!r}), end='')"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    svg = loss_plot_svg(RECORDS)
    assert done.stdout == svg
    assert "<metadata" not in svg and "matplotlib.org" not in svg


def test_the_user_s_own_matplotlib_settings_stay_as_they_were() -> None:
    with matplotlib.rc_context({"font.size": 7.5, "svg.fonttype": "path"}):
        loss_plot_svg(RECORDS)
        assert (matplotlib.rcParams["font.size"], matplotlib.rcParams["svg.fonttype"]) == (7.5, "path")
