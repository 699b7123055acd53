"""`data check --fix`: a cleaned copy of the rows, and every change that was made."""

from __future__ import annotations

import copy
import html
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from peft_instruct.data.checks.across import check_across
from peft_instruct.data.checks.catalogue import Finding
from peft_instruct.data.checks.check import CheckedFile
from peft_instruct.data.checks.parts import RowParts, parts_of
from peft_instruct.data.checks.patterns import (
    ASCII_PATTERNS,
    BIDI,
    HIDDEN,
    LEADING,
    MOJIBAKE,
    UNUSUAL_SPACE,
    ZERO_WIDTH,
)
from peft_instruct.data.checks.rows import check_row
from peft_instruct.data.formats import ACCEPTED
from peft_instruct.data.personal import mask
from peft_instruct.data.types import Row

MOST_ROUNDS = 4
"""Cleaning can bring out something new (mended mojibake may be a hard space); real rows settle in two rounds."""

_EXPRESSIONS = {pattern.code: pattern.expression for pattern in ASCII_PATTERNS}
_ENTITY = re.compile(r"&(?:[a-z][a-z0-9]{1,31}|#[0-9]{1,7}|#x[0-9a-f]{1,6});", re.IGNORECASE)
"""With its semicolon: `&copy=2` is part of an address."""
_DAMAGED_RUN = re.compile(f"(?:{MOJIBAKE.pattern}|{LEADING})+")
_ESCAPE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\^_=>])?")


@dataclass(frozen=True)
class Change:
    """What was done to one row; `before` and `after` are a part's text, or empty where the row was left out."""

    origin: str
    action: str
    codes: tuple[str, ...]
    part: str = ""
    before: str = ""
    after: str = ""


@dataclass(frozen=True)
class Cleaned:
    rows: tuple[dict[str, Any], ...]
    changes: tuple[Change, ...]


def clean_file(file: CheckedFile, findings: Iterable[Finding], ignore: Sequence[str] = ()) -> Cleaned:
    """The rows that can be kept, cleaned, in their order; nothing of the file itself is touched.

    Args:
        ignore: codes that are left as they are.
    """
    dropping: dict[str, list[str]] = {}
    for finding in findings:
        if finding.kind.remedy == "drop":
            dropping.setdefault(finding.origin, []).append(finding.code)
    changes = [Change(finding.origin, "left out", (finding.code,)) for finding in file.broken]
    kept: list[Row] = []
    for row in file.rows:
        if row.origin in dropping:
            changes.append(Change(row.origin, "left out", tuple(dict.fromkeys(dropping[row.origin]))))
        else:
            clean, made = _clean_row(row, file, ignore)
            again = check_row(parts_of(clean, file.form)) if made else ()
            left = dict.fromkeys(f.code for f in again if f.kind.remedy == "drop" and f.code not in ignore)
            if left:
                # Its damage was all that stood there.
                changes.append(Change(row.origin, "left out", tuple(left)))
                continue
            kept.append(clean)
            changes += made
    # What differed in its damage alone is a duplicate only now.
    doubles = {
        f.origin: f.code
        for f in check_across([parts_of(row, file.form) for row in kept])
        if f.code == "duplicate" and f.code not in ignore
    }
    changes += [Change(origin, "left out", (code,)) for origin, code in doubles.items()]
    return Cleaned(tuple(row.values for row in kept if row.origin not in doubles), tuple(changes))


def _clean_row(row: Row, file: CheckedFile, ignore: Sequence[str]) -> tuple[Row, list[Change]]:
    values = copy.deepcopy(row.values)
    before = parts_of(row, file.form)
    codes: dict[str, list[str]] = {}
    for _ in range(MOST_ROUNDS):
        parts = parts_of(Row(values, row.origin), file.form)
        wanted = _cleanable(parts, ignore)
        if not wanted:
            break
        for part in parts.parts:
            for code in wanted.get(part.place, ()):
                codes.setdefault(part.place, []).append(code)
            _put(values, part.path, clean_text(part.text, wanted.get(part.place, ())))
    after = {part.place: part.text for part in parts_of(Row(values, row.origin), file.form).parts}
    changes = [
        # What is masked in the copy is masked in the log of it.
        Change(
            row.origin,
            "cleaned",
            tuple(dict.fromkeys(codes[part.place])),
            part.place,
            mask(part.text)[0] if not MASKED.isdisjoint(codes[part.place]) else part.text,
            after[part.place],
        )
        for part in before.parts
        if part.place in codes and after[part.place] != part.text
    ]
    of_answers = {code for part in before.parts if part.side == "answer" for code in codes.get(part.place, ())}
    return Row(values, row.origin), [*changes, *_clean_accepted(values, row.origin, of_answers, ignore)]


