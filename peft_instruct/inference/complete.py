"""Completions of prompts: batched, greedy or sampled, ended by the stop token or by the limit."""

# B rows of a batch, T tokens

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from transformers import LogitsProcessorList

from peft_instruct.data.units import Tokenizer
from peft_instruct.errors import ModelError
from peft_instruct.inference.batches import batches, roomy_cache
from peft_instruct.inference.choice import NextToken, row_generator
from peft_instruct.inference.preambles import Preambles, laid_out, with_shared
from peft_instruct.inference.prompts import FittedPrompt, fit_prompts
from peft_instruct.model.base import answering
from peft_instruct.model.cache_name import as_cache
from peft_instruct.model.packed import packed_weights
from peft_instruct.recipe.schema import GenerationSection

LEAST_PROMPTS_TO_PACK = 32
"""For fewer, packing the weights takes longer than it saves."""
STEPS_BETWEEN_LOOKS = 16
"""Tokens after which the rows that have stopped leave the batch."""
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
    batch_size: int | None = None,
    seed: int | None = None,
    first: int = 0,
    on_done: Callable[[int], None] | None = None,
) -> list[Generation]:
    """The completion of each prompt, in the prompts' order.

    But for rounding neither the batch size nor the other prompts play a part in a completion, greedy or sampled:
    padding is hidden by the attention mask and not counted by positions, also between a shared preamble and the rest.
    Sums in another order can turn a choice between two tokens of all but equal logits.

    Args:
        positions: of the model; prompt and completion together never exceed them.
        batch_size: rows at once; None takes as many as fit.
        seed: of sampling, with the place of a prompt; None draws a new one.
        first: the place of the first prompt, where `prompts` are a portion of more.
        on_done: called after each batch with the number of prompts completed so far.

    Raises:
        ModelError: the model's logits are not numbers.
    """
    fitted = with_shared(
        fit_prompts(tokenizer, prompts, positions=positions, max_new_tokens=options.max_new_tokens), model.config
    )
    preambles = Preambles(model, device)
    seed = new_seed() if seed is None else seed
    generations: dict[int, Generation] = {}
    with answering(model), packed_for(model, len(prompts)):
        for indices in batches(fitted, batch_size, model.config):
            batch = [fitted[index] for index in indices]
            choice = next_token(options, batch, seed, [first + index for index in indices])
            for index, ids in zip(indices, new_ids(model, tokenizer, batch, choice, device, preambles), strict=True):
                generations[index] = as_generation(tokenizer, prompts[index], fitted[index], ids)
            if on_done is not None:
                on_done(len(generations))
    return [generations[index] for index in range(len(prompts))]


def packed_for(model: Model, num_prompts: int) -> AbstractContextManager[None]:
    """The model's weights packed within the block, where so many prompts are worth it."""
    return packed_weights(model) if num_prompts >= LEAST_PROMPTS_TO_PACK else nullcontext()


def new_seed() -> int:
    return secrets.randbits(31)


def next_token(
    options: GenerationSection, batch: Sequence[FittedPrompt], seed: int, places: Sequence[int]
) -> NextToken:
    """The choice of a batch; `places` are those of the prompts in the caller's list."""
    generators = [row_generator(seed, place) for place in places] if options.temperature > 0 else []
    return NextToken(options, [prompt.ids for prompt in batch], generators)


def new_ids(
    model: Model,
    tokenizer: Tokenizer,
    batch: Sequence[FittedPrompt],
    choice: NextToken,
    device: torch.device,
    preambles: Preambles | None = None,
    streamer: Any = None,
) -> list[list[int]]:
    """Generated ids of each row, up to and with its stop token. All rows of the batch have one limit.

    Raises:
        ModelError: a logit is NaN; greedy search would give token 0 in silence.
    """
    out_BT, mask_BT = (torch.tensor(rows, device=device) for rows in laid_out(batch, tokenizer.pad_token_id))
    width, limit, stop = out_BT.shape[1], batch[0].limit, tokenizer.eos_token_id
    cache = roomy_cache(model.config, width + limit)
    if preambles is not None:
        preambles.put_into(cache, batch)
    rows = list(range(len(batch)))
    done: dict[int, list[int]] = {}
    while rows:
        # A lone row (a streamed one is alone) has nobody to wait for it.
        num_steps = min(limit if len(rows) == 1 else STEPS_BETWEEN_LOOKS, width + limit - out_BT.shape[1])
        out_BT = model.generate(
            input_ids=out_BT,
            attention_mask=torch.nn.functional.pad(mask_BT, (0, out_BT.shape[1] - mask_BT.shape[1]), value=1),
            **as_cache(cache),
            max_new_tokens=num_steps,
            # Sampling and the penalty are `choice`'s; a base's own generation_config.json must not add any.
            logits_processor=LogitsProcessorList([choice]),
            do_sample=False,
            num_beams=1,
            repetition_penalty=1.0,
            use_cache=True,
            eos_token_id=stop,
            pad_token_id=tokenizer.pad_token_id,
            streamer=streamer,
        )
        if choice.is_nan is not None and bool(choice.is_nan):
            raise ModelError(
                "generate: the model's logits are not numbers (NaN). expected finite weights. "
                "Use another base or adapter, or --device cpu where a device's kernel is at fault."
            )
        is_full = out_BT.shape[1] == width + limit
        ids = [_to_stop(row, stop) for row in out_BT[:, width:].tolist()]
        going = [place for place, row in enumerate(ids) if not is_full and row[-1] != stop]
        done |= {row: ids[place] for place, row in enumerate(rows) if place not in going}
        rows = [rows[place] for place in going]
        if rows and len(rows) < len(ids):
            kept = torch.tensor(going, device=device)
            out_BT, mask_BT = out_BT[kept], mask_BT[kept]
            cache.batch_select_indices(kept)
            choice.keep(going)
    return [done[row] for row in range(len(batch))]


def as_generation(tokenizer: Tokenizer, prompt: str, fitted: FittedPrompt, ids: Sequence[int]) -> Generation:
    stopped = bool(ids) and ids[-1] == tokenizer.eos_token_id
    return Generation(prompt, decoded(tokenizer, ids), len(ids), stopped, fitted.num_cut)


def decoded(tokenizer: Tokenizer, ids: Sequence[int]) -> str:
    return str(tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False))


def _to_stop(ids: list[int], stop: int) -> list[int]:
    return ids[: ids.index(stop) + 1] if stop in ids else ids
