"""Errors of libraries, quoted within a line of ours."""

from __future__ import annotations

import pytest

from peft_instruct.errors import MOST_CHARACTERS_QUOTED, first_line


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ValueError("one\ntwo"), "one"),
        (ValueError("\n \n  two"), "  two"),
        (ValueError(), "ValueError"),
        (KeyError(), "KeyError"),
        (OSError("x" * 1000), "x" * MOST_CHARACTERS_QUOTED),
    ],
)
def test_the_first_line_that_says_something_is_quoted(error: Exception, said: str) -> None:
    assert first_line(error) == said
