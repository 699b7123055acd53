"""Text of data and models, made safe to look at: in a terminal, a table or a page it acts on nothing."""

from __future__ import annotations

import textwrap
import unicodedata

BIDI_CONTROLS = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""Characters that turn the reading direction (Unicode 16, UAX #9, 2.1 to 2.5): shown text can differ from the text."""

_CONTROL_CATEGORIES = frozenset({"Cc", "Cs", "Zl", "Zp"})


def safe_text(text: str, keep: str = "\n\t") -> str:
    r"""The text with control characters as `\x1b` and direction controls as `\u202e`; everything else as it is.

    Args:
        keep: control characters that stay; `""` gives one line.

    Returns:
        text that encodes as UTF-8 (lone surrogates are made visible too).
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(c if c in keep or not _acts(c) else _visible(c) for c in text)


def one_line(text: str, width: int) -> str:
    """The lines of a text beside one another, cut to a width; control characters stay as they are."""
    line = " | ".join(part.strip() for part in text.splitlines() if part.strip())
    return line if len(line) <= width else line[: width - 1] + "…"


def in_short(text: str, width: int = 100) -> str:
    """The words of a text, safe to look at, as many as a width takes."""
    return textwrap.shorten(safe_text(text), width, placeholder=" …") or "(nothing)"


def _acts(character: str) -> bool:
    return character in BIDI_CONTROLS or unicodedata.category(character) in _CONTROL_CATEGORIES


def _visible(character: str) -> str:
    named = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}.get(character)
    code = ord(character)
    return named or (f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}")
