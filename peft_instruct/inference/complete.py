"""Completions of prompts: batched, greedy or sampled, ended by the stop token or by the limit."""

# B rows of a batch, T tokens

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
from transformers import LogitsProcessorList

from peft_instruct.data.tokens import Tokenizer
from peft_instruct.errors import ModelError
from peft_instruct.inference.choice import NextToken, row_generator
from peft_instruct.inference.prompts import FittedPrompt, fit_prompts
from peft_instruct.model.base import answering
from peft_instruct.recipe.schema import GenerationSection

Model = Any  # transformers.PreTrainedModel or peft.PeftModel; both have generate()


@dataclass(frozen=True)
class Generation:
    """A prompt and what the model made of it.

    Attributes:
        prompt: the whole text, also where the model was given only its end.
        num_tokens: tokens generated, the stop token included.
        stopped: ended by its stop token, not by the limit.
        num_cut: tokens cut from the prompt's left because the completion would not have fitted.
    """

    prompt: str
    completion: str
    num_tokens: int
    stopped: bool
    num_cut: int = 0


def complete(
    model: Model,
    tokenizer: Tokenizer,
    prompts: Sequence[str],
    options: GenerationSection,
    *,
    positions: int,
    device: torch.device,
    batch_size: int = 8,
    seed: int | None = None,
    on_done: Callable[[int], None] | None = None,
) -> list[Generation]:
    """The completion of each prompt, in the prompts' order.

    Neither the batch size nor the other prompts play a part in a completion, greedy or sampled: rows are padded on
    the left, where the attention mask hides it and positions do not count it.

    Args:
        positions: of the model; prompt and completion together never exceed them.
        seed: of sampling, with the place of a prompt in `prompts`; None draws a new one.
        on_done: called after each batch with the number of prompts completed so far.

    Raises:
        ModelError: the model's logits are not numbers.
    """
    fitted = fit_prompts(tokenizer, prompts, positions=positions, max_new_tokens=options.max_new_tokens)
    seed = new_seed() if seed is None else seed
    generations: dict[int, Generation] = {}
    with answering(model):
        for indices in _batches(fitted, batch_size):
            batch = [fitted[index] for index in indices]
            choice = next_token(options, batch, seed, indices)
            for index, ids in zip(indices, new_ids(model, tokenizer, batch, choice, device), strict=True):
                generations[index] = as_generation(tokenizer, prompts[index], fitted[index], ids)
            if on_done is not None:
                on_done(len(generations))
    return [generations[index] for index in range(len(prompts))]


def new_seed() -> int:
    return secrets.randbits(31)


def next_token(
    options: GenerationSection, batch: Sequence[FittedPrompt], seed: int, indices: Sequence[int]
) -> NextToken:
    """The choice of a batch; `indices` are the prompts' places in the caller's list."""
    generators = [row_generator(seed, index) for index in indices] if options.temperature > 0 else []
    return NextToken(options, [prompt.ids for prompt in batch], generators)


def new_ids(
    model: Model,
    tokenizer: Tokenizer,
    batch: Sequence[FittedPrompt],
    choice: NextToken,
    device: torch.device,
    streamer: Any = None,
) -> list[list[int]]:
    """Generated ids of each row, up to and with its stop token. All rows of the batch have one limit.

    Raises:
        ModelError: a logit is NaN; greedy search would give token 0 in silence.
    """
    width = max(len(prompt.ids) for prompt in batch)
    padding = [[tokenizer.pad_token_id] * (width - len(prompt.ids)) for prompt in batch]
    input_ids_BT = torch.tensor([[*pad, *prompt.ids] for pad, prompt in zip(padding, batch, strict=True)])
    mask_BT = torch.tensor([[0] * len(pad) + [1] * (width - len(pad)) for pad in padding])
    out_BT = model.generate(
        input_ids=input_ids_BT.to(device),
        attention_mask=mask_BT.to(device),
        max_new_tokens=batch[0].limit,
        # Sampling and the penalty are `choice`'s; a base's own generation_config.json must not add any.
        logits_processor=LogitsProcessorList([choice]),
        do_sample=False,
        num_beams=1,
        repetition_penalty=1.0,
        use_cache=True,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        streamer=streamer,
    )
    if choice.is_nan is not None and bool(choice.is_nan):
        raise ModelError(
            "generate: the model's logits are not numbers (NaN). expected finite weights. "
            "Use another base or adapter, or --device cpu where a device's kernel is at fault."
        )
    return [_to_stop(row, tokenizer.eos_token_id) for row in out_BT[:, width:].tolist()]


def as_generation(tokenizer: Tokenizer, prompt: str, fitted: FittedPrompt, ids: Sequence[int]) -> Generation:
    stopped = bool(ids) and ids[-1] == tokenizer.eos_token_id
    return Generation(prompt, decoded(tokenizer, ids), len(ids), stopped, fitted.num_cut)


def decoded(tokenizer: Tokenizer, ids: Sequence[int]) -> str:
    return str(tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False))


def _to_stop(ids: list[int], stop: int) -> list[int]:
    return ids[: ids.index(stop) + 1] if stop in ids else ids


def _batches(fitted: Sequence[FittedPrompt], size: int) -> Iterator[list[int]]:
    """Indices of prompts of similar length, the longest first.

    Rows of one batch share one limit: a row that has stopped is fed padding until the last one has, and a longer
    prompt would run out of positions on it.
    """
    ordered = sorted(range(len(fitted)), key=lambda index: -len(fitted[index].ids))
    for _, group in groupby(ordered, key=lambda index: fitted[index].limit):
        indices = list(group)
        for start in range(0, len(indices), size):
            yield indices[start : start + size]
