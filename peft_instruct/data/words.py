"""Texts cut into words by the columns of arrow: each different word once, and where it stands."""

# B bytes of all texts, R texts, W words of all of them, D different ones

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

_AT_ONCE = 1024
_SPACES = b"\t\n\v\f\r "
_LARGER_SPACES = b"\xc2\xe1\xe2\xe3"
"""First bytes, in UTF-8, of the white space that is not ASCII."""
_IS_VISIBLE = ~np.isin(np.arange(256), list(_SPACES + _LARGER_SPACES))


@dataclass(frozen=True)
class Words:
    """The pieces of many texts; joined, those of a text are the text.

    Attributes:
        distinct: the different ones, in UTF-8, (D,).
        numbers: of all texts one behind the other, places in `distinct`, (W,) int32.
        ends: where each text's end, (R + 1,) from 0 on, int64.
    """

    distinct: list[bytes]
    numbers: np.ndarray
    ends: np.ndarray

    @classmethod
    def of(cls, texts: Sequence[str], *, cut: bool = True) -> Words:
        """The texts, cut before every space and newline that a visible character follows.

        There a word ends, whatever stands before. Where the next character is no ASCII and may be white space, nothing
        is cut: longer pieces do no harm.

        Args:
            cut: false takes each text as one word.
        """
        content, bounds = utf8(texts)
        if cut:
            starts, ends = _cut(np.frombuffer(content, np.uint8), bounds)
        else:
            starts, ends = bounds[:-1], np.arange(len(texts) + 1)
        found = different(content, np.append(starts, len(content)))
        return cls(found.dictionary.to_pylist(), found.indices.to_numpy(), ends)


def utf8(texts: Sequence[str]) -> tuple[bytes, np.ndarray]:
    """All texts one behind the other, and where each ends, from 0 on, (R + 1,) int64.

    Half of a surrogate pair passes: to refuse it is for who reads the rows, or for the tokenizer.
    """
    contents, lengths = [], [0]
    for start in range(0, len(texts), _AT_ONCE):
        some = texts[start : start + _AT_ONCE]
        text = "".join(some)
        content = text.encode("utf-8", "surrogatepass")
        if len(content) == len(text):  # all ASCII, as most are
            lengths += map(len, some)
        else:
            lengths += [len(each) if each.isascii() else len(each.encode("utf-8", "surrogatepass")) for each in some]
        contents.append(content)
    return b"".join(contents), np.cumsum(lengths, dtype=np.int64)


def different(content: bytes | np.ndarray, bounds: np.ndarray) -> Any:
    """Pieces of bytes, numbered by the first of those that are the same: an arrow dictionary.

    Args:
        bounds: where each piece ends, from 0 on, (W + 1,) int64.
    """
    import pyarrow as arrow

    buffers = [None, arrow.py_buffer(bounds), arrow.py_buffer(content)]
    return arrow.Array.from_buffers(arrow.large_binary(), len(bounds) - 1, buffers).dictionary_encode()


def texts_of(words: Iterable[bytes]) -> list[str]:
    """Words of a `Words` as text."""
    return [word.decode("utf-8", "surrogatepass") for word in words]


def _cut(content_B: np.ndarray, bounds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where in the bytes of all texts words begin, (W,), and at which word each text ends, from 0 on, (R + 1,)."""
    ends_word_B = (content_B == ord(" ")) | (content_B == ord("\n"))
    places = np.flatnonzero(ends_word_B[:-1])
    places = places[_IS_VISIBLE[content_B[places + 1]]]
    begins_B = np.zeros(len(content_B), np.bool_)
    begins_B[places] = True
    some = np.diff(bounds) > 0
    begins_B[bounds[1:][some] - 1] = False
    begins_B[bounds[:-1][some]] = True
    starts = np.flatnonzero(begins_B)
    return starts, np.searchsorted(starts, bounds)
