"""A strict reader of JSON and JSON Lines that knows the line of each record.

`datasets` turns strings that look like dates into datetimes and says `DatasetGenerationError` for a trailing
comma (datasets 5.2); the standard library's scanner is exact, but tells no record's place. This is the
standard library's scanner, one record at a time.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from json import encoder
from typing import Any

from peft_instruct.data.types import Row, Span

json_text = encoder.encode_basestring
"""A text as `json.dumps(text, ensure_ascii=False)` writes it, which makes an encoder for every call."""
_SPACE = re.compile(r"[ \t\r\n]*")


class BadRowError(Exception):
    """A place in the text where it stops being JSON: `line` is 1-based; `ends`: nothing behind it could be read."""

    def __init__(self, line: int, column: int, what: str, ends: bool = False) -> None:
        super().__init__(what)
        self.line, self.column, self.what, self.ends = line, column, what, ends


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {twice!r} stands twice in one record")
    return values


def _constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_constant)


def read_json_array(text: str, path: str) -> Iterator[Row | BadRowError]:
    """The records of `[{...}, {...}]` with the line where each begins; stops where no end of a record can be found."""
    lines = _LineCounter(text)
    position = _skip(text, 0)
    if text[position : position + 1] != "[":
        yield BadRowError(*lines.at(position), "expected a list of records, `[{...}, ...]`")
        return
    position = _skip(text, position + 1)
    closed = text[position : position + 1] == "]"
    number = 0
    while not closed:
        number += 1
        start = position
        try:
            value, position = _DECODER.raw_decode(text, start)
        except json.JSONDecodeError as error:
            yield BadRowError(*lines.at(error.pos), _told(text, error), ends=error.pos < len(text))
            return
        except RecursionError:
            yield BadRowError(*lines.at(start), "nested too deeply", ends=True)
            return
        except ValueError as error:  # our own: a reader that is less strict may know where the record ends
            end = _end_of_record(text, start)
            yield BadRowError(*lines.at(start), str(error), ends=end is None)
            if end is None:
                return
            position = end
        else:
            # Many data files are one long line: the row's number tells records of a line apart.
            yield Row(value, f"{path}:{lines.at(start)[0]} (row {number})")
        position = _skip(text, position)
        mark = text[position : position + 1]
        closed = mark == "]"
        if not closed:
            if mark != ",":
                what = (
                    "the list is not closed: the file ends here" if not mark else f"expected `,` or `]`, found {mark!r}"
                )
                yield BadRowError(*lines.at(position), what, ends=bool(mark))
                return
            position = _skip(text, position + 1)
            if text[position : position + 1] == "]":
                yield BadRowError(*lines.at(position), "a comma before `]`")
                return
    rest = _skip(text, position + 1)
    if rest != len(text):
        yield BadRowError(*lines.at(rest), "text after the end of the list")


def read_json_lines(text: str, path: str) -> Iterator[Row | BadRowError]:
    """One record a line; blank lines are passed over, broken lines are told and reading goes on."""
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                value = _DECODER.decode(line)
            except json.JSONDecodeError as error:
                yield BadRowError(number, error.pos + 1, _told(line, error))
            except (ValueError, RecursionError) as error:
                yield BadRowError(number, 1, str(error) or "nested too deeply")
            else:
                yield Row(value, f"{path}:{number}")


def _end_of_record(text: str, start: int) -> int | None:
    try:
        return json.JSONDecoder().raw_decode(text, start)[1]
    except (ValueError, RecursionError):
        return None


class _LineCounter:
    """1-based line and column of ascending positions, counted once over the text."""

    def __init__(self, text: str) -> None:
        self.text, self.line, self.position, self.line_start = text, 1, 0, 0

    def at(self, position: int) -> tuple[int, int]:
        newlines = self.text.count("\n", self.position, position)
        if newlines:
            self.line += newlines
            self.line_start = self.text.rfind("\n", self.position, position) + 1
        self.position = max(self.position, position)
        return self.line, position - self.line_start + 1


def _skip(text: str, position: int) -> int:
    found = _SPACE.match(text, position)
    return found.end() if found else position


def _told(text: str, error: json.JSONDecodeError) -> str:
    if error.pos >= len(text):
        return "the record is not closed: the text ends here"
    return error.msg[0].lower() + error.msg[1:]


def json_span(span: Span) -> str:
    return f"[{json_text(span.kind)}, {json_text(span.text)}]"
