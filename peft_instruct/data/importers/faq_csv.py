"""FAQ tables: a CSV with a question and an answer a line, whatever the columns are called and separated by."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from itertools import chain

from peft_instruct.data.formats import QUESTION_MARKS
from peft_instruct.data.importers.export import Export
from peft_instruct.data.importers.types import Broken, Conversation, Dropped, Found, Message

QUESTION = ("question", "q", "questions", "frage", "pregunta", "pergunta", "domanda", "вопрос", "问题", "instruction",
            "prompt", "title")  # fmt: skip
ANSWER = ("answer", "a", "answers", "antwort", "respuesta", "réponse", "reponse", "resposta", "risposta", "ответ",
          "答案", "output", "response", "completion", "reply", "body")  # fmt: skip


def columns_of(header: list[str]) -> tuple[int, int] | None:
    """Where question and answer stand: by name, or the two there are."""
    names = [name.strip().lower() for name in header]
    question, answer = (
        next((names.index(name) for name in usual if name in names), None) for usual in (QUESTION, ANSWER)
    )
    if len(header) == 2:  # one of a known name tells the other
        question = question if question is not None else 0 if answer is None else 1 - answer
        answer = 1 - question if answer is None else answer
    return None if question is None or answer is None else (question, answer)


def _is_name(value: str) -> bool:
    return value.strip().lower() in (*QUESTION, *ANSWER)


def _is_header(values: list[str]) -> bool:
    """A table without names begins with a question, or with two texts of which none is the name of a column."""
    if len(values) != 2:
        return True
    asked = values[0].strip()
    if " " in asked and asked.endswith(QUESTION_MARKS):
        return False
    return any(_is_name(value) or " " not in value.strip() for value in values)


def read(export: Export, names: tuple[str, ...]) -> Iterator[Found]:
    """One conversation of two messages per line of the table."""
    for name in names:
        text = export.text(name)
        if isinstance(text, Broken):
            yield text
        else:
            yield from _table(text, name)


def _table(text: str, file: str) -> Iterator[Found]:
    csv.field_size_limit(max(len(text), 131072))
    first = text.split("\n", 1)[0]
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=max(",;\t", key=first.count), strict=True)
    line = 1
    try:
        header = next(reader, [])
        columns = columns_of(header)
        if columns is None:
            shown = ", ".join(map(repr, header)) or "none"
            yield Broken(f"{file}:1", f"columns {shown}. expected one called question and one called answer")
            return
        names_columns = _is_header(header)
        if names_columns and not any(map(_is_name, header)):
            yield Dropped(file, "line 1", "taken as the names of columns", ", ".join(header))
        for values in chain([] if names_columns else [header], reader):
            line, place = reader.line_num, f"line {reader.line_num}"
            if not values:
                continue
            if len(values) != len(header):
                yield Broken(f"{file}:{line}", f"{len(values)} fields. the header names {len(header)}")
                continue
            question, answer = (values[column].strip() for column in columns)
            if question and answer:
                yield Conversation(file, (Message(place, "user", question), Message(place, "assistant", answer)))
            else:
                yield Dropped(file, place, "a question without an answer" if question else "empty", question or answer)
    except csv.Error as error:
        yield Broken(f"{file}:{line}", f"not CSV ({error})")
