"""Texts cut into words by the columns of arrow: each different word once, and where it stands."""

# B bytes of all texts, R texts, W words of all of them, D different ones

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

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
        import pyarrow as arrow

        # Half of a surrogate pair passes: to refuse it is for who reads the rows, or for the tokenizer.
        encoded = [text.encode("utf-8", "surrogatepass") for text in texts]
        content = b"".join(encoded)
        bounds = np.append(0, np.cumsum(list(map(len, encoded)), dtype=np.int64))
        if cut:
            starts, ends = _cut(np.frombuffer(content, np.uint8), bounds)
        else:
            starts, ends = bounds[:-1], np.arange(len(texts) + 1)
        buffers = [None, arrow.py_buffer(np.append(starts, len(content))), arrow.py_buffer(content)]
        found = arrow.Array.from_buffers(arrow.large_binary(), len(starts), buffers).dictionary_encode()
        return cls(found.dictionary.to_pylist(), found.indices.to_numpy(), ends)


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
