"""The page shows everything it is given as text, loads nothing and runs nothing."""

from __future__ import annotations

from dataclasses import replace
from html.parser import HTMLParser

import pytest

from peft_instruct.report.html import Proof, ReportContent, Sample, render_report
from peft_instruct.report.plots import loss_plot_svg

HOSTILE = "<script>alert(1)</script> \x1b[31m \u202e \" onload='x' &amp; </pre>"
SHOWN = r"<script>alert(1)</script> \x1b[31m \u202e "

FULL = ReportContent(
    title=HOSTILE,
    summary=[("base", HOSTILE)],
    recipe_yaml=HOSTILE,
    data_notes=[HOSTILE],
    loss_svg=loss_plot_svg([{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.0}]),
    scores=[("exact match", "0.02", HOSTILE)],
    scored_on=HOSTILE,
    samples=[Sample(prompt=HOSTILE, base=HOSTILE, tuned=HOSTILE, expected=HOSTILE)],
    on_the_way=[(HOSTILE, HOSTILE, HOSTILE)],
    proofs=[Proof(HOSTILE, True, HOSTILE), Proof("merge", False, "off by 1")],
    environment=[("torch", HOSTILE)],
)


class Page(HTMLParser):
    """Tags, attributes and text of a page, as a browser would come to see them."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.text += data


def test_markup_and_terminal_escapes_in_any_part_come_out_as_text() -> None:
    html = render_report(FULL)
    page = Page(html)
    # Title twice, and once each in fifteen other places.
    assert page.text.count(SHOWN) == 17
    assert "script" not in page.tags
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    assert "\x1b" not in html and "\u202e" not in html


def test_the_page_needs_nothing_from_elsewhere_and_forbids_it() -> None:
    page = Page(render_report(FULL))
    policies = [value for name, value in page.attributes if name == "content" and "default-src" in str(value)]
    assert policies and policies[0].startswith("default-src 'none'; style-src 'unsafe-inline'; img-src data:")
    links = [value for name, value in page.attributes if name in ("src", "href", "xlink:href")]
    assert all(str(link).startswith("#") for link in links)
    assert not {"script", "link", "iframe", "img", "form", "object"} & set(page.tags)


def test_the_loss_plot_stands_in_the_page_without_an_xml_prologue() -> None:
    html = render_report(FULL)
    assert html.count("<svg") == 1
    assert "<?xml" not in html and "<!DOCTYPE svg" not in html


def test_a_failed_proof_is_told_apart_from_one_that_holds() -> None:
    page = Page(render_report(FULL))
    verdicts = [value for name, value in page.attributes if name == "class" and value in ("holds", "fails")]
    assert verdicts == ["holds", "fails"]
    assert page.text.count("FAILS") == 1


def test_an_empty_part_is_said_to_be_empty() -> None:
    text = Page(render_report(ReportContent(title="x"))).text
    for sentence in (
        "Not measured in this run.",
        "Not logged in this run.",
        "No held-out row was answered",
        "None were made",
    ):
        assert sentence in text


def test_the_same_content_gives_the_same_page() -> None:
    assert render_report(FULL) == render_report(FULL)


@pytest.mark.parametrize(
    "svg",
    [
        '<svg xmlns="http://www.w3.org/2000/svg"><script>x</script></svg>',
        '<svg xmlns="http://www.w3.org/2000/svg" onload="x"/>',
        '<svg xmlns="http://www.w3.org/2000/svg"><foreignObject/></svg>',
        '<svg xmlns="http://www.w3.org/2000/svg"><a href="https://example.org/"/></svg>',
        "<svg",
    ],
)
def test_an_svg_that_could_act_is_refused(svg: str) -> None:
    with pytest.raises(ValueError, match="loss_svg"):
        render_report(replace(FULL, loss_svg=svg))
