"""Every write beneath a folder, seen before it happens, so that a process can be killed exactly there."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

WRITE_MODES = frozenset("wax+")
EVENTS = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "shutil.rmtree")


class WritePoints:
    """Counts the writes of Python, of fsync and of safetensors; kills its own process at one of them.

    Writes of Python are heard through an audit hook, which stays for the life of the process: for forked children.

    Args:
        inside: a part of the paths that count.
        kill_at: the number of the write, from 1, before which the process dies by SIGKILL.
    """

    def __init__(self, inside: str, kill_at: int) -> None:
        self.inside, self.kill_at = inside, kill_at
        self.count = 0

    def install(self) -> None:
        import safetensors.torch

        sys.addaudithook(self._audit)
        self._wrap(os, "fsync", lambda descriptor, *rest: os.readlink(f"/proc/self/fd/{descriptor}"))
        self._wrap(safetensors.torch, "serialize_file", lambda tensors, path, *rest: str(path))

    def _wrap(self, module: Any, name: str, path_of: Callable[..., str]) -> None:
        original = getattr(module, name)

        def wrapped(*args: Any, **kwargs: Any) -> Any:
            self._point(path_of(*args))
            done = original(*args, **kwargs)
            self._point(path_of(*args))
            return done

        setattr(module, name, wrapped)

    def _audit(self, event: str, args: tuple[Any, ...]) -> None:
        writes = event == "open" and isinstance(args[0], str | os.PathLike) and WRITE_MODES & set(args[1] or "")
        if writes or (event in EVENTS and args[0] is not None):
            self._point(os.fsdecode(args[0]))

    def _point(self, path: str) -> None:
        if self.inside not in path:
            return
        self.count += 1
        if self.count == self.kill_at:
            os.kill(os.getpid(), signal.SIGKILL)


def killed_at(number: int, inside: Path, work: Callable[[], object]) -> bool:
    """Do some work in a forked child that dies before its n-th write; whether it came that far."""
    pid = os.fork()
    if pid == 0:
        WritePoints(str(inside), number).install()
        try:
            work()
        except BaseException:
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    assert code in (0, -signal.SIGKILL), f"the work failed by itself ({code})"
    return code != 0
