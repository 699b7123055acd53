"""A row of a bench as the cells of a table."""

from __future__ import annotations

from collections.abc import Sequence

from peft_instruct.bench.records import BenchRow, Measurement

HEADER = (
    "device", "method", "rank", "dtype", "batch", "max length", "tokens/s", "slowest–fastest", "completion/s", "s/step",
    "data/fwd/bwd/opt %",
    "peak GB", "loaded GB", "GFLOP/s of matrix rate", "",
)  # fmt: skip
_NONE = "–"


def table_row(row: BenchRow) -> list[str]:
    """The cells under HEADER: what was really used where it was measured, what was asked for where it failed."""
    cell, found = row.cell, row.measurement
    asked = [cell.method, str(cell.rank or _NONE), cell.precision, str(cell.batch_size), str(cell.max_length)]
    if found is not None:
        return [found.device, *asked[:2], found.dtype, *asked[3:], *_figures(found), ""]
    # What is not here is not here for any method.
    words = asked if row.status == "failed" else [_NONE] * len(asked)
    return [cell.device, *words, *[_NONE] * (len(HEADER) - len(words) - 2), row.status]


def reason_line(row: BenchRow) -> str:
    return f"{row.status}: {row.reason}" if row.status == "absent" else f"{row.cell}: {row.status}: {row.reason}"


def _figures(found: Measurement) -> list[str]:
    speed = found.tokens_per_second
    return [
        f"{speed.median:,.0f}",
        f"{speed.smallest:,.0f}–{speed.largest:,.0f}",
        f"{found.completion_tokens_per_second.median:,.0f}",
        f"{found.step_seconds.median:.3g}",
        _NONE if found.split is None else "/".join(f"{100 * share:.0f}" for share in found.split.model_dump().values()),
        f"{found.memory.peak_bytes / 1e9:.2f}",
        f"{found.memory.baseline_bytes / 1e9:.2f}",
        f"{found.model_flops_per_second.median / 1e9:,.1f} of {found.matrix_rate.flops_per_second / 1e9:,.0f} "
        f"({found.share_of_matrix_rate:.0%})",
    ]


def without_repeated_absences(rows: Sequence[BenchRow]) -> list[BenchRow]:
    """The rows with one for each device that is not here, whatever number of cells was asked of it."""
    seen: set[str] = set()
    kept = []
    for row in rows:
        if row.status != "absent" or row.cell.device not in seen:
            kept.append(row)
        if row.status == "absent":
            seen.add(row.cell.device)
    return kept
