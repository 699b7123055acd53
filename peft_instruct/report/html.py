"""report.html: what a run was and came to, in one file that loads nothing and runs nothing."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from peft_instruct.report.safe_text import safe_text
from peft_instruct.secrets import hide_secrets

PAGE, PREVIEW = "page.html.jinja", "preview.html.jinja"

_ACTIVE_TAGS = frozenset({"script", "foreignObject", "iframe", "object", "embed", "animate", "set", "handler"})


@dataclass(frozen=True)
class Sample:
    """A prompt answered before and after training."""

    prompt: str
    base: str
    tuned: str
    expected: str = ""


@dataclass(frozen=True)
class Proof:
    """A claim about this run, whether it holds, and the figures that show it."""

    claim: str
    holds: bool
    evidence: str


@dataclass(frozen=True)
class ReportContent:
    """Everything that the page shows, as plain text and figures; a part that is empty is said to be empty.

    Attributes:
        summary: (name, value) lines at the top.
        recipe_yaml: the resolved recipe.
        data_notes: what was read, ignored, cut and left out.
        loss_svg: from `loss_plot_svg`; empty where nothing was logged.
        scores: (measure, base, tuned).
        scored_on: which rows the scores are of.
        samples: held-out rows answered.
        on_the_way: (step, prompt, completion) of samples that were taken while training.
        environment: (name, value).
    """

    title: str
    summary: Sequence[tuple[str, str]] = ()
    recipe_yaml: str = ""
    data_notes: Sequence[str] = ()
    loss_svg: str = ""
    scores: Sequence[tuple[str, str, str]] = ()
    scored_on: str = ""
    samples: Sequence[Sample] = ()
    on_the_way: Sequence[tuple[str, str, str]] = ()
    proofs: Sequence[Proof] = ()
    environment: Sequence[tuple[str, str]] = ()


def render_report(content: ReportContent) -> str:
    """The page.

    Raises:
        ValueError: `loss_svg` is not an inert SVG; our own mistake, never the user's.
    """
    return _pages().get_template(PAGE).render(page=content, loss_plot=_inline(content.loss_svg))


@dataclass(frozen=True)
class PreviewContent:
    """Rows as a model sees them.

    Attributes:
        rows: heading, and the pieces of a row as (kind, text, token ids); the kinds are classes of the page.
    """

    title: str
    rows: Sequence[tuple[str, Sequence[tuple[str, str, str]]]]
    notes: Sequence[str] = ()
    shows_ids: bool = False


def render_preview(content: PreviewContent) -> str:
    """The page of `data preview`."""
    return _pages().get_template(PREVIEW).render(page=content)


def _pages() -> Environment:
    return Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_finalize,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _finalize(value: Any) -> Any:
    """Called on every value that the page shows, before it is escaped."""
    return value if isinstance(value, Markup) else safe_text(hide_secrets(str(value)))


def _inline(svg: str) -> Markup:
    """An SVG document as an element of the page, without its XML prologue."""
    if not svg:
        return Markup("")
    try:
        root = ElementTree.fromstring(svg)
    except ElementTree.ParseError as error:
        raise ValueError(f"loss_svg is not XML: {error}") from error
    for element in root.iter():
        tag = element.tag.rpartition("}")[2]
        links = [value for name, value in element.attrib.items() if name.rpartition("}")[2] == "href"]
        handlers = [name for name in element.attrib if name.lower().startswith("on")]
        if tag in _ACTIVE_TAGS or handlers or any(not link.startswith("#") for link in links):
            raise ValueError(f"loss_svg has an active element: {tag} {handlers or links}")
    # Parsed and found inert just above.
    return Markup(re.sub(r"^.*?(?=<svg)", "", svg, count=1, flags=re.DOTALL))
