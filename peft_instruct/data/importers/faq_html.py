"""FAQ pages in HTML: headings, <dl>, <details>, accordions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from peft_instruct.data.importers.blocks import Block, questions, spelled_out
from peft_instruct.data.importers.export import Export
from peft_instruct.data.importers.html_text import html_to_blocks
from peft_instruct.data.importers.types import Broken, Found

MAX_PAGE_BYTES = 8 * 2**20
"""Parsers of pages are not linear on hostile input; no FAQ is this long."""


def read(export: Export, names: tuple[str, ...]) -> Iterator[Found]:
    """One conversation of two messages per question."""
    return read_pages(export, names, _blocks)


def read_pages(export: Export, names: tuple[str, ...], blocks_of: Callable[[str], Iterable[Block]]) -> Iterator[Found]:
    """The questions of pages in any markup, once it is known what their blocks are."""
    for name in names:
        page = export.text(name)
        if isinstance(page, Broken):
            yield page
        elif len(page) > MAX_PAGE_BYTES:
            size = f"{len(page) / 2**20:.0f} million characters"
            yield Broken(name, f"{size}. expected at most {MAX_PAGE_BYTES >> 20}")
        else:
            yield from questions(name, list(blocks_of(page)))


def _blocks(page: str) -> Iterator[Block]:
    for block in html_to_blocks(page):
        yield from [block] if block.level else spelled_out(block)
