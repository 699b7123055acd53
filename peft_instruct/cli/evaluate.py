"""`evaluate`."""

from __future__ import annotations

from pathlib import Path

import click

from peft_instruct.cli.options import base_option, device_option, json_option
from peft_instruct.cli.output import say, show


@click.command()
@click.argument("adapter")
@click.option("--data", metavar="SOURCE", help="Rows to measure on.  [default: the recipe's test or validation rows]")
@click.option("--rows", type=click.IntRange(min=0), help="Rows answered for exact match; the loss takes all.")
@click.option("--batch-size", type=click.IntRange(min=1), help="Rows per forward pass.")
@click.option("--base-too/--tuned-only", "untuned", default=True, help="Measure the base beside the tuned model.")
@click.option("--out", type=click.Path(path_type=Path), help="Also write the result as JSON.")
@base_option
@device_option
@json_option
def evaluate(
    adapter: str,
    data: str | None,
    rows: int | None,
    batch_size: int | None,
    untuned: bool,
    out: Path | None,
    base: str | None,
    device: str,
    as_json: bool,
) -> None:
    """Measure ADAPTER on held-out rows, the base beside it.

    Example: peft-instruct evaluate adapters/gpt2-lora --data test.json
    """
    from peft_instruct.commands.evaluate import evaluate as run

    result = run(
        adapter,
        data=data,
        base=base,
        rows=rows,
        batch_size=batch_size,
        device=device,
        untuned=untuned,
        out=out,
        say=say,
    )
    show(result, as_json)
