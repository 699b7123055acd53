"""Words as columns: nothing is lost, and they are cut where it is said."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from peft_instruct.data.words import Words, texts_of


def pieces(texts: Sequence[str], *, cut: bool = True) -> list[list[str]]:
    words = Words.of(texts, cut=cut)
    assert len(set(words.distinct)) == len(words.distinct)
    spelled = texts_of(words.distinct)
    each = [spelled[number] for number in words.numbers]
    return [each[start:end] for start, end in zip(words.ends, words.ends[1:], strict=False)]


@given(st.lists(st.text(alphabet="ab. \n\t\r\x1c\x85\xa0\u2003\u3000é漢🙂", max_size=9), max_size=5), st.booleans())
def test_joined_they_are_the_texts(texts: list[str], cut: bool) -> None:
    assert list(map("".join, pieces(texts, cut=cut))) == texts


def test_a_space_or_a_newline_goes_with_the_word_behind_it() -> None:
    assert pieces(["a b\nc", "", " a  b ", "é ü 漢", "a\tb"]) == [
        ["a", " b", "\nc"],
        [],
        [" a ", " b "],
        ["é", " ü", " 漢"],
        ["a\tb"],
    ]
    # In UTF-8 a curly quote begins as some white space does.
    assert pieces(["a “b c"]) == [["a “b", " c"]]
    assert pieces(["a b", ""], cut=False) == [["a b"], [""]]


def test_half_of_a_surrogate_pair_stays_what_it_is() -> None:
    assert pieces(["a \ud83d b"]) == [["a", " \ud83d", " b"]]
