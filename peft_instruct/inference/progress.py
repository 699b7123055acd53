"""Long work told in a line now and then."""

from __future__ import annotations

import time
from collections.abc import Callable

SECONDS_BETWEEN_LINES = 5.0


def told(
    say: Callable[[str], None], what: str, total: int, clock: Callable[[], float] = time.monotonic
) -> Callable[[int], None]:
    """A listener for counts so far that says `what: 40 of 250` every five seconds at most, never of short work."""
    last = clock()

    def on_done(count: int) -> None:
        nonlocal last
        if clock() - last >= SECONDS_BETWEEN_LINES:
            last = clock()
            say(f"{what}: {count} of {total}")

    return on_done
