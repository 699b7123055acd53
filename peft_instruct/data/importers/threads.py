"""Posts of a chat -> conversations: whoever opens a thread asks, the others answer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from peft_instruct.data.importers.types import Conversation, Dropped, Message


@dataclass(frozen=True)
class Post:
    """A message of a chat.

    Attributes:
        parent: id of the post that it replies to; empty for one that opens a thread.
    """

    id: str
    author: str
    text: str
    time: str
    parent: str = ""


def threads(file: str, posts: Iterable[Post]) -> Iterator[Conversation | Dropped]:
    """Posts with all that replies to them, in the order of the export."""
    by_id = {post.id: post for post in posts}
    members: dict[str, list[Post]] = {}
    heads: dict[str, Post | None] = {}
    for post in by_id.values():
        first = _first(post, by_id, heads)
        if first is None:
            yield Dropped(file, post.id, "reply to a message that is left out, or not in the export", post.text)
        else:
            members.setdefault(first.id, []).append(post)
    for head, thread in members.items():
        asker = by_id[head].author
        # A clock that is behind, or a mail without a date, may put an answer before it.
        thread.sort(key=lambda post: post.id != head)
        yield Conversation(
            file,
            tuple(
                Message(post.id, "user" if post.author == asker else "assistant", post.text, post.time)
                for post in thread
            ),
        )


def _first(post: Post, by_id: dict[str, Post], heads: dict[str, Post | None]) -> Post | None:
    """The post at the head of a chain of replies; None where the chain leaves the export or turns on itself.

    Args:
        heads: of the posts that were asked for, and of those on the way; what is found is added.
    """
    way = {post.id: post}
    head: Post | None = post
    while head and head.parent:
        if head.parent in heads:
            head = heads[head.parent]
        elif head.parent not in by_id or head.parent in way:
            head = None
        else:
            head = by_id[head.parent]
            way[head.id] = head
    heads |= dict.fromkeys(way, head)
    return head
