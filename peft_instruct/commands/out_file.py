"""What `--out` names: opened before the hours, not after them."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TextIO

from peft_instruct.errors import RecipeError
from peft_instruct.whole_file import whole_file


@contextmanager
def _writing_at(path: Path, option: str) -> Iterator[None]:
    """A block that writes there, its folder made; what the system says becomes an error of the option."""
    if path.is_dir():
        raise RecipeError(f"{option} {path}: is a folder. expected the name of a file.")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise RecipeError(f"{option} {path}: cannot be written ({error.strerror}). Name another file.") from error


def check_out(path: Path, option: str = "--out") -> None:
    """That a file can be written there later; one that is there stays as it is.

    Raises:
        RecipeError: a folder, or it cannot be written there.
    """
    with _writing_at(path, option), tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}."):
        pass


@contextmanager
def out_file(path: Path, *, keeps: bool = False) -> Iterator[TextIO]:
    """As `whole_file`, with its folder made.

    Raises:
        RecipeError: a folder, or it cannot be written there.
    """
    with ExitStack() as stack:
        with _writing_at(path, "--out"):
            stream = stack.enter_context(whole_file(path, keeps=keeps))
        yield stream
