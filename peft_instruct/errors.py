"""The error family. Everything a user can cause is one of these; a traceback is a bug of ours.

    PeftInstructError          1   the run failed
    ├── RecipeError            2   the recipe, or how the command was called
    ├── DatasetError           3   the rows
    ├── AdapterError           4   an adapter, a checkpoint or a merged model is unusable
    ├── ModelError             4   the base or its tokenizer is unusable
    └── UnavailableError       5   a device or an optional package is not here

    Stopped              130, 143   SIGINT or SIGTERM, after what had to be saved was saved

The number is the exit code. Texts read `place: what is wrong (value). what was expected. what to do.`
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError

MOST_PROBLEMS_SHOWN = 20
MOST_CHARACTERS_QUOTED = 200
OUT_OF_MEMORY = (
    "out of memory",
    "can't allocate memory",
    "not enough memory",
    "bad_alloc",
    "bad allocation",
    "could not create a primitive",
    "cublas_status_alloc_failed",
)
"""As CUDA and MPS say it, the CPU's allocator on Linux and on Windows, the C++ library, and oneDNN of a kernel that it
has no room for, and cuBLAS of its handle (torch 2.13)."""
NOT_OF_MEMORY = "could not create a primitive descriptor"
"""oneDNN of types or shapes that it has no kernel for."""


class PeftInstructError(Exception):
    """Base of all errors that a user can cause."""

    exit_code = 1

    @classmethod
    def of(cls, place: str, problems: Iterable[str]) -> PeftInstructError:
        """One error for all problems of one place, so that they are mended in one go."""
        found = list(problems)
        if len(found) == 1:
            # A problem that names its line in the same file says the file already.
            return cls(found[0] if found[0].startswith(f"{place}:") else f"{place}: {found[0]}")
        shown = found[:MOST_PROBLEMS_SHOWN]
        rest = [f"... and {len(found) - len(shown)} more"] if len(found) > len(shown) else []
        return cls("\n  ".join([f"{place}: {len(found)} problems", *shown, *rest]))


class RecipeError(PeftInstructError):
    exit_code = 2


class DatasetError(PeftInstructError):
    exit_code = 3


class AdapterError(PeftInstructError):
    exit_code = 4


class ModelError(PeftInstructError):
    exit_code = 4


class UnavailableError(PeftInstructError):
    exit_code = 5


class Stopped(BaseException):
    """A signal ended the command; no Exception, so that no library's `except Exception` goes on in spite of it."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def problems_of(error: ValidationError) -> list[str]:
    """What pydantic found, one line per wrong value: `place.in.it: what.`"""
    lines = []
    for finding in error.errors(include_url=False, include_input=False):
        place = ".".join(map(str, finding["loc"]))
        lines.append(f"{place}: {finding['msg']}." if place else f"{finding['msg']}.")
    return lines


def first_line(error: BaseException) -> str:
    """What an error says, for within a line of ours: libraries say it on many lines, or say nothing."""
    said = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return said[:MOST_CHARACTERS_QUOTED]


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error of Python or torch says that memory ran out; torch has a type of its own for CUDA alone."""
    said = str(error).lower().replace(NOT_OF_MEMORY, "")
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(text in said for text in OUT_OF_MEMORY)
    )
