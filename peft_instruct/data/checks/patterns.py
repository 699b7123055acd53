"""Problems that show in the text of one part: a pattern each, with the few words that must be there at all."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

Side = Literal["ask", "answer", "any"]
_I = re.IGNORECASE

ABOUT_CODE = re.compile(
    r"html|\btags?\b|mark-?up|xml|svg|web ?(?:site|page)|\bcss\b|java|react|jsx|\bcod(?:e|ing)\b|program|angular"
    r"|\bphp\b|script|function|regex|sql|python|query|array|string|printf?\(|cout|def |class |var |const |</|/>|;\s*\n",
    _I,
)
_ABOUT_MARKUP = re.compile(
    r"html|\btags?\b|mark-?up|xml|svg|web ?(?:site|page)|\bcss\b|java|react|jsx|\bcod(?:e|ing)\b|program|script", _I
)
_ABOUT_DIALOGUE = re.compile(r"conversation|dialog|chat|interview|screenplay|script|role|skit|transcript|log", _I)
_SLOT_NAMES = "instruction|input|output|question|answer|response|prompt|context|company|product|first_?name|last_?name"


@dataclass(frozen=True)
class Pattern:
    """A regular expression over a part of a row.

    Attributes:
        hints: lower-case texts of which one must be in the part before the expression is tried; empty: always.
        unless: what the row may be about for the finding to be meant so.
    """

    code: str
    side: Side
    expression: re.Pattern[str]
    hints: tuple[str, ...]
    unless: re.Pattern[str] | None = None


ASCII_PATTERNS = (
    Pattern("filler-text", "any", re.compile(r"lorem ipsum( dolor)?", _I), ("lorem ipsum",),
            re.compile("lorem ipsum.{0,40}(generat|text)|placeholder", _I)),
    Pattern("unfilled-slot", "any", re.compile(
        rf"\{{\{{?\s*(?:{_SLOT_NAMES})\s*\}}?\}}"
        r"|[\[<(](?:please )?(?:insert|fill in|enter|add) [\w '-]{2,40}[\])>]",
        _I), ("{", "insert ", "fill in ", "enter ", "add "), ABOUT_CODE),
    Pattern("missing-attachment", "any", re.compile(
        r"!\[[^\]\n]{0,200}\]\(|\[(?:image|photo|picture|attachment|screenshot|video|audio|figure)\b[^\]\n]{0,80}\]"
        r"|<(?:cropped |output |input |attached )?(?:image|photo|picture|attachment|video)\b[^>\n]{0,80}>"
        r"|\b(?:attached|enclosed) (?:image|file|photo|picture|document|pdf|spreadsheet)\b", _I),
        ("![", "image", "photo", "picture", "attach", "screenshot", "video", "audio", "figure", "enclosed"),
        re.compile(r"html|svg|e-?mail|letter|\bcode\b|markdown", _I)),
    Pattern("assistant-boilerplate", "any", re.compile(
        r"\bas an? (?:ai|artificial intelligence|virtual)\b(?:,|(?: language)? ?(?:model|assistant|chatbot)\b)"
        r"|\b(?:as|i am|i['’]m) (?:just )?an? (?:large )?language model\b|\bi(?:['’]m| am) (?:just )?an ai\b"
        r"|\bmy (?:knowledge|training)(?: data)? (?:cut-?off|only goes)"
        r"|\bi(?: was|['’]m| am) (?:created|trained|developed) by (?:openai|google|anthropic|meta|microsoft)\b", _I),
        (" ai", "artificial intelligence", "language model", "virtual", "my knowledge", "my training", "ed by ")),
    Pattern("refusal", "answer", re.compile(
        r"^\W*(?:(?:i['’]?m|i am)?\s*(?:so |very |really |truly )?(?:sorry|afraid)|i apologi[sz]e|unfortunately,? i)\b"
        r"[^.!?\n]{0,60}\b(?:can ?not|can['’]t|unable|not able|won['’]t)\b"
        r"|^\W*i (?:can ?not|can['’]t|am unable to|am not able to|won['’]t) (?:help|assist|provide|answer|comply)", _I),
        ("sorry", "apologi", "unfortunately", "afraid", "cannot", "can't", "can’t", "can not", "won't", "able "),
        re.compile(r"apolog|sorry|letter|e-?mail|dialog|conversation|story|sentence|reply|message|decline", _I)),
    Pattern("template-text", "any", re.compile(
        r"^#{2,3} ?(?:instruction|input|response|output|human|assistant)s?\s*:|below is an instruction that describes"
        r"|appropriately completes the request", _I | re.MULTILINE),
        ("##", "below is an instruction", "completes the request")),
    Pattern("role-marker", "answer", re.compile(
        r"(?:\A|\n)[ \t]*(?:user|human|assistant|ai|bot|chatbot|system)[ \t]*:", _I),
        ("user", "human", "assistant", "ai", "bot", "system"), _ABOUT_DIALOGUE),
    Pattern("merged-rows", "answer", re.compile(
        r"(?:\A|\n)[ \t]*(?:instruction|prompt|input)[ \t]*\d*[ \t]*:[ \t]*\S", _I),
            ("instruction", "prompt", "input"), ABOUT_CODE),
    Pattern("merged-rows", "ask", re.compile(r"\n[ \t]*(?:output|response|completion)[ \t]*:[ \t]*\S", _I),
            ("output", "response", "completion"), re.compile("example|format|code|template|correct|evaluate|rate", _I)),
    Pattern("special-token", "any", re.compile(
        r"<\|[a-z0-9_ ]{2,40}\|>|</?s>|\[/?INST\]|<</?SYS>>|<(?:unk|pad|bos|eos|sep|cls|(?:start|end)_of_turn)>"
        r"|\[(?:PAD|CLS|SEP|UNK|BOS|EOS)\]"),
        ("<|", "s>", "inst]", "sys>>", "<unk", "<pad", "<bos", "<eos", "<sep", "<cls", "_of_turn", "[pad",
         "[cls", "[sep", "[unk", "[bos", "[eos"), re.compile("html|strike", _I)),
    Pattern("html-tag", "any", re.compile(
        r"</?(?:br|p|div|span|b|i|u|em|strong|ul|ol|li|a|h[1-6]|table|tr|td|font|img|blockquote|hr|sub|sup)"
        r"(?:\s[^<>]{0,300})?/?>", _I), ("<",), _ABOUT_MARKUP),
    Pattern("html-entity", "any", re.compile(
        r"&(?:amp|lt|gt|quot|apos|nbsp|[nm]dash|hellip|[lr][sd]quo|#\d{2,5}|#x[0-9a-f]{2,5});", _I),
        ("&",), _ABOUT_MARKUP),
    Pattern("literal-escape", "any", re.compile(r"\\n(?:\\n)*(?=[A-Z0-9*•-])"), ("\\n",), ABOUT_CODE),
    Pattern("control-character", "any", re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1a\x1c-\x1f\x7f-\x9f]"), ()),
    Pattern("terminal-escape", "any", re.compile(r"\x1b.{0,12}"), ("\x1b",)),
    Pattern("mixed-newlines", "any", re.compile(r"\r"), ("\r",)),
    Pattern("blank-run", "any", re.compile(r"\n(?:[ \t]*\n){3,}"), ("\n",)),
)  # fmt: skip
"""Tried on every text."""

_CP1252 = (
    "\u0152\u0153\u0160\u0161\u0178\u017d\u017e\u0192\u02c6\u02dc\u2013\u2014\u2018-\u201e\u2020-\u2022\u2026\u2030\u2039"
    "\u203a\u20ac\u2122"
)
DAMAGED = f"[\u0080-\u00bf{_CP1252}]"
"""What a continuation byte of UTF-8 (0x80 to 0xBF) is in Latin-1 and in Windows-1252."""
LEADING = f"(?:[\u00c4\u00c5\u00ce-\u00d1]{DAMAGED}|[\u00e4-\u00e9]{DAMAGED}{{2}})"
"""Letters of Latin Extended, Greek, Cyrillic and Han: what they begin with is a letter too, so one is no evidence."""
MOJIBAKE = re.compile(
    f"[\u00c2-\u00c3]{DAMAGED}|{LEADING}(?={LEADING})|[\u00e2\u00e3]{DAMAGED}{{2}}|\u00f0{DAMAGED}{{3}}"
)
BIDI = re.compile("[\u202a-\u202e\u2066-\u2069]")
ZERO_WIDTH = re.compile("[\u200b\u2060\ufeff\u00ad]")
HIDDEN = re.compile("[\U000e0000-\U000e007f]+")
UNUSUAL_SPACE = re.compile("(?<![«\\d])[\u00a0\u2000-\u200a\u202f\u205f](?![:;!?»%€\\d])")

UNICODE_PATTERNS = (
    Pattern("mojibake", "any", MOJIBAKE, ()),
    Pattern("replacement-character", "any", re.compile("\ufffd"), ("\ufffd",)),
    Pattern("bidi-control", "any", BIDI, ()),
    Pattern("zero-width", "any", ZERO_WIDTH, ()),
    # Flags of England, Scotland and Wales are a black flag and tag characters.
    Pattern("hidden-text", "any", HIDDEN, (), re.compile("\U0001f3f4")),
    Pattern("private-use", "any", re.compile("[\ue000-\uf8ff\U000f0000-\U0010fffd]"), ()),
    Pattern("mixed-script-word", "any", re.compile("(?:[A-Za-z][\u0400-\u04ff]|[\u0400-\u04ff][A-Za-z])\\w*"), ()),
    Pattern("unusual-space", "any", UNUSUAL_SPACE, ()),
)  # fmt: skip
"""Tried on texts that are not ASCII."""


def findings_in(text: str, side: str, asked: str, row_text: str) -> Iterator[tuple[str, str]]:
    """Code and matched text of every pattern that the part shows.

    Args:
        side: `ask`, `answer`, or `text` for a row that is neither (all patterns of both sides apply but the answer's).
        asked, row_text: what is asked, and all parts together, to see what the row is about.
    """
    lower = text.lower()
    patterns = ASCII_PATTERNS if text.isascii() else ASCII_PATTERNS + UNICODE_PATTERNS
    for pattern in patterns:
        if pattern.side not in ("any", side) or (pattern.hints and not any(hint in lower for hint in pattern.hints)):
            continue
        found = pattern.expression.search(text)
        # An answer's own words are no excuse for it.
        about = asked if pattern.side == "answer" else row_text
        if found and not (pattern.unless and pattern.unless.search(about)):
            yield pattern.code, _shown(found[0])


def _shown(found: str) -> str:
    """What was found; a character that cannot be seen by its name."""
    if found.strip() and found.isprintable() and len(found) > 1:
        return found[:80]
    if len(found) > 1 and found.isspace():
        return repr(found[:20])
    return f"U+{ord(found[0]):04X} {unicodedata.name(found[0], 'control character')}"
