"""FAQ pages in Markdown: headings, bold questions, `Q:` and `A:`, <details>. Answers keep their Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise

from peft_instruct.data.importers.blocks import Block, spelled_out
from peft_instruct.data.importers.export import Export
from peft_instruct.data.importers.faq_html import read_pages
from peft_instruct.data.importers.html_text import html_to_blocks
from peft_instruct.data.importers.types import Found

_FRONT_MATTER = re.compile(r"---\n.*?\n---\n", re.DOTALL)


def read(export: Export, names: tuple[str, ...]) -> Iterator[Found]:
    """One conversation of two messages per question."""
    return read_pages(export, names, _blocks)


def _blocks(page: str) -> Iterator[Block]:
    from markdown_it import MarkdownIt

    front = _FRONT_MATTER.match(page)
    if front:
        # As many empty lines in its place, so that every line keeps its number.
        page = "\n" * front[0].count("\n") + page[front.end() :]
    lines = page.split("\n")
    tokens = MarkdownIt("commonmark").parse(page)
    for token, after in pairwise([*tokens, None]):
        assert token is not None  # only the last one is, which is no first of a pair
        if token.level or token.map is None or token.type == "hr":
            continue
        first, last = token.map
        source = "\n".join(lines[first:last]).strip("\n")
        if token.type == "heading_open":
            yield Block(int(token.tag[1]), _plain(after), first + 1)
        elif token.type == "html_block":
            yield from (
                Block(block.level, block.text, first + block.line, block.is_item) for block in html_to_blocks(source)
            )
        elif token.type == "paragraph_open":
            yield from spelled_out(Block(0, source, first + 1))
        elif source:
            yield Block(0, source, first + 1)


def _plain(inline: object) -> str:
    """The text of a heading without its links and emphasis; code keeps its backticks."""
    pieces = []
    for child in getattr(inline, "children", None) or []:
        pieces.append(f"`{child.content}`" if child.type == "code_inline" else child.content)
    # `{#anchor}` is the usual extension for the heading's address.
    return re.sub(r"\s*\{#[\w-]+\}$", "", "".join(pieces)).strip()
