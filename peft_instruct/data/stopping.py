"""Whether rows teach a model to stop, told before it is trained: the failure is silent and shows in every answer."""

from __future__ import annotations

from collections.abc import Sequence

from peft_instruct.data.table import TokenTable
from peft_instruct.data.types import Tokens

LEAST_SHARE = 0.5
"""Below this share of rows that end in a stop token, more rows teach to go on than to stop."""


def stop_warning(rows: Sequence[Tokens], stop_id: int, num_start: int = 0) -> str:
    """What is wrong with how the training rows end; empty where most of them end in a stop token.

    Args:
        rows: as they are trained, cut or packed.
        stop_id: the token that ends a completion.
        num_start: tokens that the tokenizer itself puts before every text.
    """
    table = TokenTable.of(rows)
    is_stop = table.labels == stop_id
    if table.prompt_lengths.max(initial=0) <= num_start:
        return (
            f"warning: whole texts teach no answer to stop: {is_stop.sum()} ends of texts among "
            f"{len(table.ids):,} tokens. For answers that stop, tune on rows with prompts."
        )
    num_ending = int(is_stop[table.offsets[1:] - 1].sum())
    if num_ending >= LEAST_SHARE * len(rows):
        return ""
    return (
        f"warning: {num_ending} of {len(rows)} training rows end in a stop token; the others are cut at "
        "data.max_length and teach to go on. Raise data.max_length, or set data.overlong: drop."
    )
