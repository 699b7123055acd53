"""Lists of messages -> the last exchange with those before it: OpenAI's `messages` and ShareGPT's `conversations`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from peft_instruct.data.types import Exchange

ROLES = {
    "system": "system", "developer": "system",
    "user": "user", "human": "user", "prompter": "user",
    "assistant": "assistant", "gpt": "assistant", "bot": "assistant", "model": "assistant", "chatgpt": "assistant",
}  # fmt: skip
# Whether an answer is learned: OpenAI's fine-tuning format says `weight`, axolotl's says `train`.
LEARNED_KEYS = ("weight", "train")

ANSWER_FIRST = "begin with an answer to nothing, which is not used"
QUESTION_LAST = "end in a message without an answer, which is not used"
JOINED = "hold messages of one speaker in a row, which are joined"


class UnusableConversationError(Exception):
    """Why nothing can be learned of a conversation."""


class BrokenConversationError(Exception):
    """Why a value is no conversation."""


@dataclass(frozen=True)
class Message:
    role: str
    text: str
    learned: bool = True


@dataclass(frozen=True)
class Conversation:
    """Exchanges, of which the last one's answer is learned.

    Attributes:
        notes: what of the messages was not taken as it stands.
    """

    system: str
    exchanges: tuple[Exchange, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Question:
    """The last message of a user, and what was said before it."""

    system: str
    earlier: tuple[Exchange, ...]
    user: str


def holds_messages(value: Any) -> str:
    """`messages` or `sharegpt` by the keys of the first message; empty for anything else."""
    if not (isinstance(value, list) and value and isinstance(value[0], dict)):
        return ""
    return "messages" if {"role", "content"} <= set(value[0]) else "sharegpt" if "from" in value[0] else ""


def read_conversation(value: Any) -> Conversation:
    """A conversation out of a list of `{role, content}` or `{from, value}`.

    Raises:
        BrokenConversationError: it is not such a list.
        UnusableConversationError: it has no answer to learn, or messages that no template has a place for.
    """
    system, turns, notes = _turns(value)
    if turns and turns[-1].role == "user":
        turns = turns[:-1]
        notes.append(QUESTION_LAST)
    exchanges = _exchanges(turns)
    while exchanges and not exchanges[-1].learned:
        exchanges.pop()
    if not exchanges:
        raise UnusableConversationError("no message of an assistant answers one of a user")
    return Conversation(system, tuple(exchanges), tuple(notes))


def read_question(value: Any) -> Question:
    """What is to be answered in a list of messages: everything before the answer that it ends in, if it does.

    Raises:
        BrokenConversationError, UnusableConversationError: as `read_conversation`; no user asks anything.
    """
    system, turns, _ = _turns(value)
    if turns and turns[-1].role == "assistant":
        turns = turns[:-1]
    if not turns:
        raise UnusableConversationError("no message of a user")
    return Question(system, tuple(_exchanges(turns[:-1])), turns[-1].text)


def _turns(value: Any) -> tuple[str, list[Message], list[str]]:
    """The system message, the messages of user and assistant in turn from a user's on, and notes."""
    if not isinstance(value, list):
        raise BrokenConversationError(f"is {_kind(value)}. expected a list of messages")
    messages = [_message(number, item) for number, item in enumerate(value, start=1)]
    # Many exports begin every conversation with a system message, said or not.
    messages = [message for message in messages if message.role != "system" or message.text.strip()]
    system = "\n".join(message.text for message in messages if message.role == "system")
    if any(message.role == "system" for message in messages[1:]):
        raise UnusableConversationError("a system message stands behind another message")
    notes = []
    turns = _joined(message for message in messages if message.role != "system")
    if len(turns) < sum(message.role != "system" for message in messages):
        notes.append(JOINED)
    if turns and turns[0].role == "assistant":
        turns = turns[1:]
        notes.append(ANSWER_FIRST)
    return system, turns, notes


def _exchanges(turns: Sequence[Message]) -> list[Exchange]:
    return [
        Exchange(asked.text, answer.text, answer.learned) for asked, answer in zip(turns[::2], turns[1::2], strict=True)
    ]


def _message(number: int, item: Any) -> Message:
    if not isinstance(item, dict):
        raise BrokenConversationError(f"holds {_kind(item)} as message {number}. expected {{role, content}}")
    said, content = (item[a] if a in item else item.get(b) for a, b in (("role", "from"), ("content", "value")))
    role = ROLES.get(said.strip().lower()) if isinstance(said, str) else None
    if role is None:
        known = "system, user and assistant, or human and gpt"
        if isinstance(said, str) and said.strip():
            raise UnusableConversationError(f"message {number} is of {said!r}; known are {known}")
        raise BrokenConversationError(f"holds message {number} without a role. expected {known}")
    content = text_of(content)
    if is_more_than_text(item, content):
        raise UnusableConversationError(f"message {number} holds more than text (a tool call, an image)")
    if not isinstance(content, str):
        raise BrokenConversationError(f"holds {_kind(content)} as the text of message {number}. expected text")
    if not content.strip() and role != "system":
        raise UnusableConversationError(f"message {number} is empty")
    return Message(role, content, not any(item.get(key) in (0, False) for key in LEARNED_KEYS if key in item))


def is_more_than_text(message: dict[str, Any], content: Any) -> bool:
    """Whether a message calls a tool or shows something; `content` as of `text_of`."""
    return bool(message.get("tool_calls") or message.get("function_call")) or isinstance(content, list)


def text_of(content: Any) -> Any:
    """A list of texts, as OpenAI writes a message, as one; anything else as it is."""
    if isinstance(content, list) and all(isinstance(part, dict) and part.get("type") == "text" for part in content):
        return "".join(str(part.get("text", "")) for part in content)
    return content


def _joined(messages: Iterable[Message]) -> list[Message]:
    turns: list[Message] = []
    for message in messages:
        if turns and turns[-1].role == message.role:
            before = turns.pop()
            message = Message(message.role, f"{before.text}\n\n{message.text}", before.learned and message.learned)
        turns.append(message)
    return turns


def _kind(value: Any) -> str:
    return "null" if value is None else f"{type(value).__name__} {str(value)[:40]!r}"
