"""HTML -> blocks of text. Scripts, styles and navigation are left out; nothing is rendered or fetched."""

from __future__ import annotations

import re
from html.parser import HTMLParser

from peft_instruct.data.formats import QUESTION_MARKS
from peft_instruct.data.importers.blocks import MARKED, Block, joined

_SKIPPED = frozenset({"script", "style", "template", "noscript", "svg", "math", "nav", "footer", "aside", "iframe",
                      "object", "select", "textarea", "title", "canvas", "audio", "video"})  # fmt: skip
_BREAKING = frozenset({"address", "article", "blockquote", "body", "button", "dd", "details", "div", "dl", "dt",
                       "fieldset", "figure", "form", "h1", "h2", "h3", "h4", "h5", "h6", "header", "hr", "li", "main",
                       "ol", "p", "pre", "section", "summary", "table", "tbody", "thead", "tr", "ul"})  # fmt: skip
_LEVELS = {**{f"h{level}": level for level in range(1, 7)}, "dt": MARKED, "summary": MARKED}


def html_to_blocks(page: str) -> list[Block]:
    """The text of a page block by block, in its order; lists as `- `, code in fences, quotes behind `> `."""
    reader = _Reader()
    reader.feed(_STRAY.sub("&lt;", _without_comments(page)))
    reader.close()
    reader.flush()
    return reader.blocks


def html_to_text(fragment: str) -> str:
    """The text of a message in HTML; text without markup comes out as it is."""
    if "<" not in fragment and "&" not in fragment:
        return fragment
    return joined(html_to_blocks(fragment))


# The standard library's parser takes time in the square of what is never closed (Python 3.11, html.parser); so a `<`
# with no `>` before the next `<` is text, and comments are cut out beforehand.
_STRAY = re.compile(r"<(?=[^<>]*(?:<|\Z))")


def _without_comments(page: str) -> str:
    """The page without comments, their line ends kept; one that is never closed goes to the end."""
    first, *others = page.split("<!--")
    kept = [first]
    for piece in others:
        # Inside a comment another `<!--` says nothing, and then this piece has no `-->`.
        comment, _, rest = piece.partition("-->")
        kept.append("\n" * comment.count("\n") + rest)
    return "".join(kept)


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.blocks: list[Block] = []
        self.pieces: list[str] = []
        self.open: list[str] = []  # tags that matter to what is inside them
        self.skipped = 0
        self.lists: list[int] = []  # 0 for a bullet list, else the next number
        self.marker = ""
        self.line = 1
        self.bold = 0
        self.has_bold = self.has_plain = False  # of what is gathered

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in _SKIPPED:
            self.skipped += 1
        if self.skipped:
            return
        if tag in _BREAKING:
            self.flush()
            if tag in ("dt", "dd"):
                # Neither needs to be closed in HTML: the next one closes it.
                self.open = [other for other in self.open if other not in ("dt", "dd")]
            self.open.append(tag)
        if tag in ("ul", "ol"):
            self.lists.append(1 if tag == "ol" else 0)
        elif tag == "li":
            self._begin_item()
        elif tag == "br":
            self._break_line()
        elif tag in ("strong", "b"):
            self.bold += 1
        elif tag == "code" and "pre" not in self.open:
            self.pieces.append("`")

    def handle_endtag(self, tag: str) -> None:
        if tag in _SKIPPED:
            self.skipped = max(0, self.skipped - 1)
        if self.skipped:
            return
        if tag in _BREAKING:
            self.flush()
            if tag in self.open:
                # Whatever was left open inside it ends with it.
                del self.open[len(self.open) - 1 - self.open[::-1].index(tag) :]
        if tag in ("ul", "ol") and self.lists:
            self.lists.pop()
        elif tag in ("strong", "b"):
            self.bold = max(0, self.bold - 1)
        elif tag in ("td", "th"):
            self.pieces.append(" | ")
        elif tag == "code" and "pre" not in self.open:
            self.pieces.append("`")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "br" and not self.skipped:
            self._break_line()

    def _break_line(self) -> None:
        if self._is_bold_question("".join(self.pieces)):
            self.flush()
        else:
            self.pieces.append("\n")

    def _is_bold_question(self, text: str) -> bool:
        """A line of its own, bold as a whole, as pages without headings mark their questions."""
        is_plain = not (self.lists or "blockquote" in self.open or "pre" in self.open)
        return is_plain and self.has_bold and not self.has_plain and text.rstrip().endswith(QUESTION_MARKS)

    def handle_data(self, data: str) -> None:
        if not self.skipped:
            if not self.pieces:
                self.line = self.getpos()[0]
            if data.strip():
                self.has_bold, self.has_plain = self.has_bold or self.bold > 0, self.has_plain or not self.bold
            self.pieces.append(data if "pre" in self.open else re.sub(r"\s+", " ", data))

    def flush(self) -> None:
        """What has been gathered becomes a block."""
        text = "".join(self.pieces)
        is_bold_question = self._is_bold_question(text)
        self.pieces, self.has_bold, self.has_plain = [], False, False
        if not text.strip():
            return
        if "pre" in self.open:
            text = "```\n" + text.strip("\n") + "\n```"
        else:
            text = re.sub(r"[ \t]*\n[ \t]*", "\n", text.replace("\xa0", " ")).strip().removesuffix("|").rstrip()
        level = next((_LEVELS[tag] for tag in self.open if tag in _LEVELS), MARKED if is_bold_question else 0)
        if "button" in self.open and not level:
            # An accordion's question; other buttons say `Copy`.
            if not text.endswith(QUESTION_MARKS):
                return
            level = MARKED
        if "blockquote" in self.open:
            text = "> " + text.replace("\n", "\n> ")
        is_item = bool(self.lists) and not level
        if is_item:
            indent = "  " * (len(self.lists) - 1)
            text = indent + (self.marker or "  ") + text.replace("\n", "\n  " + indent)
            self.marker = ""
        self.blocks.append(Block(level, text, self.line, is_item))

    def _begin_item(self) -> None:
        number = self.lists[-1] if self.lists else 0
        self.marker = f"{number}. " if number else "- "
        if number:
            self.lists[-1] = number + 1
