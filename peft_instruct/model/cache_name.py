"""The name by which a model takes the keys and values of tokens that it has seen.

transformers 5.24 calls them `cache` and warns at the old name; it drops the old one in 5.40.
"""

from __future__ import annotations

import inspect
from typing import Any

from transformers import Cache, GPT2Model

_NAME = "cache" if "cache" in inspect.signature(GPT2Model.forward).parameters else "past_key_values"


def as_cache(cache: Cache) -> dict[str, Any]:
    """The argument of a model's forward or `generate`."""
    return {_NAME: cache}
