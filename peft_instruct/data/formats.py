"""Rows -> prompts and completions: which columns hold what, checked row by row, all problems at once."""

from __future__ import annotations

from dataclasses import dataclass

from peft_instruct.data.templates import Template
from peft_instruct.data.types import Example, PromptCompletion, Row
from peft_instruct.errors import DatasetError
from peft_instruct.recipe.schema import Columns

# The column names that a format is known by; the second and later names are accepted in their place.
INSTRUCTION = ("instruction",)
INPUT = ("input",)
OUTPUT = ("output", "response")
PROMPT = ("prompt",)
COMPLETION = ("completion",)
TEXT = ("text",)
# Optional columns of any format: every answer that counts as right, and what to tell exact match by.
ACCEPTED = "accepted"
GROUP = "group"


@dataclass(frozen=True)
class Format:
    """How the rows are read: the format's name and the column of each part."""

    name: str
    columns: dict[str, str]
    ignored: tuple[str, ...]


def detect_format(rows: list[Row], name: str, columns: Columns, source: str) -> Format:
    """The format of the rows, by name or by the columns that any row has (an empty `input` is often left out).

    Raises:
        DatasetError: no format fits, or a named column is not there.
    """
    present = list(dict.fromkeys(column for row in rows for column in row.values))
    candidates = [name] if name != "auto" else ["alpaca", "prompt_completion"]
    lacking: list[list[str]] = []
    for candidate in candidates:
        found, missing = _columns_of(candidate, columns, present)
        lacking.append(missing)
        if not missing:
            used = {*found.values(), ACCEPTED, GROUP}
            return Format(candidate, found, tuple(c for c in present if c not in used))
    unnamed = name == "auto" and not columns.model_fields_set
    fewest = min(lacking, key=len)
    wanted = "instruction and output, or prompt and completion" if unnamed else " and ".join(fewest)
    raise DatasetError(
        f"{source}: cannot read the rows as {name}; the columns are {', '.join(map(repr, present)) or 'none'}. "
        f"expected {wanted}. Name yours under data.columns."
    )


def _columns_of(name: str, columns: Columns, present: list[str]) -> tuple[dict[str, str], list[str]]:
    formats: dict[str, dict[str, tuple[str, ...]]] = {
        "alpaca": {"instruction": INSTRUCTION, "input": INPUT, "output": OUTPUT},
        "prompt_completion": {"prompt": PROMPT, "completion": COMPLETION},
        "text": {"text": TEXT},
    }
    found: dict[str, str] = {}
    missing = []
    for part, usual in formats[name].items():
        given = getattr(columns, part)
        column = next((c for c in ((given,) if given else usual) if c in present), None)
        if column is not None:
            found[part] = column
        elif part != "input" or given:
            missing.append(given or usual[0])
    return found, missing


class RowReader:
    """Reads the parts of rows in one format and remembers every problem and every empty row.

    Attributes:
        empty: origins of rows that lack an instruction or an output, with what is empty.
    """

    def __init__(self, form: Format) -> None:
        self.form = form
        self.problems: list[str] = []
        self.empty: list[str] = []

    def read(self, rows: list[Row], template: Template) -> list[PromptCompletion]:
        """The rows as prompts and completions; empty ones are left out and stand in `empty`."""
        make = {"alpaca": self._example, "prompt_completion": self._pair, "text": self._document}[self.form.name]
        pairs = []
        for row in rows:
            num_empty = len(self.empty)
            pair = make(row, template)
            if len(self.empty) == num_empty:
                pairs.append(pair)
        return pairs

    def _example(self, row: Row, template: Template) -> PromptCompletion:
        return template.render(
            Example(
                instruction=self._text(row, "instruction"),
                input=self._text(row, "input", optional=True),
                output=self._text(row, "output"),
                origin=row.origin,
                accepted=self._accepted(row),
                group=self._group(row),
            )
        )

    def _pair(self, row: Row, template: Template) -> PromptCompletion:
        prompt, completion = self._text(row, "prompt"), self._text(row, "completion")
        return PromptCompletion(prompt, completion, row.origin, prompt, self._accepted(row), self._group(row))

    def _document(self, row: Row, template: Template) -> PromptCompletion:
        return PromptCompletion("", self._text(row, "text"), row.origin)

    def _text(self, row: Row, part: str, optional: bool = False) -> str:
        column = self.form.columns.get(part)
        value = None if column is None else row.values.get(column)
        if value is None and optional:
            return ""
        if column is not None and column not in row.values:
            self.problems.append(f"{row.origin}: no {column!r}; found {', '.join(map(repr, row.values)) or 'nothing'}.")
        elif not isinstance(value, str):
            kind = "null" if value is None else f"{type(value).__name__} {str(value)[:40]!r}"
            self.problems.append(f"{row.origin}: {column!r} is {kind}. expected text; quote it.")
        elif not optional and not value.strip():
            self.empty.append(f"{row.origin}: {column!r} is empty.")
        elif _lone_surrogate(value):
            self.problems.append(f"{row.origin}: {column!r} holds half of a surrogate pair, which is no character.")
        else:
            return value
        return ""

    def _accepted(self, row: Row) -> tuple[str, ...]:
        value = row.values.get(ACCEPTED)
        if value is None:
            return ()
        if isinstance(value, list) and all(isinstance(text, str) and not _lone_surrogate(text) for text in value):
            return tuple(value)
        self.problems.append(f"{row.origin}: {ACCEPTED!r} is {value!r}. expected a list of texts.")
        return ()

    def _group(self, row: Row) -> str:
        value = row.values.get(GROUP)
        if value is None or isinstance(value, str):
            return value or ""
        self.problems.append(f"{row.origin}: {GROUP!r} is {value!r}. expected text.")
        return ""


def _lone_surrogate(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return True
    return False
