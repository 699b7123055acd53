"""Rows -> prompts and completions: which columns hold what, told from their names and their content."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from peft_instruct.data.conversations import holds_messages
from peft_instruct.data.types import Row
from peft_instruct.errors import DatasetError
from peft_instruct.recipe.data_section import Columns

# Optional columns of any format: every answer that counts as right, and what to tell exact match by.
ACCEPTED = "accepted"
GROUP = "group"
OPTIONAL = ("input",)
QUESTION_MARKS = ("?", "？", "؟")

PARTS: dict[str, dict[str, tuple[str, ...]]] = {
    # format -> part -> the column names that it is known by, the usual one first; in the order they are looked for.
    "messages": {"messages": ("messages", "conversations", "conversation", "dialogue")},
    "sharegpt": {"messages": ("conversations", "conversation", "messages", "dialogue")},
    "alpaca": {"instruction": ("instruction",), "input": ("input", "context"), "output": ("output", "response")},
    "prompt_completion": {"prompt": ("prompt",), "completion": ("completion",)},
    "question_answer": {
        "instruction": ("question", "query", "faq", "q", "prompt"),
        "input": ("context", "input"),
        "output": ("answer", "response", "reply", "a"),
    },
    "text": {"text": ("text", "document", "content")},
}
CONVERSATIONS = ("messages", "sharegpt")
MOST_LOOKED_AT = 200
"""Rows whose content is looked at to tell a format."""


@dataclass(frozen=True)
class Format:
    """How the rows are read.

    Attributes:
        columns: part -> column.
        ignored: columns that are not read.
        reason: what of the rows told the format.
    """

    name: str
    columns: dict[str, str]
    ignored: tuple[str, ...]
    reason: str


def detect_format(rows: list[Row], name: str, columns: Columns, source: str) -> Format:
    """The format of the rows: the one that is named, or what their columns and their content tell.

    Column names count without their case and the space around them. A column counts that any row has (an empty
    `input` is often left out).

    Raises:
        DatasetError: no format fits, or a named column is not there.
    """
    present = list(dict.fromkeys(column for row in rows for column in row.values))
    given = {part: column for part, column in columns if column is not None}
    candidates = [name] if name != "auto" else [form for form in PARTS if set(given) <= set(PARTS[form])]
    lacking: dict[str, list[str]] = {}
    for candidate in candidates:
        found, lacking[candidate] = _columns_of(candidate, given, present)
        if lacking[candidate] or (name == "auto" and not _content_fits(candidate, found, given, rows)):
            continue
        reason = "as data.format says" if name != "auto" else _reason(candidate, found, given)
        return _format(candidate, found, present, reason)
    by_content = _by_content(rows, present) if name == "auto" and not given else None
    if by_content is not None:
        return _format(*by_content[:2], present, by_content[2])
    raise DatasetError(_unreadable(source, name, present, lacking, bool(given)))


def _format(name: str, found: dict[str, str], present: list[str], reason: str) -> Format:
    used = {*found.values(), ACCEPTED, GROUP}
    return Format(name, found, tuple(column for column in present if column not in used), reason)


def _columns_of(name: str, given: dict[str, str], present: list[str]) -> tuple[dict[str, str], list[str]]:
    """The column of each part, and what is missing."""
    # A column that is named for one part is no other one by its own name.
    free = [column for column in present if column not in given.values()]
    by_plain_name = {column.strip().lower(): column for column in reversed(free)}
    found: dict[str, str] = {}
    missing = []
    for part, usual in PARTS[name].items():
        if part in given:
            column = given[part] if given[part] in present else None
        else:
            column = next((c for c in usual if c in free), None)
            column = column or next((by_plain_name[c] for c in usual if c in by_plain_name), None)
        if column is not None:
            found[part] = column
        elif part not in OPTIONAL or part in given:
            missing.append(given.get(part, usual[0]))
    return found, missing


def _content_fits(name: str, found: dict[str, str], given: dict[str, str], rows: list[Row]) -> bool:
    """Conversations are known by their content, whole text by its name or by there being nothing else."""
    if name in CONVERSATIONS:
        return _messages_in(rows, found["messages"]) == name
    return (
        name != "text" or "text" in given or not any(column != found["text"] for row in rows for column in row.values)
    )


def _reason(name: str, found: dict[str, str], given: dict[str, str]) -> str:
    if name in CONVERSATIONS:
        return f"{found['messages']!r} holds lists of messages"
    named = " and ".join(repr(column) for part, column in found.items() if part not in OPTIONAL)
    how = "named in data.columns" if given else "the only column" if name == "text" else "by its column names"
    return f"{named}, {how}"


def _by_content(rows: list[Row], present: list[str]) -> tuple[str, dict[str, str], str] | None:
    """Columns of any name that hold messages, or two of which one asks."""
    for column in present:
        if form := _messages_in(rows, column):
            return form, {"messages": column}, f"{column!r} holds lists of messages"
    if len(present) != 2:
        return None
    asking = {column: _share_of_questions(rows, column) for column in present}
    question, answer = sorted(present, key=lambda column: -asking[column])
    if asking[question] < 0.5 or asking[answer] >= 0.5:
        return None
    reason = f"two columns; {asking[question]:.0%} of {question!r} end in a question mark"
    return "question_answer", {"instruction": question, "output": answer}, reason


def _messages_in(rows: list[Row], column: str) -> str:
    return next(filter(None, (holds_messages(value) for value in _values(rows, column))), "")


def _share_of_questions(rows: list[Row], column: str) -> float:
    asks = [isinstance(value, str) and value.rstrip().endswith(QUESTION_MARKS) for value in _values(rows, column)]
    return sum(asks) / len(asks) if asks else 0.0


def _values(rows: list[Row], column: str) -> Iterator[object]:
    return (row.values[column] for row in rows[:MOST_LOOKED_AT] if row.values.get(column) is not None)


def _unreadable(source: str, name: str, present: list[str], lacking: dict[str, list[str]], is_given: bool) -> str:
    fewest = min(lacking.values(), key=len, default=[])
    if name in CONVERSATIONS or ((name != "auto" or is_given) and fewest):
        wanted = " and ".join(fewest) or "lists of messages"
    else:
        wanted = "instruction and output, prompt and completion, question and answer, messages, or text alone"
    hint = "Name yours under data.columns."
    if name == "auto" and not is_given and len(present) >= 2:
        first, second = present[:2]
        hint = (
            f"Name yours: --set data.columns.instruction={first} --set data.columns.output={second}, or whichever "
            "asks and answers; or rename the columns."
        )
    return (
        f"{source}: cannot read the rows as {name}; the columns are {', '.join(map(repr, present)) or 'none'}. "
        f"expected {wanted}. {hint}"
    )
