"""`data ...`: rows before and after they are learned."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import click

from peft_instruct.cli.options import json_option, set_option
from peft_instruct.cli.output import show, show_pieces
from peft_instruct.errors import DatasetError


@click.group()
def data() -> None:
    """Rows: made of exports, looked at, measured, checked, and found again where they were learned badly."""


@data.command("import")
@click.argument("source", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Where the rows go (.jsonl).")
@click.option(
    "--kind",
    metavar="KIND",
    help="slack, discord, zendesk, intercom, mbox, faq-markdown, faq-html or faq-csv.  [default: found out]",
)
@click.option(
    "--rows",
    type=click.Choice(["pairs", "conversations"]),
    default="pairs",
    help="A row per first question and answer, or per whole conversation (`messages`).",
)
@click.option("--mask/--no-mask", default=True, help="Replace personal data and secrets by [EMAIL], [PHONE], …")
@click.option("--dropped", type=click.Path(path_type=Path), help="Where to list what is left out (.jsonl).")
@click.option(
    "--if-exists", type=click.Choice(["refuse", "replace"]), default="refuse", help="What to do with an earlier file."
)
@json_option
def data_import(
    source: Path,
    out: Path,
    kind: str | None,
    rows: str,
    mask: bool,
    dropped: Path | None,
    if_exists: str,
    as_json: bool,
) -> None:
    """Turn SOURCE into rows: an export of Slack, Discord, a help desk or a mail box, or FAQ pages.

    Nothing is sent anywhere. Example: peft-instruct data import slack-export.zip --out slack.jsonl
    """
    from peft_instruct.commands.data_import import data_import as run

    shape: Any = rows
    result = run(source, out=out, kind=kind, shape=shape, masks=mask, dropped=dropped, replaces=if_exists == "replace")
    show(result, as_json)


@data.command("check")
@click.argument("target")
@click.option("--against", multiple=True, metavar="SOURCE", help="Evaluation rows that no training row may be among.")
@click.option("--ignore", multiple=True, metavar="KIND", help="Kinds of problems not to tell; see `data kinds`.")
@click.option("--fix", is_flag=True, help="Write a cleaned copy and a log of every change; the source stays as it is.")
@click.option("--out", type=click.Path(path_type=Path), help="The folder for them.  [default: beside the source]")
@click.option("--all", "shows_all", is_flag=True, help="Name every place, not the first five of each kind.")
@set_option
@json_option
def data_check(
    target: str,
    against: tuple[str, ...],
    ignore: tuple[str, ...],
    fix: bool,
    out: Path | None,
    shows_all: bool,
    overrides: tuple[str, ...],
    as_json: bool,
) -> None:
    """Find what is wrong with the rows of TARGET, a recipe or a file, each at its line.

    Exit 3 if any is an error; 0 with --fix, once the copy without them is written.

    Example: peft-instruct data check faq.json --fix
    """
    from peft_instruct.commands.data_check import data_check as run

    result = run(target, overrides, against=against, ignore=ignore, fix=fix, out=out, shows_all=shows_all)
    show(result, as_json)
    if result.has_errors and not fix:
        raise DatasetError("data check: there are errors. Mend them, or use the copy that --fix writes.")


@data.command("kinds")
@json_option
def data_kinds(as_json: bool) -> None:
    """List every kind of problem that `data check` finds."""
    from peft_instruct.commands.data_kinds import data_kinds as run

    show(run(), as_json)


@data.command("worst")
@click.argument("adapter")
@click.option("--rows", type=click.IntRange(min=1), default=10, help="Most rows shown of each list.")
@json_option
def data_worst(adapter: str, rows: int, as_json: bool) -> None:
    """List the training rows of ADAPTER that look mislabelled, that got worse, or that were never learned.

    ADAPTER was trained with --ledger. Example: peft-instruct data worst adapters/gpt2-lora
    """
    from peft_instruct.commands.data_worst import data_worst as run

    show(run(adapter, num_shown=rows), as_json)


@data.command("preview")
@click.argument("target")
@click.option("--rows", type=click.IntRange(min=1), default=3, help="How many training rows.")
@click.option("--line", type=click.IntRange(min=1), help="The row that begins at this line instead.")
@click.option("--ids", is_flag=True, help="Show the token ids too.")
@click.option("--plain", is_flag=True, help="Brackets instead of colours, as in logs.")
@click.option("--html", type=click.Path(path_type=Path), help="Also write the rows as a page.")
@set_option
@json_option
def data_preview(
    target: str,
    rows: int,
    line: int | None,
    ids: bool,
    plain: bool,
    html: Path | None,
    overrides: tuple[str, ...],
    as_json: bool,
) -> None:
    """Show rows of TARGET, a recipe or a file, exactly as the model sees them: what is learned stands out.

    A file alone is tokenised as the starter does; --set model.base=gpt2 names another.
    Example: peft-instruct data preview gpt2_lora --rows 2
    """
    from peft_instruct.commands.data_preview import data_preview as run

    result = run(target, overrides, num_rows=rows, line=line, html=html, shows_ids=ids)
    if sys.stdout.isatty() and not (plain or as_json or os.environ.get("NO_COLOR")):
        show_pieces(result)
    else:
        show(result, as_json)


@data.command("stats")
@click.argument("target")
@click.option("--svg", type=click.Path(path_type=Path), help="Also write the histogram of lengths.")
@set_option
@json_option
def data_stats(target: str, svg: Path | None, overrides: tuple[str, ...], as_json: bool) -> None:
    """Measure the rows of TARGET, a recipe or a file: lengths, what max_length cuts, fill of batches, scripts.

    Example: peft-instruct data stats gpt2_lora --set data.max_length=256
    """
    from peft_instruct.commands.data_stats import data_stats as run

    show(run(target, overrides, svg=svg), as_json)
