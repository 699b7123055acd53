"""Rows of tokens as arrays: the same rows, whatever asks for them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from peft_instruct.data.table import TokenTable
from peft_instruct.data.types import IGNORED_LABEL, Tokens

masks = st.lists(st.lists(st.booleans(), max_size=5), max_size=6)


@given(masks)
def test_a_table_holds_the_rows_that_it_was_made_of(masks: list[list[bool]]) -> None:
    rows = []
    for number, mask in enumerate(masks):
        ids = tuple(range(10 * number, 10 * number + len(mask)))
        labels = tuple(token if learned else IGNORED_LABEL for token, learned in zip(ids, mask, strict=True))
        prompt_length = mask.index(True) if True in mask else len(mask)
        rows.append(Tokens(ids, labels, prompt_length, f"row {number}"))
    table = TokenTable.of(rows)
    assert list(table) == rows
    assert table[1:-1] == rows[1:-1]
    assert table.lengths.tolist() == [len(mask) for mask in masks]
    assert TokenTable.of(table) is table
