"""Pages as a list of blocks, and the questions and answers in it; Markdown and HTML pages both come to this."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from peft_instruct.data.formats import QUESTION_MARKS
from peft_instruct.data.importers.types import Conversation, Dropped, Message

MARKED = 7
"""Level of what a page itself marks as a question: <dt>, <summary>, `Q:`, a bold question of its own."""


def _mark(letters: str, words: str) -> re.Pattern[str]:
    """`Q:`, `Q1.`, `Question 2)`; a letter and a full stop alone begin an abbreviation (P.O. Box, A. Smith)."""
    kinds = rf"(?:{words})\s?\d{{0,3}}|(?:{letters})\s?\d{{1,3}}|(?:{letters})(?!\s?(?:\*\*)?\s?\.)"
    return re.compile(rf"\W{{0,3}}(?:{kinds})\s?(?:\*\*)?\s?[:：.)]\s*(?:\*\*)?\s*")


_Q = _mark("Q|F|P|В", "Question|Frage|Pregunta|Вопрос|问题?|質問")
_A = _mark("A|R|О", "Answer|Antwort|Respuesta|Ответ|答案?|回答")
_BOLD = re.compile(r"(\*\*|__)(?P<text>[^\n]+)\1")


@dataclass(frozen=True)
class Block:
    """A heading, paragraph, list item or piece of code.

    Attributes:
        level: 0 for text, 1 to 6 for headings, MARKED for questions by markup.
        line: where it begins, 1-based.
        is_item: a list item; it follows the one before without an empty line.
    """

    level: int
    text: str
    line: int
    is_item: bool = False


def joined(blocks: Sequence[Block]) -> str:
    text = ""
    for before, block in zip((None, *blocks), blocks, strict=False):
        if before is not None:
            text += "\n" if before.is_item and block.is_item else "\n\n"
        text += block.text
    return text


def spelled_out(block: Block) -> Iterator[Block]:
    """A paragraph as what it stands for: a line that is a bold question, or `Q: ...`, and what follows it as answer."""
    first, _, rest = block.text.partition("\n")
    bold = _BOLD.fullmatch(first.rstrip())
    if bold and bold["text"].rstrip().endswith(QUESTION_MARKS) and not _Q.match(block.text):
        yield Block(MARKED, bold["text"].strip(), block.line)
        if rest.strip():
            yield Block(0, rest, block.line + 1)
    elif asked := _Q.match(block.text):
        question, mark, answer = _split_at_answer(block.text[asked.end() :])
        yield Block(MARKED, question.strip().removesuffix("**").strip(), block.line)
        if mark:
            yield Block(0, answer.strip(), block.line + block.text[: -len(answer) or None].count("\n"))
    elif answered := _A.match(block.text):
        yield Block(0, block.text[answered.end() :], block.line)
    else:
        yield block


def _split_at_answer(text: str) -> tuple[str, str, str]:
    lines = text.split("\n")
    for number, line in enumerate(lines[1:], start=1):
        mark = _A.match(line)
        if mark:
            return "\n".join(lines[:number]), mark[0], "\n".join([line[mark.end() :], *lines[number + 1 :]])
    return text, "", ""


def questions(file: str, blocks: Sequence[Block]) -> Iterator[Conversation | Dropped]:
    """Each question with the blocks up to the next one, or up to a heading that is not below it.

    A heading inside an answer stays one, as Markdown.
    """
    levels = _question_levels(blocks)
    asked: Block | None = None
    answer: list[Block] = []
    for block in [*blocks, None]:
        if asked is not None and (block is None or block.level in levels or 0 < block.level <= asked.level):
            yield _entry(file, asked, answer)
            asked, answer = None, []
        if block is None:
            break
        if block.level in levels and asked is None:
            asked = block
        elif asked is not None:
            answer.append(replace(block, text=f"{'#' * block.level} {block.text}") if block.level else block)
        else:
            yield Dropped(file, f"line {block.line}", "outside of any question", block.text)


def _entry(file: str, asked: Block, answer: list[Block]) -> Conversation | Dropped:
    place = f"line {asked.line}"
    if not answer:
        return Dropped(file, place, "a heading or question without an answer", asked.text)
    reply = Message(f"line {answer[0].line}", "assistant", joined(answer))
    return Conversation(file, (Message(place, "user", asked.text), reply))


def _question_levels(blocks: Sequence[Block]) -> set[int]:
    """Marked questions; and the levels of headings of which half end in a question mark.

    A page without any has its headings taken, but for a title that stands alone on its level.
    """
    headings = [block for block in blocks if 0 < block.level < MARKED]
    counts = Counter(block.level for block in headings)
    asking = Counter(block.level for block in headings if block.text.rstrip(" *_").endswith(QUESTION_MARKS))
    levels = {level for level, count in counts.items() if asking[level] * 2 >= count}
    if levels or any(block.level == MARKED for block in blocks):
        return levels | {MARKED}
    titles = {min(counts)} if counts and counts[min(counts)] == 1 and len(counts) > 1 else set()
    return set(counts) - titles
