"""Problems of one row: what its texts show, and how they fit together."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

from peft_instruct.data.checks.catalogue import Finding
from peft_instruct.data.checks.parts import Part, RowParts
from peft_instruct.data.checks.patterns import ABOUT_CODE, findings_in
from peft_instruct.data.personal import mask
from peft_instruct.data.scripts import main_script

LEAST_REPEATED = 25
"""Characters of an instruction that an answer may not repeat."""

_NOTHING = frozenset((
    "n/a", "#n/a", "n.a", "nooutput", "no output", "noinput", "no input", "not applicable", "not available", "null",
    "nan", "undefined", "tbd", "to do", "todo", "to be determined", "placeholder", "no answer", "no response",
    "insert answer here", "your answer here", "answer goes here", "no output needed", "no output required",
    "none provided", "fixme", "xxx", "asdf",
))  # fmt: skip
_NO_INPUT = _NOTHING | {"none", "na", "no input required", "no input needed", "no input provided", "no input necessary"}
_NOTHING_TAG = re.compile(r"<no ?(?:in|out)put\b[^>]{0,80}>", re.IGNORECASE)
_EDGES = " \t\r\n<>[](){}.\"'*_-–—"
_LINK = re.compile(r"\s*(?:\S{1,20}:\s*)?<?https?://\S+>?\s*", re.IGNORECASE)
_THINGS = (
    "text|sentences?|paragraph|passage|article|essay|poem|story|email|letter|review|code|list|table|words|document|tweet"
    "|dialogue|data|numbers"
)
_MISSING_INPUT = re.compile(
    rf"\b(?:following|given below|above|below|provided|supplied) (?:\w+ )?(?:{_THINGS})\b[^\n:?“\"'‘]{{0,40}}\Z"
    rf"|\b(?:the|given|this|these) (?:{_THINGS}) (?:below|provided|supplied)\b[^\n:?“\"'‘]{{0,40}}\Z",
    re.IGNORECASE,
)
_POINTS_AT = ("following", "below", "above", "provided", "supplied")
# Not the prepositions that end a sentence in English (struggling with, looking forward to).
_BROKEN_OFF = re.compile(
    r"(?:,|[a-z]{2,} -|\b(?:and|or|the|a|an|because|which|but|their|my|your)|\n\s*\d{1,2}[.)]|\n\s*[-*•])\Z"
)
_CLOSING = re.compile(
    r"(?:\A|\n)[^\n]{0,40}\b(?:dear|hi|hello|sincerely|regards|love|yours|best|cheers|thanks?|you|respectfully)\b"
    r"[^\n]{0,40},\Z",
    re.IGNORECASE,
)
_PROSE_CUT = re.compile(r"[a-z]{3,}[.!?] [A-Z][^.!?\n]{25,}[a-z ]{3,}[a-z]\Z")
_LIST_ITEM = re.compile(r"\s*(?:\d+[.)]|[-*•#])")
_FOREIGN = re.compile(
    r"transl|language|script|alphabet|translit|roman|kanji|hiragana|pinyin|emoji|symbol|chinese|japanese|korean|russian|"
    r"arabic|hindi|greek|hebrew|thai|ukrainian|bulgarian|persian|urdu|bengali|mandarin|cantonese|english|french|german|"
    r"spanish|перев|язык|翻译|翻訳|번역",
    re.IGNORECASE,
)
_MAY_STAY = re.compile(
    r"sort|order|arrange|alphabet|rank|smallest|largest|from a to z|organi[sz]e|sequence|correct|edit|fix|grammar"
    r"|proofread",
    re.IGNORECASE,
)
"""Tasks whose input can be right already."""
_ABOUT_SIGNS = re.compile("draw|dash|symbol|sign|punctuat|character|operator|emo(?:ji|ticon)|mark", re.IGNORECASE)
_SAME_CHARACTER = re.compile(r"([^\s\-=_*.#~+|/\\])\1{24,}")


def check_row(row: RowParts) -> Iterator[Finding]:
    """Every problem of the row alone; the ones of reading it first."""
    yield from row.findings
    if row.is_giant:
        longest = max(row.parts, key=lambda part: len(part.text))
        yield Finding("giant-row", row.origin, longest.place, f"{len(longest.text):,} characters")
        return
    asked, all_text = row.asked, row.all_text
    for part in row.parts:
        if part.text.strip():
            yield from _check_part(part, row, asked, all_text)
    if row.asked and row.answer:
        yield from _check_pair(row)


def _check_part(part: Part, row: RowParts, asked: str, all_text: str) -> Iterator[Finding]:
    def finding(code: str, detail: str) -> Finding:
        return Finding(code, row.origin, part.place, detail)

    text = part.text
    placeholder = _placeholder(part)
    if placeholder:
        tag = _NOTHING_TAG.search(text)
        yield finding(placeholder, (tag[0] if tag else text.strip())[:80])
    # These stand as they are: their own spaces, a template and its marks around what is asked, are theirs to choose.
    is_as_it_is = part.name in ("prompt", "completion", "text")
    for code, found in findings_in(text, part.side, asked, all_text):
        if not (code in ("template-text", "special-token") and is_as_it_is and part.side != "answer"):
            yield finding(code, found)
    if text != text.strip() and not is_as_it_is:
        yield finding("edge-space", repr(text[:10] if text[0].isspace() else text[-10:]))
    if not text.isascii() and not unicodedata.is_normalized("NFC", text):
        yield finding("decomposed", text[:40])
    for kind, count in mask(text)[1].items():
        yield finding("secret" if kind == "secret" else "personal-data", f"{kind} ({count})")
    if part.side != "ask" and (repeated := _repeated(text)):
        yield finding("repetition", repeated)


def _placeholder(part: Part) -> str:
    plain = part.text.strip(_EDGES).lower()
    if part.name == "input":
        return "placeholder-input" if plain in _NO_INPUT or (not plain and not _says_something(part.text)) else ""
    if part.side == "answer" and (plain in _NOTHING or _NOTHING_TAG.search(part.text)):
        return "placeholder-answer"
    return "placeholder-prompt" if part.side == "ask" and plain in _NOTHING else ""


def _says_something(text: str) -> bool:
    """Whether a letter, a digit or a picture is in it."""
    return any(c.isalnum() or unicodedata.category(c) in ("So", "Sm", "Sc") for c in text)


def _repeated(text: str) -> str:
    """Words that come again and again, or one character; empty where nothing does."""
    same = _SAME_CHARACTER.search(text)
    if same:
        return same[0][:40]
    words = text.split()
    if len(words) < 12 or len(set(words)) > 0.4 * len(words):
        return ""
    for period in range(1, 13):
        run = 0
        for at in range(period, len(words)):
            run = run + 1 if words[at] == words[at - period] else 0
            # Four times the same, and twelve words at least.
            if run >= max(3 * period, 11):
                return " ".join(words[at - period + 1 : at + 1])
    return ""


def _check_pair(row: RowParts) -> Iterator[Finding]:
    instruction, given, answer = row.of("instruction") or row.of("prompt"), row.of("input"), row.answer
    place = next(part.place for part in row.parts if part.side == "answer")
    if not _says_something(answer) and answer.strip() and not _ABOUT_SIGNS.search(row.asked):
        yield Finding("no-words", row.origin, place, answer[:40])
    plain = instruction.strip(" .?!:\n").lower()
    repeats = len(plain) >= LEAST_REPEATED and plain in answer.lower() and len(answer) > len(plain) + 10
    # A program begins with what it is to do.
    if repeats and not ABOUT_CODE.search(answer):
        yield Finding("prompt-in-answer", row.origin, place, instruction[:80])
    if len(given.strip()) >= 10 and given.strip() == answer.strip() and not _MAY_STAY.search(instruction):
        yield Finding("answer-copies-input", row.origin, place, answer[:80])
    if given and _LINK.fullmatch(given):
        yield Finding("unseen-link", row.origin, "input", given.strip()[:80])
    elif not given.strip() and (missing := _missing_input(instruction)):
        yield Finding("missing-input", row.origin, row.parts[0].place, missing)
    if answer.count("```") % 2:
        yield Finding("unclosed-code", row.origin, place, answer[answer.rfind("```") :][:40])
    elif _is_cut(answer):
        yield Finding("truncated-answer", row.origin, place, f"… {answer.rstrip()[-60:]}")
    asks_in, answers_in = main_script(row.asked), main_script(answer)
    if asks_in and answers_in and asks_in != answers_in and not _FOREIGN.search(row.asked):
        yield Finding("other-script", row.origin, place, f"{asks_in} asked, {answers_in} answered")


def _missing_input(instruction: str) -> str:
    """The words that speak of a text which is not there; the hints are a hundred times faster than the expression."""
    if ":" in instruction or not any(word in instruction.lower() for word in _POINTS_AT):
        return ""
    found = _MISSING_INPUT.search(instruction.rstrip())
    return found[0][:80] if found else ""


def _is_cut(answer: str) -> bool:
    text = answer.rstrip()
    if len(text) < 40 or (text.endswith(",") and _CLOSING.search(text[-100:])):
        return False
    if _BROKEN_OFF.search(text[-60:]):
        return True
    is_listed = _LIST_ITEM.match(text[text.rfind("\n") + 1 :])
    # The last character first: the expression is slow on what it does not match.
    return text[-1].islower() and len(text) > 120 and not is_listed and bool(_PROSE_CUT.search(text[-300:]))
