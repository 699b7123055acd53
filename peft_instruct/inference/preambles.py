"""The beginnings that prompts share, computed once: a template's own words stand before every instruction.

In the cache of a batch they stand first, and what a row lacks is hidden by the attention mask, which positions follow:

    [padding, preamble] [padding, the row's own tokens] [new tokens]
"""

# B rows of a batch, H heads of keys and values, P tokens of the longest preamble, D width of a head

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from transformers import DynamicCache, PreTrainedConfig

from peft_instruct.inference.batches import token_bytes
from peft_instruct.inference.prompts import FittedPrompt
from peft_instruct.model.adapters import has_adapter
from peft_instruct.model.cache_name import as_cache
from peft_instruct.model.families import FAMILIES, sees_all
from peft_instruct.model.joined_rows import num_in_common

SHORTEST_PREAMBLE = 16
"""Prompts that agree in fewer tokens share nothing."""
MOST_PREAMBLE_BYTES = 256 << 20
"""Of the keys and values of all preambles of a call, kept to its end: 3,640 tokens of GPT-2 124M in fp32."""
# Its local layers count their window in places of the cache, padding included.
_BY_PLACE = "gpt_neo"


def with_shared(fitted: Sequence[FittedPrompt], config: PreTrainedConfig) -> list[FittedPrompt]:
    """The prompts with the number of tokens that each has in common with all others of its beginning.

    Each keeps a token of its own at least. Models that look back a limited number of places share nothing: padding
    stands between preamble and prompt. Of many beginnings those that save the most tokens are shared, as many as
    MOST_PREAMBLE_BYTES hold.
    """
    found = list(fitted)
    if not _can_share(config):
        return found
    groups: dict[tuple[int, ...], list[int]] = {}
    for index, prompt in enumerate(fitted):
        groups.setdefault(prompt.ids[:SHORTEST_PREAMBLE], []).append(index)
    together = [group for group in groups.values() if len(group) > 1]
    sharing = [(_num_in_common([fitted[index].ids for index in group]), group) for group in together]
    room = MOST_PREAMBLE_BYTES // token_bytes(config)
    for shared, group in sorted(sharing, key=lambda each: each[0] * (len(each[1]) - 1), reverse=True):
        if SHORTEST_PREAMBLE <= shared <= room:
            room -= shared
            for index in group:
                found[index] = replace(fitted[index], num_shared=shared)
    return found


def _num_in_common(rows: Sequence[tuple[int, ...]]) -> int:
    return min(num_in_common(rows), min(map(len, rows)) - 1)


def _can_share(config: PreTrainedConfig) -> bool:
    kind = config.get_text_config().model_type
    return sees_all(config) and kind in FAMILIES and kind != _BY_PLACE


class Preambles:
    """Keys and values of the preambles of one model, each computed when a batch first asks for it."""

    def __init__(self, model: Any, device: torch.device) -> None:
        # accelerate puts autocast around the outermost model alone, and `generate` calls the one within: their keys are
        # to be of one type (accelerate 1.15, prepare_model; peft 0.21, peft_model.py).
        self.model = model.get_base_model() if has_adapter(model) else model
        self.device = device
        self._known: dict[tuple[int, ...], DynamicCache] = {}

    def put_into(self, cache: DynamicCache, batch: Sequence[FittedPrompt]) -> None:
        """The preambles of a batch into its empty cache; nothing where no row has one."""
        beginnings = [prompt.ids[: prompt.num_shared] for prompt in batch]
        P = max(map(len, beginnings))
        for number in range(len(cache.layers) if P else 0):
            kept = {ids: self._of(ids).layers[number] for ids in set(beginnings) if ids}
            (H, D) = next(iter(kept.values())).keys.shape[1::2]
            keys_BHPD, values_BHPD = next(iter(kept.values())).keys.new_zeros(2, len(batch), H, P, D)
            for row, ids in enumerate(beginnings):
                if ids:
                    keys_BHPD[row, :, P - len(ids) :] = kept[ids].keys[0]
                    values_BHPD[row, :, P - len(ids) :] = kept[ids].values[0]
            cache.update(keys_BHPD, values_BHPD, number)

    def _of(self, ids: tuple[int, ...]) -> DynamicCache:
        if ids not in self._known:
            self._known[ids] = DynamicCache(config=self.model.config)
            self.model(
                input_ids=torch.tensor([ids], device=self.device),
                **as_cache(self._known[ids]),
                use_cache=True,
                logits_to_keep=1,
            )
        return self._known[ids]


def laid_out(batch: Sequence[FittedPrompt], pad: int) -> tuple[list[list[int]], list[list[int]]]:
    """The ids of a batch as its cache has them, and the attention mask: each part padded on its left."""
    widths = max(prompt.num_shared for prompt in batch), max(len(prompt.ids) - prompt.num_shared for prompt in batch)
    ids: list[list[int]] = []
    mask: list[list[int]] = []
    for prompt in batch:
        parts = prompt.ids[: prompt.num_shared], prompt.ids[prompt.num_shared :]
        gaps = [width - len(part) for width, part in zip(widths, parts, strict=True)]
        ids.append([*[pad] * gaps[0], *parts[0], *[pad] * gaps[1], *parts[1]])
        mask.append([*[0] * gaps[0], *[1] * len(parts[0]), *[0] * gaps[1], *[1] * len(parts[1])])
    return ids, mask
