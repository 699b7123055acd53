"""Prompts as ids that leave room for a completion within the model's positions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from peft_instruct.data.tokens import keep_end, prompt_ids, start_ids
from peft_instruct.data.units import Tokenizer

LARGEST_ROOM_FRACTION = 4
"""A prompt is cut for at most positions / 4 new tokens; a shorter prompt leaves more, and then gets more."""


@dataclass(frozen=True)
class FittedPrompt:
    """The ids of a prompt and how many may follow.

    Attributes:
        limit: most new tokens; len(ids) + limit never exceeds the positions.
        num_cut: tokens cut from the left, so that the end (the response header) stays.
        num_shared: tokens at the beginning that other prompts of the same call begin with, too.
    """

    ids: tuple[int, ...]
    limit: int
    num_cut: int
    num_shared: int = 0


def fit_prompts(
    tokenizer: Tokenizer, prompts: Sequence[str], *, positions: int, max_new_tokens: int
) -> list[FittedPrompt]:
    """The ids that training made of these prompts, cut where the completion would not fit.

    GPT-2 has no position for a token beyond `positions`: an IndexError in the middle of generation, and on the GPU
    an assert that ends the process.
    """
    room = min(max_new_tokens, max(1, positions // LARGEST_ROOM_FRACTION))
    # A model is given at least one token; GPT-2's text begins after an end-of-text token.
    start = tokenizer.eos_token_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id
    num_start = len(start_ids(tokenizer))
    fitted = []
    for ids in prompt_ids(tokenizer, prompts):
        kept = keep_end(ids, positions - room, num_start) or [start]
        fitted.append(
            FittedPrompt(tuple(kept), min(max_new_tokens, positions - len(kept)), max(0, len(ids) - len(kept)))
        )
    return fitted
