"""What `--out` names: opened before the hours, not after them."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TextIO

from peft_instruct.errors import RecipeError
from peft_instruct.whole_file import whole_file


def check_out(path: Path, option: str = "--out") -> None:
    """That a file can be written there later; one that is there stays as it is.

    Raises:
        RecipeError: a folder, or it cannot be written there.
    """
    if path.is_dir():
        raise RecipeError(f"{option} {path}: is a folder. expected the name of a file.")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}."):
            pass
    except OSError as error:
        raise RecipeError(f"{option} {path}: cannot be written ({error.strerror}). Name another file.") from error


@contextmanager
def out_file(path: Path, *, keeps: bool = False) -> Iterator[TextIO]:
    """As `whole_file`, with its folder made.

    Raises:
        RecipeError: a folder, or it cannot be written there.
    """
    if path.is_dir():
        raise RecipeError(f"--out {path}: is a folder. expected the name of a file.")
    with ExitStack() as stack:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            stream = stack.enter_context(whole_file(path, keeps=keeps))
        except OSError as error:
            raise RecipeError(f"--out {path}: cannot be written ({error.strerror}). Name another file.") from error
        yield stream
