"""From a few measured passes to a whole run: the time of passes and completions of any size, and the rows that memory
holds.
"""

from __future__ import annotations

import math
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

    @classmethod
    def per_position_of(cls, *measured: tuple[int, int, float]) -> PassTimes:
        """In proportion to positions: of passes that are too much alike to tell the two costs apart."""
        return cls(0.0, sum(each[2] for each in measured) / sum(each[1] for each in measured))


@dataclass(frozen=True)
class CompletionTimes:
    """Seconds of completing a batch of prompts: for each padded position of these, then for each further token of the
    batch and of each row in it."""

    per_position: float
    per_step: float
    per_row: float

    def seconds(self, num_positions: int, lengths: Sequence[int], look: int) -> float:
        """Of a batch.

        Args:
            lengths: of its completions, stop tokens included.
            look: tokens after which the rows that have stopped leave the batch.
        """
        # The first token comes with the prompts.
        num_steps, num_row_steps = max(lengths) - 1, -len(lengths)
        for start in range(0, max(lengths), look):
            num_rows = sum(length > start for length in lengths)
            num_row_steps += num_rows * (min(start + look, max(lengths)) - start)
        return self.per_position * num_positions + self.per_step * num_steps + self.per_row * num_row_steps

    @classmethod
    def of(cls, per_position: float, alone: float, together: float, num_rows: int) -> CompletionTimes:
        """From the seconds of a further token of a lone row, and of `num_rows` rows together.

        Where noise makes the lone row the slower one, rows cost nothing.
        """
        per_row = max(together - alone, 0.0) / (num_rows - 1) if num_rows > 1 else 0.0
        per_row = min(per_row, together / num_rows)
        return cls(per_position, together - per_row * num_rows, per_row)


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


def most_sizes(most_rows: int) -> int:
    """How many passes of `next_rows` it takes, at most, until one has `most_rows`: the first is run twice."""
    return 2 + math.ceil(math.log2(most_rows))
