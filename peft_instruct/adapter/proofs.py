"""Proof on the user's own run: what was written is what was trained, and it is not what the base was."""

# T tokens of a prompt, V vocabulary

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from peft_instruct.data.templates import GOLDEN_EXAMPLES, Template
from peft_instruct.data.tokens import prompt_ids
from peft_instruct.data.types import Example
from peft_instruct.errors import AdapterError
from peft_instruct.model.base import answering

PROBES = (
    *GOLDEN_EXAMPLES,
    Example("What is the capital of France?", "", "", "probe 3"),
    Example("Sort the numbers from small to large.", "7, 3, 12, 5", "", "probe 4"),
)
RELOAD_TOLERANCE = 1e-5
"""fp32 on one device is deterministic to rounding; relative to the largest logit."""
NUM_GREEDY_TOKENS = 24


@dataclass(frozen=True)
class Difference:
    """How far two models are apart on the probe prompts.

    Attributes:
        largest_logit_difference: max |Δlogit| over all probe positions.
        largest_logit: max |logit| of the reference, which a relative tolerance refers to.
        argmax_agreement: share of positions where both have the same first choice.
    """

    largest_logit_difference: float
    largest_logit: float
    argmax_agreement: float

    def within(self, tolerance: float) -> bool:
        return self.largest_logit_difference <= tolerance * max(1.0, self.largest_logit)

    def as_record(self) -> dict[str, Any]:
        return asdict(self)


def probe_inputs(tokenizer: Any, template: Template, most_tokens: int) -> list[list[int]]:
    """Ids of the probe prompts, the end of each where the model has too few positions."""
    ids = prompt_ids(tokenizer, [template.prompt(e.instruction, e.input) for e in PROBES])
    return [prompt[-most_tokens:] for prompt in ids]


def probe_logits(model: torch.nn.Module, inputs: Sequence[Sequence[int]], device: torch.device) -> list[torch.Tensor]:
    """fp32 logits, (T, V) per probe, one at a time and without autocast: no padding and no batch plays a part."""
    logits_TV = []
    with answering(model):
        for ids in inputs:
            out = model(input_ids=torch.tensor([list(ids)], device=device), use_cache=False)
            logits_TV.append(out.logits[0].float().cpu())
    return logits_TV


@dataclass(frozen=True)
class Continuation:
    """Greedy tokens after a probe.

    Attributes:
        gaps: of each token, how far its logit is above the next best one.
    """

    ids: list[int]
    gaps: list[float]

    def is_continued_by(self, ids: Sequence[int], rounding: float) -> bool:
        """Whether a model whose logits are off by no more than `rounding` may have chosen these tokens."""
        parted = next((at for at, (one, other) in enumerate(zip(self.ids, ids, strict=False)) if one != other), None)
        if parted is None:
            return len(ids) == len(self.ids)
        # Behind a choice between two that are all but equal the two go different ways.
        return self.gaps[parted] <= 2 * rounding


def greedy(model: Any, inputs: Sequence[Sequence[int]], device: torch.device, pad_id: int) -> list[Continuation]:
    """Greedy continuations of the probes, the prompt left out."""
    continuations = []
    with answering(model):
        for ids in inputs:
            input_ids = torch.tensor([list(ids)], device=device)
            out = model.generate(
                input_ids=input_ids,
                attention_mask=torch.ones_like(input_ids),
                max_new_tokens=NUM_GREEDY_TOKENS,
                do_sample=False,
                pad_token_id=pad_id,
                return_dict_in_generate=True,
                output_scores=True,
            )
            best_T2 = torch.cat(out.scores).float().topk(2).values
            gaps = (best_T2[:, 0] - best_T2[:, 1]).tolist()
            continuations.append(Continuation(out.sequences[0, len(ids) :].tolist(), gaps))
    return continuations


def compare(reference: Sequence[torch.Tensor], other: Sequence[torch.Tensor]) -> Difference:
    """How far `other` is from `reference`.

    Raises:
        AdapterError: a logit is not finite, which no tolerance covers.
    """
    if not all(torch.isfinite(logits).all() for logits in (*reference, *other)):
        raise AdapterError("the probe logits are not finite: the weights hold NaN or infinity.")
    agree = [(a.argmax(-1) == b.argmax(-1)).float() for a, b in zip(reference, other, strict=True)]
    return Difference(
        largest_logit_difference=max(float((a - b).abs().max()) for a, b in zip(reference, other, strict=True)),
        largest_logit=max(float(a.abs().max()) for a in reference),
        argmax_agreement=float(torch.cat(agree).mean()),
    )


def prove_reload(
    before: Sequence[torch.Tensor],
    trained: Sequence[torch.Tensor],
    reloaded: Sequence[torch.Tensor],
    place: str,
) -> dict[str, Any]:
    """The record that goes into the manifest: reloaded equals trained, trained differs from the base.

    Raises:
        AdapterError: an inert adapter, or a file that is not the model that was trained.
    """
    moved = compare(before, trained)
    # Learning moves logits by whole units; what rounding alone moves is no learning.
    if moved.within(1e-6):
        raise AdapterError(
            f"{place}: the adapter is inert: it changes no logit of the base (max |Δ| "
            f"{moved.largest_logit_difference:.1e}). Train longer, raise training.learning_rate, or check "
            "method.targets."
        )
    same = compare(trained, reloaded)
    if not same.within(RELOAD_TOLERANCE):
        raise AdapterError(
            f"{place}: what was written is not what was trained (max |Δlogit| {same.largest_logit_difference:.2e}, "
            f"tolerance {RELOAD_TOLERANCE:g} of {same.largest_logit:.1f}). Do not use it."
        )
    return {"reloaded_equals_trained": same.as_record(), "trained_differs_from_base": moved.as_record()}
