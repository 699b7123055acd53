"""SIGINT and SIGTERM: leave at once where nothing can be lost, else after the step is done and saved."""

from __future__ import annotations

import _thread
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType, TracebackType
from typing import Any, NoReturn

from peft_instruct.errors import Stopped

HANDLED = (signal.SIGINT, signal.SIGTERM)
SECONDS_UNTIL_AGAIN = 2.0
"""Longer than what is on the way out takes, which is not to be broken off."""


class StopSignals:
    """A context in which the two signals end a run in order; the handlers before it come back after it.

    The first one raises Stopped, whatever other code makes of it, or only asks within `postponed`. A SIGINT after it
    ends the process at once: what the last checkpoint holds is safe. SIGHUP is ignored: a run outlives its terminal.
    """

    def __init__(self, command: str, until_saved: str = "") -> None:
        """`command` goes on with the run; with the options `until_saved` as long as this process has not saved."""
        self.command, self.until_saved = command, until_saved
        self.has_saved = False
        self.received: int | None = None
        self.saved_step: int | None = None
        self._is_postponed = False
        self._is_leaving = False
        self._is_again = False
        self._tells = True
        self._has_left = threading.Event()
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopSignals:
        # Only the main thread may; in another one (a notebook's, a server's) signals are its owner's matter.
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._handle) for number in HANDLED}
            if hasattr(signal, "SIGHUP"):
                self._before[signal.SIGHUP] = signal.signal(signal.SIGHUP, signal.SIG_IGN)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._has_left.set()
        for number, handler in self._before.items():
            signal.signal(number, handler)
        # What Stopped has broken off, an import of numpy's say, may fail in its own way afterwards.
        if self._is_leaving and isinstance(error, Exception):
            self.leave()

    def hint(self) -> str:
        """What a person types to go on with this run."""
        return self.command if self.has_saved else f"{self.command}{self.until_saved}"

    def note_saved(self) -> None:
        """From here on there is a checkpoint of this very run, which `--resume none` would drop."""
        self.has_saved = True

    def requested(self) -> bool:
        return self.received is not None

    @contextmanager
    def postponed(self, *, then_leave: bool = True, tells: bool = True) -> Iterator[None]:
        """A block that a first signal does not break off.

        Args:
            then_leave: leave when it is done; false where nothing is left to do but to show the result.
            tells: say that a step is finished and saved first.
        """
        self._is_postponed, self._tells = True, tells
        try:
            yield
        finally:
            self._is_postponed = False
        if then_leave and self.requested():
            self.leave()

    def saved(self, step: int) -> None:
        """The run has saved at `step`, because a signal asked for it."""
        self.saved_step = step
        self.leave()

    def leave(self) -> NoReturn:
        self._is_leaving = True
        number = signal.Signals(self.received or signal.SIGTERM)
        done = "stopped" if self.saved_step is None else f"saved checkpoint-{self.saved_step}"
        raise Stopped(f"{number.name}: {done}. Go on with: {self.hint()}", 128 + number)

    def _insist(self) -> None:
        """Stopped again, until it ends the block: what is raised in a callback of C code, of which an import of torch
        has many, Python drops."""
        while not self._has_left.wait(SECONDS_UNTIL_AGAIN):
            if not self._is_postponed:
                self._is_again = True
                _thread.interrupt_main(signal.SIGTERM)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._is_again:
            self._is_again = False
            if not self._is_postponed:
                self.leave()
            return
        if self.requested():
            if number == signal.SIGINT:
                os._exit(128 + number)
            return
        self.received = number
        # Not a Thread, whose start takes a lock that the handler may have interrupted.
        _thread.start_new_thread(self._insist, ())
        if not self._is_postponed:
            self.leave()
        if not self._tells:
            return
        name = signal.Signals(number).name
        # Not through `say`: the handler may have interrupted a line that is being written. The terminal may be gone.
        with suppress(OSError):
            os.write(2, f"\n{name}: finishing the step, then saving; Ctrl-C now leaves at once\n".encode())
