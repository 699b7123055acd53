"""Text of a model cannot act on the terminal, the page or the reading order that it is shown in."""

from __future__ import annotations

import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peft_instruct.report.safe_text import BIDI_CONTROLS, safe_text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[2J\x1b]0;owned\x07", r"\x1b[2J\x1b]0;owned\x07"),
        ("admin\u202egnp.exe", r"admin\u202egnp.exe"),
        ("a\u2066b\u2069\u200f", r"a\u2066b\u2069\u200f"),
        ("\x00\x7f\x9b31m", r"\x00\x7f\x9b31m"),
        ("line one\nline two\tend", "line one\nline two\tend"),
        ("over\rwritten", r"over\rwritten"),
        ("half a pair \ud83d", r"half a pair \ud83d"),
        ("two\u2028lines", r"two\u2028lines"),
        ("naïve café, 東京 🙂 👩‍🚀 नमस्ते", "naïve café, 東京 🙂 👩‍🚀 नमस्ते"),
    ],
)
def test_what_acts_is_made_visible_and_what_is_read_stays(text: str, shown: str) -> None:
    assert safe_text(text) == shown


def test_one_line_stays_one_line() -> None:
    assert safe_text("a\nb\tc\r\n", keep="") == r"a\nb\tc\r\n"


@given(st.text(alphabet=st.characters(), max_size=60))
def test_any_text_comes_out_inert_encodable_and_unchanged_the_second_time(text: str) -> None:
    shown = safe_text(text)
    assert not any(unicodedata.category(c) in ("Cc", "Cs") and c not in "\n\t" for c in shown)
    assert not BIDI_CONTROLS & set(shown)
    assert safe_text(shown) == shown
    shown.encode("utf-8")


def test_every_direction_control_of_unicode_is_known() -> None:
    """Unicode gives each of them a bidirectional class of its own, or LRM's, RLM's and ALM's names."""
    classes = {"LRE", "RLE", "PDF", "LRO", "RLO", "LRI", "RLI", "FSI", "PDI"}
    characters = map(chr, range(sys.maxunicode + 1))
    controls = {c for c in characters if unicodedata.bidirectional(c) in classes}
    marks = {unicodedata.lookup(f"{name} MARK") for name in ("LEFT-TO-RIGHT", "RIGHT-TO-LEFT", "ARABIC LETTER")}
    assert controls | marks == BIDI_CONTROLS
