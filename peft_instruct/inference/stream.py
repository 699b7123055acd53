"""The completion of one prompt, told piece by piece while it is generated."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from transformers.generation.streamers import BaseStreamer

from peft_instruct.data.units import Tokenizer
from peft_instruct.inference.complete import Generation, Model, as_generation, decoded, new_ids, new_seed, next_token
from peft_instruct.inference.prompts import fit_prompts
from peft_instruct.model.base import answering
from peft_instruct.recipe.schema import GenerationSection

HALF_A_CHARACTER = "\N{REPLACEMENT CHARACTER}"


class TextPieces:
    """Ids in, whole characters out: one emoji is several tokens, and half of one is told as nothing yet.

    The pieces joined, with `rest` at the end, are the text that all ids decode to at once.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.ids: list[int] = []
        # ids[start:told] was the last piece. It is decoded again with what follows, because a tokenizer may
        # drop the space in front of a text's first word.
        self.start = self.told = 0

    def add(self, ids: Sequence[int]) -> str:
        """The text that these ids complete; empty while a character is open."""
        self.ids.extend(ids)
        return self._piece(even_if_open=False)

    def rest(self) -> str:
        """What is left when no more ids come; a model may well end inside a character."""
        return self._piece(even_if_open=True)

    def _piece(self, even_if_open: bool) -> str:
        before = decoded(self.tokenizer, self.ids[self.start : self.told])
        now = decoded(self.tokenizer, self.ids[self.start :])
        if len(now) <= len(before) or (now.endswith(HALF_A_CHARACTER) and not even_if_open):
            return ""
        self.start, self.told = self.told, len(self.ids)
        return now[len(before) :]


class _Pieces(BaseStreamer):
    """What generate() calls with the prompt first and each new token after it."""

    def __init__(self, pieces: TextPieces, on_text: Callable[[str], None]) -> None:
        self.pieces = pieces
        self.on_text = on_text
        self.is_prompt_past = False

    def put(self, value: torch.Tensor) -> None:
        if self.is_prompt_past:
            self._tell(self.pieces.add(value.reshape(-1).tolist()))
        self.is_prompt_past = True

    def end(self) -> None:
        self._tell(self.pieces.rest())

    def _tell(self, text: str) -> None:
        if text:
            self.on_text(text)


def stream(
    model: Model,
    tokenizer: Tokenizer,
    prompt: str,
    options: GenerationSection,
    on_text: Callable[[str], None],
    *,
    positions: int,
    device: torch.device,
    seed: int | None = None,
) -> Generation:
    """`complete` of one prompt, with each piece of text told as soon as its characters are whole.

    It runs in the caller's thread: an error in the model or in `on_text` is raised here and nothing waits.

    Args:
        on_text: gets the pieces; joined they are the completion.

    Raises:
        ModelError: as `complete` does.
    """
    fitted = fit_prompts(tokenizer, [prompt], positions=positions, max_new_tokens=options.max_new_tokens)
    choice = next_token(options, fitted, new_seed() if seed is None else seed, [0])
    with answering(model):
        streamer = _Pieces(TextPieces(tokenizer), on_text)
        (ids,) = new_ids(model, tokenizer, fitted, choice, device, streamer=streamer)
    return as_generation(tokenizer, prompt, fitted[0], ids)
