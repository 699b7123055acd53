"""Which rows meet in each pass of a run, known before it begins: lengths decide time and memory."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from itertools import count, islice

from peft_instruct.recipe.schema import Recipe
from peft_instruct.training.collator import PADDED_TO
from peft_instruct.training.sampler import LengthBucketSampler, TokenBudgetSampler

Batch = Sequence[int]
"""Numbers of the rows of one forward pass and device."""


def num_steps(lengths: Sequence[int], recipe: Recipe) -> int:
    """Optimizer steps of the whole run, as the Trainer counts them."""
    return recipe.training.max_steps or math.ceil(recipe.training.epochs * _steps_per_epoch(lengths, recipe))


def num_evaluations(lengths: Sequence[int], recipe: Recipe) -> int:
    """Validation losses of the whole run, if nothing ends it early; its last step has one in any case."""
    every = recipe.training.evaluate_every
    if every == "never":
        return 0
    if every == "epoch":
        return math.ceil(num_steps(lengths, recipe) / _steps_per_epoch(lengths, recipe))
    return math.ceil(num_steps(lengths, recipe) / every)


def planned_steps(lengths: Sequence[int], recipe: Recipe) -> list[list[Batch]]:
    """The batches of each optimizer step of the whole run.

    Without `speed.length_buckets` the order is the Trainer's own, of which only the kind is known: a shuffled one.

    Args:
        lengths: of the training rows, in tokens.
    """
    return list(islice(_endless(lengths, recipe), num_steps(lengths, recipe)))


def _steps_per_epoch(lengths: Sequence[int], recipe: Recipe) -> int:
    """The last one of an epoch takes what is left."""
    training = recipe.training
    num_batches = len(_by_tokens(lengths, recipe)) if training.batch_tokens else len(lengths) / training.batch_size
    return math.ceil(math.ceil(num_batches) / training.accumulation)


def _by_tokens(lengths: Sequence[int], recipe: Recipe) -> TokenBudgetSampler:
    training = recipe.training
    assert training.batch_tokens is not None
    return TokenBudgetSampler(
        lengths,
        training.batch_tokens,
        seed=training.seed,
        padded_to=PADDED_TO,
        batches_per_step=training.accumulation,
    )


def _endless(lengths: Sequence[int], recipe: Recipe) -> Iterator[list[Batch]]:
    accumulation = recipe.training.accumulation
    of_epoch = _token_batches(lengths, recipe) if recipe.training.batch_tokens else _row_batches(lengths, recipe)
    for batches in of_epoch:
        for at in range(0, len(batches), accumulation):
            yield batches[at : at + accumulation]


def _token_batches(lengths: Sequence[int], recipe: Recipe) -> Iterator[list[Batch]]:
    sampler = _by_tokens(lengths, recipe)
    for epoch in count():
        sampler.set_epoch(epoch)
        yield list(sampler)


def _row_batches(lengths: Sequence[int], recipe: Recipe) -> Iterator[list[Batch]]:
    training = recipe.training
    sampler = LengthBucketSampler(lengths, training.batch_size * training.accumulation, seed=training.seed)
    for epoch in count():
        sampler.set_epoch(epoch)
        order = list(sampler)
        if not recipe.speed.length_buckets:
            random.Random(f"{training.seed}:{epoch}").shuffle(order)
        yield [order[at : at + training.batch_size] for at in range(0, len(order), training.batch_size)]


def passes_of(batch: Batch, lengths: Sequence[int], rows_at_once: int) -> tuple[int, int]:
    """(passes, padded positions of all of them) of a batch that is computed so many rows at a time."""
    widths = [
        (len(rows), _padded(max(lengths[row] for row in rows)))
        for rows in (batch[at : at + rows_at_once] for at in range(0, len(batch), rows_at_once))
    ]
    return len(widths), sum(num_rows * width for num_rows, width in widths)


def _padded(length: int) -> int:
    return length + -length % PADDED_TO
