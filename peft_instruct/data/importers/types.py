"""What a kind of export is read into, before it is paired into rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Role = Literal["user", "assistant"]
"""Who asks and who answers, named as in chat templates."""


@dataclass(frozen=True)
class Message:
    """What one person wrote, its markup resolved.

    Attributes:
        id: the export's own id, or `line N` of a page.
        time: ISO 8601 as far as the export knows it, else empty.
    """

    id: str
    role: Role
    text: str
    time: str = ""


@dataclass(frozen=True)
class Conversation:
    """The messages that belong together, oldest first; `file` is a name inside the export."""

    file: str
    messages: tuple[Message, ...]


@dataclass(frozen=True)
class Dropped:
    """A message, or a whole file, that no row is made of."""

    file: str
    id: str
    reason: str
    text: str = ""


@dataclass(frozen=True)
class Broken:
    """A file of the export that cannot be read: `place` is `file` or `file:line`."""

    place: str
    what: str


Found = Conversation | Dropped | Broken
