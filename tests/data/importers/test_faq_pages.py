"""FAQ pages in Markdown, HTML and CSV, and the pairs they hold."""

from __future__ import annotations

from pathlib import Path

import pytest

from peft_instruct.data.importers.run import Imported, import_export
from peft_instruct.errors import DatasetError

MARKDOWN = """\
---
title: Help
---

# Frequently asked questions

Welcome to our help page.

## Installing

### How do I install it?

With `pip`:

```bash
pip install it
# is this a heading? no
```

1. Wait
2. Enjoy 🎉

#### On Windows

Use WSL.

### Installing without a network

Copy the wheels.

### Is `sudo` needed? {#sudo}

No, see [the manual](https://example.org/m).

### Is this question answered?

## Paying

**¿Puedo pagar con tarjeta?**

Sí.

Q: Do you refund?
A: Within 30 days,
no questions asked.

Frage: Gibt es Rabatt?

Antwort: Ja.

<details>
<summary>Where are you?</summary>

In Örebro.

</details>
"""
MARKDOWN_PAIRS = [
    (
        "How do I install it?",
        "With `pip`:\n\n```bash\npip install it\n# is this a heading? no\n```\n\n1. Wait\n2. Enjoy 🎉\n\n"
        "#### On Windows\n\nUse WSL.",
        ["line 11", "line 13"],
    ),
    ("Installing without a network", "Copy the wheels.", ["line 27", "line 29"]),
    ("Is `sudo` needed?", "No, see [the manual](https://example.org/m).", ["line 31", "line 33"]),
    ("¿Puedo pagar con tarjeta?", "Sí.", ["line 39", "line 41"]),
    ("Do you refund?", "Within 30 days,\nno questions asked.", ["line 43", "line 44"]),
    ("Gibt es Rabatt?", "Ja.", ["line 47", "line 49"]),
    ("Where are you?", "In Örebro.", ["line 52", "line 54"]),
]

HTML = """\
<!doctype html><html><head><title>FAQ?</title><style>p{color:red}</style></head>
<body><nav><a href="/">Home?</a></nav>
<h1>FAQ</h1>
<h2>How do I&nbsp;pay?</h2>
<p>By <b>card</b> or <code>SEPA</code>:<br>both work.</p>
<script>document.write("<h2>Hacked?</h2>")</script>
<ul><li>Visa<li>Amex <ul><li>Gold</ul></ul>
<h2><button type="button">May I cancel?</button></h2>
<div hidden><p>Yes &amp; no:</p><pre><code>cancel --now
  # really</code></pre><button>Copy</button></div>
<dl><dt>Was kostet das?<dd>9,90 €<dt>Et en Suisse ?</dt><dd>9.90 CHF</dd></dl>
<details><summary>何時ですか？</summary>正午です。</details>
<table><tr><th>Plan</th><th>Price</th></tr></table>
<button class="accordion">Is it safe?</button><div><p>Yes.</p></div>
<footer>© us</footer></body></html>
"""
HTML_PAIRS = [
    ("How do I pay?", "By card or `SEPA`:\nboth work.\n\n- Visa\n- Amex\n  - Gold"),
    ("May I cancel?", "Yes & no:\n\n```\ncancel --now\n  # really\n```"),
    ("Was kostet das?", "9,90 €"),
    ("Et en Suisse ?", "9.90 CHF"),
    ("何時ですか？", "正午です。\n\nPlan | Price"),
    ("Is it safe?", "Yes."),
]


def _imported(path: Path, text: str) -> Imported:
    path.write_text(text, encoding="utf-8")
    return import_export(path)


def _pairs(imported: Imported) -> list[tuple[str, str]]:
    return [(row["instruction"], row["output"]) for row in imported.rows]


def test_markdown(tmp_path: Path) -> None:
    imported = _imported(tmp_path / "faq.md", MARKDOWN)
    found = [(row["instruction"], row["output"], row["provenance"]["ids"]) for row in imported.rows]
    assert found == MARKDOWN_PAIRS
    assert imported.kind == "faq-markdown"
    assert [(item.id, item.reason) for item in imported.dropped] == [
        ("line 5", "outside of any question"),
        ("line 7", "outside of any question"),
        ("line 9", "outside of any question"),
        ("line 35", "a heading or question without an answer"),
        ("line 37", "outside of any question"),
    ]


def test_headings_that_ask_nothing_are_taken_where_none_does(tmp_path: Path) -> None:
    assert _pairs(
        _imported(tmp_path / "faq.md", "# Help\n\nhi\n\n## Paying\n\nBy card.\n\n## Leaving\n\nAny time.\n")
    ) == [
        ("Paying", "By card."),
        ("Leaving", "Any time."),
    ]


