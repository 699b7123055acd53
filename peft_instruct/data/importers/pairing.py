"""A conversation -> the turns that a row is made of; every message left over is told with its reason."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

from peft_instruct.data.importers.types import Conversation, Dropped, Message, Role

Shape = Literal["pairs", "conversations"]


@dataclass(frozen=True)
class Turn:
    """What one side says until the other does: all its messages in a row, as paragraphs."""

    role: Role
    text: str


@dataclass(frozen=True)
class Dialogue:
    """Turns that begin with a question and end with an answer, and the messages they come from."""

    file: str
    turns: tuple[Turn, ...]
    messages: tuple[Message, ...]


def paired(conversation: Conversation, shape: Shape) -> Iterator[Dialogue | Dropped]:
    """At most one dialogue of a conversation: `pairs` takes its first question and answer, `conversations` all turns.

    A later question is left out of `pairs`: without what was said before it, it often means nothing.
    """
    spoken = []
    for message in conversation.messages:
        if message.text.strip():
            spoken.append(message)
        else:
            yield _dropped(conversation, "nothing but an attachment, a quote or a signature", message)
    turns = [(role, list(messages)) for role, messages in groupby(spoken, key=lambda message: message.role)]
    if turns and turns[0][0] == "assistant":
        yield from _all_dropped(conversation, "said before anyone asked", turns.pop(0)[1])
    if turns and turns[-1][0] == "user":
        reason = "nobody answered" if len(turns) == 1 else "said after the last answer"
        yield from _all_dropped(conversation, reason, turns.pop()[1])
    if shape == "pairs":
        for _, messages in turns[2:]:
            yield from _all_dropped(
                conversation, "after the first answer of its conversation (--rows conversations keeps it)", messages
            )
        turns = turns[:2]
    if turns:
        yield Dialogue(
            conversation.file,
            tuple(Turn(role, "\n\n".join(m.text.strip() for m in messages)) for role, messages in turns),
            tuple(message for _, messages in turns for message in messages),
        )


def _all_dropped(conversation: Conversation, reason: str, messages: Sequence[Message]) -> Iterator[Dropped]:
    return (_dropped(conversation, reason, message) for message in messages)


def _dropped(conversation: Conversation, reason: str, message: Message) -> Dropped:
    return Dropped(conversation.file, message.id, reason, message.text)
