"""How the next token is chosen: greedy, or drawn with a generator of the row's own.

transformers draws all rows of a batch from torch's global generator, so a sampled completion depends on the batch
that it is in. Here row and seed decide alone: adding Gumbel noise to the logits and taking the largest is a draw
from their softmax (Gumbel 1954; Maddison et al. 2014), and the noise of a row comes from its own generator.
"""

# B rows of a batch, T tokens so far, V vocabulary

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from transformers import LogitsProcessor, TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from peft_instruct.recipe.schema import GenerationSection


def row_generator(seed: int, index: int) -> torch.Generator:
    """The generator of the prompt at `index` of its list, on the CPU: the same noise on every device."""
    digest = hashlib.sha256(f"{seed}/{index}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


class NextToken(LogitsProcessor):
    """Turns logits into scores whose argmax is the next token; for one batch.

    Args:
        prompts: the ids of each row without padding. transformers' own repetition penalty also counts the padding,
            which here is the stop token: a padded row would then stop less often than the same row alone.
        generators: one for each row; none for greedy.
    """

    def __init__(
        self, options: GenerationSection, prompts: Sequence[Sequence[int]], generators: Sequence[torch.Generator]
    ) -> None:
        self.penalty = options.repetition_penalty
        self.prompts = prompts
        self.generators = generators
        self.warpers = _warpers(options) if generators else []
        self.seen_BV: torch.Tensor | None = None
        # Read once at the end: asking at every step would make the host wait for the device.
        self.is_nan: torch.Tensor | None = None

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        # The largest of a row with NaN is NaN, and found in a tenth of the time that asking every logit takes. Metal's
        # kernels promise no such thing.
        is_nan = (scores if scores.device.type == "mps" else scores.amax(-1)).isnan().any()
        self.is_nan = is_nan if self.is_nan is None else self.is_nan | is_nan
        if self.penalty != 1.0:
            scores = self._penalised(input_ids, scores)
        for warper in self.warpers:
            scores = warper(input_ids, scores)
        return scores + self._noise(scores) if self.generators else scores

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with these rows of the batch alone."""
        self.prompts = [self.prompts[row] for row in rows]
        self.generators = [self.generators[row] for row in rows] if self.generators else []
        if self.seen_BV is not None:
            self.seen_BV = self.seen_BV[list(rows)]

    def _penalised(self, input_ids_BT: torch.Tensor, scores_BV: torch.Tensor) -> torch.Tensor:
        if self.seen_BV is None:
            self.seen_BV = torch.zeros_like(scores_BV, dtype=torch.bool)
            for row_V, ids in zip(self.seen_BV, self.prompts, strict=True):
                row_V[list(ids)] = True
        else:
            self.seen_BV.scatter_(1, input_ids_BT[:, -1:], True)
        penalised_BV = torch.where(scores_BV < 0, scores_BV * self.penalty, scores_BV / self.penalty)
        return torch.where(self.seen_BV, penalised_BV, scores_BV)

    def _noise(self, scores_BV: torch.Tensor) -> torch.Tensor:
        # In 64 bits: a float has 2^-24 for its least draw, and one of 50,257 would come out as exactly 0 every
        # 330 steps and win whatever its logit. A draw of 0 is noise of -inf here, which never wins.
        vocabulary = scores_BV.shape[-1]
        uniform_BV = torch.stack([torch.rand(vocabulary, dtype=torch.float64, generator=g) for g in self.generators])
        return (-(-uniform_BV.log()).log()).to(device=scores_BV.device, dtype=scores_BV.dtype)


def _warpers(options: GenerationSection) -> list[LogitsProcessor]:
    warpers: list[LogitsProcessor] = []
    if options.temperature != 1.0:
        warpers.append(TemperatureLogitsWarper(float(options.temperature)))
    if options.top_k:
        warpers.append(TopKLogitsWarper(options.top_k))
    if options.top_p < 1.0:
        warpers.append(TopPLogitsWarper(options.top_p))
    return warpers
