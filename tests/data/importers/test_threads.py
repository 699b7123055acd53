"""Replies and the posts at the head of their chains."""

from __future__ import annotations

from peft_instruct.data.importers.threads import Post, _first


def test_a_chain_of_replies_is_followed_once() -> None:
    """Every post the reply to the one before; each post's way to the head anew would be 50 million steps."""
    posts = [
        Post(str(number), "ab"[number % 2], "said", "", str(number - 1) if number else "") for number in range(10_000)
    ]
    asked: list[str] = []

    class Counting(dict[str, Post]):
        def __getitem__(self, key: str) -> Post:
            asked.append(key)
            return super().__getitem__(key)

    heads: dict[str, Post | None] = {}
    by_id = Counting({post.id: post for post in posts})
    assert {first.id for post in reversed(posts) if (first := _first(post, by_id, heads))} == {"0"}
    assert len(asked) < 2 * len(posts)


def test_chains_that_leave_the_export_or_turn_on_themselves_have_no_head() -> None:
    posts = {name: Post(name, "a", "said", "", parent) for name, parent in
             (("1", ""), ("2", "1"), ("3", "gone"), ("4", "3"), ("5", "6"), ("6", "5"), ("7", "6"))}  # fmt: skip
    for order in (sorted(posts), sorted(posts, reverse=True)):
        heads: dict[str, Post | None] = {}
        found = {name: _first(posts[name], posts, heads) for name in order}
        assert {name: head and head.id for name, head in found.items()} == {
            "1": "1", "2": "1", "3": None, "4": None, "5": None, "6": None, "7": None,
        }  # fmt: skip
