"""What the made exports of every kind share: the talks among noise, in a made-up March, as text or as HTML.

Everything is a function of a seed; each export holds at least 200 messages.
"""

from __future__ import annotations

import html
import random
import re
from collections.abc import Callable, Iterator
from datetime import datetime, timezone

from talks import PEOPLE, TALKS, Talk

START = datetime(2026, 3, 2, 8, 0, tzinfo=timezone.utc)
MENTION = re.compile(r"@\[(\w+)\]")
NUM_NOISE = 170


def shown(text: str, mention: Callable[[str], str] = lambda person: "@" + PEOPLE[person]) -> str:
    return MENTION.sub(lambda found: mention(found[1]), text)


def scattered(seed: int, num_noise: int = NUM_NOISE) -> Iterator[Talk | int]:
    """The talks in their order with noise (its number) between them."""
    chance = random.Random(seed)
    items: list[Talk | int] = list(range(num_noise))
    for place, talk in zip(sorted(chance.sample(range(num_noise), len(TALKS)), reverse=True), TALKS[::-1], strict=True):
        items.insert(place, talk)
    yield from items


def as_html(text: str) -> str:
    """Paragraphs, lists and fenced code of the talks as a rich-text editor writes them."""
    parts = []
    for block in text.split("\n\n"):
        code = re.fullmatch(r"```\w*\n(.*)\n```", block, re.DOTALL)
        if code:
            parts.append(f"<pre><code>{html.escape(code[1])}</code></pre>")
        elif block.startswith("- "):
            parts.append("<ul>" + "".join(f"<li>{html.escape(line[2:])}</li>" for line in block.split("\n")) + "</ul>")
        else:
            inline = re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(block, quote=False))
            parts.append(f"<p>{inline.replace(chr(10), '<br>')}</p>")
    return "".join(parts)
