"""What `--out` names: opened before the hours, not after them."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TextIO

from peft_instruct.data.sources import files_of
from peft_instruct.errors import RecipeError
from peft_instruct.whole_file import whole_file


@contextmanager
def _writing_at(path: Path, option: str) -> Iterator[None]:
    """A block that writes there, its folder made; what the system says becomes an error of the option."""
    # Not Path's: those of Python 3.11 raise where a name is too long to be one.
    if os.path.exists(path) and not os.path.isfile(path):
        what = "a folder" if os.path.isdir(path) else "a device or a pipe"
        raise RecipeError(f"{option} {path}: is {what}. expected the name of a file.")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise RecipeError(f"{option} {path}: cannot be written ({error.strerror}). Name another file.") from error


def behind_link(path: Path) -> Path:
    """The file that is written: what a link names, which stays one."""
    return Path(os.path.realpath(path)) if path.is_symlink() else path


def check_not_read(out: Path, sources: Iterable[str], option: str = "--out") -> None:
    """That what is to be written is none of the files that are read.

    Raises:
        RecipeError: it is one.
    """
    if os.path.exists(out) and any(os.path.samefile(out, file) for source in sources for file in files_of(source)):
        raise RecipeError(f"{option}: {out} is read as well, and would be lost. Name another file.")


def check_out(path: Path, option: str = "--out") -> None:
    """That a file can be written there later; one that is there stays as it is.

    Raises:
        RecipeError: no plain file, or it cannot be written there.
    """
    with _writing_at(path, option), tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}."):
        pass


@contextmanager
def out_file(path: Path, *, keeps: bool = False) -> Iterator[TextIO]:
    """As `whole_file`, with its folder made.

    Raises:
        RecipeError: no plain file, or it cannot be written there.
    """
    with ExitStack() as stack:
        with _writing_at(path, "--out"):
            stream = stack.enter_context(whole_file(behind_link(path), keeps=keeps))
        yield stream
