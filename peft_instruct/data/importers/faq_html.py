"""FAQ pages in HTML: headings, <dl>, <details>, accordions."""

from __future__ import annotations

from collections.abc import Iterator

from peft_instruct.data.importers.blocks import questions, spelled_out
from peft_instruct.data.importers.export import Export
from peft_instruct.data.importers.html_text import html_to_blocks
from peft_instruct.data.importers.types import Broken, Found

MAX_PAGE_BYTES = 8 * 2**20
"""Parsers of pages are not linear on hostile input; no FAQ is this long."""


def page_of(export: Export, name: str) -> str | Broken:
    """The text of a page, or why it is none."""
    content = export.text(name)
    if isinstance(content, str) and len(content) > MAX_PAGE_BYTES:
        return Broken(name, f"{len(content) / 2**20:.0f} million characters. expected at most {MAX_PAGE_BYTES >> 20}")
    return content


def read(export: Export, names: tuple[str, ...]) -> Iterator[Found]:
    """One conversation of two messages per question."""
    for name in names:
        page = page_of(export, name)
        if isinstance(page, Broken):
            yield page
        else:
            blocks = [
                part for block in html_to_blocks(page) for part in (spelled_out(block) if not block.level else [block])
            ]
            yield from questions(name, blocks)