def _clean_accepted(
    values: dict[str, Any], origin: str, of_answers: set[str], ignore: Sequence[str]
) -> Iterator[Change]:
    """What else counts as right is cleaned as the answer is, so that it still is what the model is to say."""
    accepted = values.get(ACCEPTED)
    for place, text in enumerate(accepted if isinstance(accepted, list) else ()):
        if not isinstance(text, str):
            continue
        kinds = {"secret" if kind == "secret" else "personal-data" for kind in mask(text)[1]}
        codes = of_answers | (kinds - set(ignore))
        cleaned = clean_text(text, codes)
        if cleaned != text:
            values[ACCEPTED][place] = cleaned
            before = mask(text)[0] if not MASKED.isdisjoint(codes) else text
            yield Change(origin, "cleaned", tuple(sorted(codes)), f"{ACCEPTED}[{place}]", before, cleaned)


def _cleanable(parts: RowParts, ignore: Sequence[str]) -> dict[str, list[str]]:
    wanted: dict[str, list[str]] = {}
    for finding in check_row(parts):
        if finding.kind.remedy == "clean" and finding.code not in ignore:
            wanted.setdefault(finding.part, []).append(finding.code)
    return wanted


def _put(values: Any, path: tuple[str | int, ...], text: str) -> None:
    for step in path[:-1]:
        values = values[step]
    values[path[-1]] = text


def clean_text(text: str, codes: Iterable[str]) -> str:
    """The text without what the codes name; encodings first, since they bring out the rest."""
    wanted = set(codes)
    for code, clean in CLEANERS.items():
        if code in wanted:
            text = clean(text)
    return text


def _remove(code: str) -> Callable[[str], str]:
    return lambda text: _EXPRESSIONS[code].sub("", text)


def _mend_mojibake(text: str) -> str:
    """Each damaged run, read again as the UTF-8 it was; what is none stays."""

    def mended(found: re.Match[str]) -> str:
        raw = b"".join(_as_byte(character) for character in found[0])
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError:
            return found[0]

    return _DAMAGED_RUN.sub(mended, text)


def _as_byte(character: str) -> bytes:
    try:
        return character.encode("cp1252")
    except UnicodeEncodeError:
        return character.encode("latin-1", errors="replace")


MASKED = frozenset({"secret", "personal-data"})
CLEANERS: dict[str, Callable[[str], str]] = {
    "mojibake": _mend_mojibake,
    "html-entity": lambda text: _ENTITY.sub(lambda found: html.unescape(found[0]), text),
    "terminal-escape": lambda text: _ESCAPE.sub("", text),
    "control-character": _remove("control-character"),
    "bidi-control": lambda text: BIDI.sub("", text),
    "zero-width": lambda text: ZERO_WIDTH.sub("", text),
    "hidden-text": lambda text: HIDDEN.sub("", text),
    "special-token": _remove("special-token"),
    "literal-escape": lambda text: _EXPRESSIONS["literal-escape"].sub(
        lambda found: found[0].replace(r"\n", "\n"), text
    ),
    "mixed-newlines": lambda text: text.replace("\r\n", "\n").replace("\r", "\n"),
    "blank-run": lambda text: _EXPRESSIONS["blank-run"].sub("\n\n", text),
    "unusual-space": lambda text: UNUSUAL_SPACE.sub(" ", text),
    "decomposed": lambda text: unicodedata.normalize("NFC", text),
    "secret": lambda text: mask(text)[0],
    "personal-data": lambda text: mask(text)[0],
    "placeholder-input": lambda text: "",
    "edge-space": str.strip,
}
"""How each kind is cleaned, in the order of use."""
