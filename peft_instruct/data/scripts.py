"""Which script a text is written in."""

from __future__ import annotations

import unicodedata
from collections import Counter
from functools import lru_cache

_FAMILIES = {"CJK": "HAN", "HIRAGANA": "JAPANESE", "KATAKANA": "JAPANESE", "IDEOGRAPHIC": "HAN"}


def count_scripts(text: str) -> Counter[str]:
    """Letters by script, named in lower case as Unicode's character names begin (`latin`, `cyrillic`, `han`)."""
    if text.isascii():
        letters = sum(map(str.isalpha, text))
        return Counter(latin=letters) if letters else Counter()
    counts: Counter[str] = Counter()
    for character, count in Counter(text).items():
        script = _script(character)
        if script:
            counts[script] += count
    return counts


def main_script(text: str, least_letters: int = 10, least_share: float = 0.9) -> str:
    """The script of nearly all letters; empty where there are few letters, or several scripts."""
    counts = count_scripts(text)
    # Japanese is written in Han characters as well.
    if counts["japanese"]:
        counts["japanese"] += counts.pop("han", 0)
    script, count = max(counts.items(), key=lambda item: item[1], default=("", 0))
    return script if count >= least_letters and count >= least_share * counts.total() else ""


@lru_cache(maxsize=65536)
def _script(character: str) -> str:
    if not character.isalpha():
        return ""
    name = unicodedata.name(character, "").split(" ")[0].split("-")[0]
    return _FAMILIES.get(name, name).lower()
