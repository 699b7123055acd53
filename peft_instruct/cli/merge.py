"""`merge`."""

from __future__ import annotations

from pathlib import Path

import click

from peft_instruct.cli.options import base_option, json_option
from peft_instruct.cli.output import say, show


@click.command()
@click.argument("adapter")
@click.option("--out", type=click.Path(path_type=Path), help="The new folder.  [default: <adapter>-merged]")
@click.option(
    "--dtype", type=click.Choice(["fp32", "bf16", "fp16"]), default="fp32", help="Type of the written weights."
)
@base_option
@json_option
def merge(adapter: str, out: Path | None, dtype: str, base: str | None, as_json: bool) -> None:
    """Merge ADAPTER into its base: one standalone model, proven equal to base + adapter.

    Example: peft-instruct merge adapters/gpt2-lora
    """
    from peft_instruct.commands.merge import merge as run

    show(run(adapter, out=out, dtype=dtype, base=base, say=say), as_json)
