"""The tables that `recipe` prints."""

from __future__ import annotations

from peft_instruct.commands.recipes import WIDEST, Table


def test_a_long_value_moves_its_own_line_alone() -> None:
    table = Table(
        ("key", "value", "origin"), (("a", "1", "default"), ("bb", "x" * (WIDEST + 1), "here"), ("c", "", ""))
    )
    assert table.text().split("\n") == ["a   1  default", f"bb  {'x' * (WIDEST + 1)}  here", "c"]
