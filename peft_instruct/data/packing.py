"""Whole texts -> rows of one length, without padding."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from peft_instruct.data.table import TokenTable
from peft_instruct.data.types import Tokens


def pack(rows: Sequence[Tokens], length: int) -> TokenTable:
    """Plain-text rows joined and cut into rows of exactly `length` tokens; the last may be shorter.

    Each document ends in its stop token, so a model can tell where the next begins; attention does cross over, as is
    usual in pretraining. No token is lost.
    """
    table = TokenTable.of(rows)
    starts = np.arange(0, len(table.ids), length)
    # A row is named by the document that it begins in; empty documents begin and end nothing.
    documents = np.searchsorted(table.offsets, starts, side="right") - 1
    return TokenTable(
        table.ids,
        np.ones_like(table.learned),
        np.append(starts, len(table.ids)),
        [f"from {table.origins[document]}" for document in documents],
    )
