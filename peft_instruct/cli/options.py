"""Options that several commands take."""

from __future__ import annotations

import click

json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of text.")
set_option = click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a recipe key, e.g. training.max_steps=30."
)
base_option = click.option("--base", metavar="BASE", help="The adapter's base, where it has moved: a folder or hub id.")
device_option = click.option(
    "--device", type=click.Choice(["auto", "cpu", "cuda", "mps"]), default="auto", help="Where to run."
)


def several(_: click.Context, parameter: click.Parameter, value: str | None) -> list[str] | None:
    """`a,b` as two values."""
    return None if value is None else [word.strip() for word in value.split(",") if word.strip()]


def several_numbers(context: click.Context, parameter: click.Parameter, value: str | None) -> list[int] | None:
    words = several(context, parameter, value)
    if words is not None and not all(word.isdecimal() and int(word) > 0 for word in words):
        raise click.BadParameter(f"{value!r}: expected whole numbers from 1, separated by commas.", context, parameter)
    return None if words is None else [int(word) for word in words]
