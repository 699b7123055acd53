"""Every kind of problem that `data check` knows, in one table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Severity = Literal["error", "warning", "note"]
Remedy = Literal["drop", "clean", "look"]


@dataclass(frozen=True)
class Kind:
    """One kind of problem.

    Attributes:
        severity: `error`: the row cannot be used, or teaches what nobody wants; `warning`: most likely wrong, look
            at it; `note`: harmless by itself, but tokens are spent on it.
        fix: what to do about it.
        remedy: what `--fix` does: leave the row out, clean its text, or nothing, since only a person can tell.
    """

    code: str
    severity: Severity
    meaning: str
    fix: str
    remedy: Remedy = "look"


_DROP, _CLEAN = "left out by --fix", "cleaned by --fix"
_TABLE = (
    # What cannot be read.
    Kind("broken-record", "error", "not a record", "mend the line", "drop"),
    Kind("missing-column", "error", "a column of the format is missing", "add it, or name yours: data.columns", "drop"),
    Kind("not-text", "error", "a value is null, a number or a list", "quote it", "drop"),
    Kind("bad-conversation", "error", "not a list of messages with a text each", "mend it", "drop"),
    Kind("unusable-conversation", "error", "nothing can be learned of it: an unknown role, no answer", _DROP, "drop"),
    Kind("lone-surrogate", "error", "half of a surrogate pair, which is no character", "export the text anew", "drop"),
    Kind("giant-row", "error", "more than a million characters", "split it", "drop"),
    # Nothing there, or nothing said.
    Kind("empty-prompt", "error", "nothing is asked", _DROP, "drop"),
    Kind("empty-answer", "error", "nothing to learn", _DROP, "drop"),
    Kind("placeholder-prompt", "error", "a placeholder instead of a question", _DROP, "drop"),
    Kind("placeholder-answer", "error", "a placeholder (N/A, <nooutput>, TODO) instead of an answer", _DROP, "drop"),
    Kind("placeholder-input", "warning", "a placeholder (<noinput>, N/A) for no input", "emptied by --fix", "clean"),
    Kind("filler-text", "warning", "lorem ipsum", _DROP, "drop"),
    Kind("unfilled-slot", "warning", "a slot of a template that nobody filled in", "fill it in"),
    Kind("no-words", "warning", "an answer without a letter or digit", "look at the row"),
    Kind("missing-input", "warning", "the instruction speaks of a text that is not there", "add the input"),
    Kind("missing-attachment", "warning", "a picture or file that the model cannot see", "leave the row out"),
    Kind("unseen-link", "warning", "the input is only a link, which the model cannot open", "paste the text"),
    # Machine talk.
    Kind("assistant-boilerplate", "warning", "speaks as an AI language model", _DROP, "drop"),
    Kind("refusal", "warning", "the answer refuses", "leave the row out unless you want refusals"),
    Kind("template-text", "error", "words of a prompt template inside the row", _DROP, "drop"),
    Kind("role-marker", "warning", "the answer goes on with a next turn (User:, Assistant:)", "cut the answer there"),
    Kind("merged-rows", "warning", "another instruction or answer inside the row", "split the row"),
    Kind("prompt-in-answer", "warning", "the answer repeats the instruction", "cut it out"),
    Kind("answer-copies-input", "note", "the answer is the input, word for word", "look at the row"),
    Kind("special-token", "warning", "spells a special token (read as text, but it is learned)", _CLEAN, "clean"),
    # More than one row.
    Kind("duplicate", "warning", "the same prompt and answer stand earlier", _DROP, "drop"),
    Kind("near-duplicate", "warning", "almost the row of an earlier place", "keep one"),
    Kind("contradiction", "warning", "the same prompt has another answer earlier", "keep the right one"),
    Kind("repeated-answer", "warning", "one long answer to many prompts", "look whether it answers them"),
    Kind("constant-answer", "warning", "one answer to most prompts of the file", "balance the rows"),
    Kind("train-evaluation-overlap", "error", "the prompt is asked in the evaluation rows too", _DROP, "drop"),
    Kind("near-overlap", "warning", "almost a row of the evaluation rows", "leave it out of training"),
    # Damaged text.
    Kind("mojibake", "warning", "UTF-8 read as Latin-1 or Windows-1252", _CLEAN, "clean"),
    Kind("replacement-character", "warning", "U+FFFD: a character was lost on the way", "export the text anew"),
    Kind("control-character", "warning", "a control character, NUL included", _CLEAN, "clean"),
    Kind("terminal-escape", "warning", "an escape sequence of a terminal", _CLEAN, "clean"),
    Kind("bidi-control", "warning", "a character that turns the reading direction", _CLEAN, "clean"),
    Kind("zero-width", "warning", "an invisible character inside words", _CLEAN, "clean"),
    Kind("hidden-text", "error", "text in invisible tag characters", _CLEAN, "clean"),
    Kind("private-use", "warning", "a character without a meaning (private use)", "replace it"),
    Kind("mixed-script-word", "warning", "Latin and Cyrillic letters in one word", "retype the word"),
    Kind("other-script", "warning", "the answer is in another script than the prompt", "look at the row"),
    Kind("decomposed", "note", "letters and accents apart (not NFC): other tokens than usual", _CLEAN, "clean"),
    Kind("html-tag", "warning", "a tag of HTML in a row that is not about it", "take the text out of the page"),
    Kind("html-entity", "warning", "an entity of HTML (&amp;) in a row that is not about it", _CLEAN, "clean"),
    Kind("literal-escape", "warning", "a backslash and an n where a line should end", _CLEAN, "clean"),
    Kind("mixed-newlines", "note", "carriage returns", _CLEAN, "clean"),
    Kind("blank-run", "note", "three or more blank lines in a row", _CLEAN, "clean"),
    Kind("unusual-space", "note", "a space of another kind: other tokens than usual", _CLEAN, "clean"),
    Kind("edge-space", "note", "white space at an end of the text", _CLEAN, "clean"),
    # Unfinished or too long.
    Kind("truncated-answer", "warning", "the answer stops in the middle", "complete it, or leave the row out"),
    Kind("unclosed-code", "warning", "a code fence that is not closed", "close it"),
    Kind("repetition", "warning", "the same words over and over", "leave the row out"),
    Kind("overlong", "warning", "more tokens than data.max_length", "raise max_length, or split the row"),
    # What should not leave the house.
    Kind("secret", "error", "a password or key", "masked by --fix; revoke it", "clean"),
    Kind("personal-data", "warning", "an e-mail address, phone, card or IP number", "masked by --fix", "clean"),
    Kind("ignored-column", "note", "a column that no format reads", "name it in data.columns, or remove it"),
)  # fmt: skip

CATALOGUE: dict[str, Kind] = {kind.code: kind for kind in _TABLE}
"""Code -> kind."""


@dataclass(frozen=True)
class Finding:
    """One problem at one place.

    Attributes:
        origin: `file:line`, as of the row.
        part: the column or message that it is in; empty where it is the whole row.
        detail: what was found, as text of the data.
    """

    code: str
    origin: str
    part: str = ""
    detail: str = ""

    @property
    def kind(self) -> Kind:
        return CATALOGUE[self.code]
