"""Files of prompts in, files of completions out. Imports no torch: a broken file is told before a model is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from peft_instruct.data.conversations import (
    BrokenConversationError,
    UnusableConversationError,
    holds_messages,
    read_question,
)
from peft_instruct.data.formats import PARTS
from peft_instruct.data.prepare import LOST
from peft_instruct.data.reader import HALF_PAIR, has_lone_surrogate
from peft_instruct.data.sources import is_hub_id, read_rows
from peft_instruct.data.templates import Template
from peft_instruct.data.types import Example, Row
from peft_instruct.errors import DatasetError, RecipeError
from peft_instruct.recipe.data_section import Columns

if TYPE_CHECKING:
    from peft_instruct.inference.complete import Generation

CONVERSATIONS = ("messages", "conversations")
ASKING = ("instruction", "prompt", *CONVERSATIONS)
"""The columns that ask; a row has one of them."""
ANSWERING = PARTS["question_answer"]["output"]
KEPT_PREFIX = "given_"
"""A column of the file that has the name of one of ours is kept under this prefix, as often as it takes."""
OURS = frozenset({"completion", "stopped", "num_tokens", "num_prompt_tokens_cut",
                  "base_completion", "base_stopped", "base_num_tokens"})  # fmt: skip
"""Kept apart whether a pass writes them or not: a column of an earlier pass is not taken for one of this."""


@dataclass(frozen=True)
class PromptRow:
    """A row of the file and the prompt that it comes to."""

    values: dict[str, Any]
    prompt: str
    origin: str


def read_prompts(source: str, template: Template, columns: Columns | None = None) -> list[PromptRow]:
    """The prompts of a file, row by row: `instruction` (and `input` or `context`) or a conversation, rendered by the
    template, or `prompt`, taken as it is. Of a conversation it is everything before the answer that it ends in.

    Args:
        columns: what the training called the columns that ask; the usual names are known.

    Raises:
        DatasetError: no such file, or broken rows, every one named by file and line.
    """
    if is_hub_id(source):
        raise DatasetError(f"{source}: no such file. expected a .jsonl, .json, .csv or .parquet file of prompts.")
    columns = columns or Columns()
    problems: list[str] = []
    rows = []
    read = read_rows(source).rows
    there = {name for row in read for name in row.values}
    by_plain_name = {name.strip().lower(): name for name in sorted(there, reverse=True)}

    def found_as(names: Sequence[str | None]) -> str | None:
        """As training finds a column: by its name, else in whatever case."""
        spelled = next((name for name in names if name in there), None)
        return spelled or next((by_plain_name[name] for name in names if name in by_plain_name), None)

    # One column for the whole file, as training has it.
    talks = _talks(read, (columns.messages, *PARTS["messages"]["messages"]))
    usual = () if there.intersection(ASKING) else (ASKING[0], *PARTS["question_answer"]["instruction"])
    asks = found_as((columns.instruction, *usual)) or ASKING[0]
    if asks not in there and "prompt" in there and "completion" not in there and found_as(ANSWERING):
        asks = "prompt"  # as training reads such a file: a question, not a prompt that is ready
    about = found_as([name for name in (columns.input, *PARTS["alpaca"]["input"]) if name != asks]) or ""
    if not there.intersection((asks, *ASKING, talks)):
        raise DatasetError(
            f"{source}: no column asks; found {', '.join(map(repr, sorted(there)))}. expected one of "
            f"{', '.join(ASKING[:-1])} and {ASKING[-1]}."
        )
    for row in read:
        try:
            rows.append(PromptRow(row.values, _prompt(row, template, about, asks, talks), row.origin))
        except _BadPromptError as error:
            problems += [f"{row.origin}: {problem}" for problem in error.args]
    if problems:
        raise DatasetError.of(source, problems)
    return rows


def _talks(rows: Sequence[Row], names: Sequence[str | None]) -> str:
    """The column that holds conversations, which goes before all others, as in training; empty where none does."""
    return next((name for name in filter(None, names) if any(holds_messages(row.values.get(name)) for row in rows)), "")


def one_prompt(instruction: str, input: str, template: Template) -> PromptRow:
    """The prompt of an instruction that came with the command.

    Raises:
        RecipeError: it is no text, or the template has no place for the input.
    """
    values = {"instruction": instruction, **({"input": input} if input else {})}
    try:
        return PromptRow(values, _prompt(Row(values, "INSTRUCTION"), template, "input"), "INSTRUCTION")
    except _BadPromptError as error:
        raise RecipeError.of("generate", list(error.args)) from error


class _BadPromptError(ValueError):
    """What is wrong with a row, each problem an argument."""


def _prompt(row: Row, template: Template, about: str, asks: str = ASKING[0], talks: str = "") -> str:
    """`asks`, `about`, `talks`: the columns with an instruction, with what it is about, and with conversations."""
    if talks and row.values.get(talks) is not None:
        return _rendered(_conversation(row, talks), template)
    asking = (asks, *ASKING[1:]) if asks not in ASKING else ASKING
    named = [name for name in asking if name in row.values]
    if len(named) != 1:
        found = " and ".join(map(repr, named)) or f"columns {', '.join(map(repr, row.values)) or 'none'}"
        raise _BadPromptError(f"{found}. expected one of {', '.join(asking[:-1])} and {asking[-1]}.")
    (name,) = named
    if name in CONVERSATIONS:
        return _rendered(_conversation(row, name), template)
    value, given_input = row.values[name], row.values.get(about)
    problems = _text_problems(name, value)
    if name == asks and given_input not in (None, ""):
        problems += _text_problems(about, given_input, "text, or none")
    if problems:
        raise _BadPromptError(*problems)
    if name == "prompt" != asks:
        return str(value)
    return _rendered(Example(value, given_input or "", "", row.origin), template)


def _conversation(row: Row, column: str) -> Example:
    try:
        question = read_question(row.values[column])
    except (BrokenConversationError, UnusableConversationError) as error:
        raise _BadPromptError(f"{column!r}: {error}.") from error
    texts = [question.system, question.user, *(text for each in question.earlier for text in (each.user, each.answer))]
    if any(map(has_lone_surrogate, texts)):
        raise _BadPromptError(f"{column!r} {HALF_PAIR}.")
    return Example(question.user, "", "", row.origin, system=question.system, earlier=question.earlier)


def _rendered(example: Example, template: Template) -> str:
    if lost := template.lost(example):
        raise _BadPromptError(f"has {LOST[lost]}, but the template of the training has no {lost} for it.")
    return template.render(example).prompt


def _text_problems(name: str, value: Any, expected: str = "text") -> list[str]:
    if not isinstance(value, str) or not (value.strip() or name in PARTS["alpaca"]["input"]):
        return [f"{name!r} is {_shown(value)}. expected {expected}."]
    return [f"{name!r} {HALF_PAIR}."] if has_lone_surrogate(value) else []


def completed_row(values: dict[str, Any], tuned: Generation, base: Generation | None) -> dict[str, Any]:
    """A row of the output: the row of the input with what was generated for it."""
    added: dict[str, Any] = {
        "completion": tuned.completion,
        "stopped": tuned.stopped,
        "num_tokens": tuned.num_tokens,
    }
    if base is not None:
        added |= {"base_completion": base.completion, "base_stopped": base.stopped, "base_num_tokens": base.num_tokens}
    if tuned.num_cut:
        added["num_prompt_tokens_cut"] = tuned.num_cut
    return {**_kept(values), **added}


def _kept(values: dict[str, Any]) -> dict[str, Any]:
    """The columns of the file, those with a name of ours under a free one."""
    kept: dict[str, Any] = {}
    for name, value in values.items():
        free = name
        while free in OURS or (free != name and free in values):
            free = KEPT_PREFIX + free
        kept[free] = value
    return kept


def _shown(value: Any) -> str:
    if value is None:
        return "null"
    return repr(value) if isinstance(value, str) else f"{type(value).__name__} {str(value)[:40]!r}"