def test_an_abbreviation_is_neither_question_nor_answer(tmp_path: Path) -> None:
    answer = "Write to us.\n\nP.O. Box 12, Bonn.\n\nA. Smith helps.\n\nR.S.V.P. by Friday."
    page = f"# Help\n\n## Writing to us\n\n{answer}\n\n## Q2. Paying?\n\nA1. By card.\n\n## Leaving\n\nBy the door.\n"
    (tmp_path / "faq.md").write_text(page)
    rows = import_export(tmp_path / "faq.md").rows
    assert [row["output"] for row in rows] == [answer, "By card.", "By the door."]


def test_html(tmp_path: Path) -> None:
    imported = _imported(tmp_path / "faq.html", HTML)
    assert _pairs(imported) == HTML_PAIRS
    assert imported.kind == "faq-html"


@pytest.mark.parametrize(
    "text",
    [
        'Question,Answer\nHow?,"So, and\nso"\nWhy?,Because\n',
        'id;Antwort;Frage\n1;"So, and\nso";How?\n2;Because;Why?\n',
        'q\ta\nHow?\t"So, and\nso"\nWhy?\tBecause\n',
        'left,right\nHow?,"So, and\nso"\nWhy?,Because\n,\n',
    ],
)
def test_csv_by_names_or_by_its_two_columns(tmp_path: Path, text: str) -> None:
    assert _pairs(_imported(tmp_path / "faq.csv", text)) == [("How?", "So, and\nso"), ("Why?", "Because")]


def test_csv_problems_are_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"(?s)2 problems.*faq.csv:2: 1 fields.*faq.csv:4: 3 fields"):
        _imported(tmp_path / "faq.csv", "question,answer\nalone\nq,a\na,b,c\n")


def test_a_page_without_questions_is_told(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"no question with an answer in it, read as faq-html .*1 outside of any"):
        _imported(tmp_path / "faq.html", "<p>hello</p>")


@pytest.mark.parametrize(
    "text",
    ["How is it?,Good.\nWhy so?,Because.\n", "Solution,Question\nGood.,How is it?\nBecause.,Why so?\n",
     "Antwort,Was man fragt\nGood.,How is it?\nBecause.,Why so?\n"],
    ids=["no names", "one name, behind", "one name, before"],
)  # fmt: skip
def test_a_csv_with_one_name_or_none_loses_no_line_and_swaps_nothing(tmp_path: Path, text: str) -> None:
    assert _pairs(_imported(tmp_path / "faq.csv", text)) == [("How is it?", "Good."), ("Why so?", "Because.")]


def test_a_table_without_names_loses_no_line(tmp_path: Path) -> None:
    path = tmp_path / "faq.csv"
    path.write_text("How do I reset it,Press the button.\nHow do I turn it off,Pull the plug.\n")
    rows = import_export(path).rows
    assert [row["instruction"] for row in rows] == ["How do I reset it", "How do I turn it off"]
    path.write_text("Topic,What we say\nReset,Press the button.\n")
    imported = import_export(path)
    assert [row["instruction"] for row in imported.rows] == ["Reset"]
    assert [(each.id, each.reason) for each in imported.dropped] == [("line 1", "taken as the names of columns")]


@pytest.mark.parametrize(
    ("name", "page"),
    [
        (
            "a.html",
            "<h1>FAQ</h1><p><strong>May I share it?</strong></p><p>No.</p><p><b>Is there an app?</b><br>Yes.</p>",
        ),
        (
            "a.html",
            "<h1>FAQ</h1><div><b>May I <i>share</i> it?</b></div>No.<p><strong>Is there an app?</strong></p>Yes.",
        ),
        ("a.md", "# FAQ\n\n**May I share it?**\nNo.\n\n**Is there an app?**\n\nYes.\n"),
    ],
)
def test_bold_questions_of_a_page_without_headings(name: str, page: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(page)
    rows = import_export(tmp_path / name).rows
    assert [(row["instruction"], row["output"]) for row in rows] == [
        ("May I share it?", "No."),
        ("Is there an app?", "Yes."),
    ]


def test_what_is_bold_within_an_answer_is_no_question(tmp_path: Path) -> None:
    page = (
        "<h2>Is it on?</h2><p>Yes. <b>Still not?</b> Call.</p><ul><li><b>Why?</b></li></ul>"
        "<blockquote><b>Who?</b></blockquote>"
    )
    (tmp_path / "a.html").write_text(page)
    (row,) = import_export(tmp_path / "a.html").rows
    assert row["output"] == "Yes. Still not? Call.\n\n- Why?\n\n> Who?"


@pytest.mark.parametrize("page", ["", "\n \n", "---\ntitle: x\n---\n"])
def test_a_page_of_nothing_is_told(page: str, tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text(page)
    with pytest.raises(DatasetError):
        import_export(tmp_path / "a.md")
