"""From a few measured passes to a whole run: the time of passes of any size, and how many rows memory holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

MOST_SHARE = 0.9
"""Of a device's memory; the system and what grows slowly in a run take the rest."""
SURE_SHARE = 0.5
"""Of a device's memory; a batch that is estimated below it is run at once, without the sizes between."""


@dataclass(frozen=True)
class PassTimes:
    """Seconds of forward and backward: so many for each pass, so many for each padded position in it."""

    per_pass: float
    per_position: float

    def seconds(self, num_passes: int, num_positions: int) -> float:
        return self.per_pass * num_passes + self.per_position * num_positions

    @classmethod
    def of(cls, few: tuple[int, int, float], many: tuple[int, int, float]) -> PassTimes:
        """Through two measurements (passes, positions, seconds), the second of more positions.

        Where they do not tell the two costs apart, or noise makes one of them negative, time is in proportion to
        positions, as the larger one has it.
        """
        passes_a, positions_a, seconds_a = few
        passes_b, positions_b, seconds_b = many
        determinant = passes_a * positions_b - passes_b * positions_a
        if determinant:
            per_pass = (seconds_a * positions_b - seconds_b * positions_a) / determinant
            per_position = (passes_a * seconds_b - passes_b * seconds_a) / determinant
            if per_pass >= 0 and per_position > 0:
                return cls(per_pass, per_position)
        return cls(0.0, seconds_b / positions_b)


def next_rows(peaks: Sequence[tuple[int, int]], most_rows: int, total_bytes: int) -> int | None:
    """How many rows a pass may have next, on the way from 1 to `most_rows`; None where no more fit.

    Args:
        peaks: (rows, peak bytes) of what was run, fewest rows first.
        total_bytes: of the device.
    """
    if len(peaks) < 2:
        return min(len(peaks) + 1, most_rows)
    (fewer, smaller), (rows, peak) = peaks[-2:]
    if rows == most_rows:
        return most_rows
    per_row = max(peak - smaller, 0) / max(rows - fewer, 1)
    for wanted, share in ((most_rows, SURE_SHARE), (min(2 * rows, most_rows), MOST_SHARE)):
        if peak + per_row * (wanted - rows) <= share * total_bytes:
            return wanted
    return None
