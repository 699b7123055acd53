"""Columns line up, and a cell is never markup."""

from __future__ import annotations

import pytest

from peft_instruct.report.tables import display_width, markdown_table, text_table


def test_columns_line_up_and_numbers_stand_on_the_right() -> None:
    table = text_table(("method", "tokens/s", "share"), [["lora", "1,234", "5%"], ["full", "98", "–"]])
    assert table.splitlines() == [
        "method  tokens/s  share",
        "──────  ────────  ─────",
        "lora       1,234     5%",
        "full          98      –",
    ]


def test_wide_and_combining_characters_take_the_columns_that_a_terminal_gives_them() -> None:
    assert (display_width("東京"), display_width("cafe\u0301"), display_width("a\u200db")) == (4, 4, 2)
    first, _, *rest = text_table(("a", "b"), [["東京", "x"], ["abcd", "y"]]).splitlines()
    assert [line.index(letter) + line.count("東京") * 2 for line, letter in zip(rest, "xy", strict=True)] == [6, 6]
    assert first.startswith("a ")


def test_a_cell_cannot_break_the_line_or_move_the_cursor() -> None:
    table = text_table(("a",), [["x\ny\x1b[1A"]])
    assert table.splitlines()[2] == r"x\ny\x1b[1A"


def test_markdown_cells_are_text() -> None:
    table = markdown_table(("name", "n"), [["<script>a|b</script> *x* [l](u) `c` gpt2_lora &amp;", "1"]])
    assert table.splitlines() == [
        "| name | n |",
        "| --- | ---: |",
        r"| \<script\>a\|b\</script\> \*x\* \[l\](u) \`c\` gpt2\_lora \&amp; | 1 |",
    ]


def test_a_table_without_lines_is_its_header() -> None:
    assert text_table(("a", "bc"), []).splitlines() == ["a  bc", "─  ──"]
    assert markdown_table(("a", "bc"), []).splitlines() == ["| a | bc |", "| --- | --- |"]


def test_a_line_with_a_missing_cell_is_our_mistake_and_told() -> None:
    with pytest.raises(ValueError, match="table line 1 has 1 cells for 2 columns"):
        text_table(("a", "b"), [["x"]])
