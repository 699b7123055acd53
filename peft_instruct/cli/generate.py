"""`generate`."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from peft_instruct.cli.options import base_option, device_option, json_option
from peft_instruct.cli.output import say, show, stream


@click.command()
@click.argument("adapter")
@click.argument("instruction", required=False)
@click.option("--input", "input_text", default="", show_default=False, help="The input that goes with the instruction.")
@click.option("--file", type=click.Path(path_type=Path), help="Rows to answer: .json, .jsonl, .csv, .tsv, .parquet.")
@click.option("--out", type=click.Path(path_type=Path), help="Where the answers to --file go (JSON Lines).")
@click.option("--compare", is_flag=True, help="Show the base's answer next to the tuned one.")
@click.option("--max-new-tokens", type=click.IntRange(min=1), help="Longest answer in tokens.")
@click.option("--temperature", type=click.FloatRange(min=0), help="0 is greedy.")
@click.option(
    "--top-p", type=click.FloatRange(min=0, max=1, min_open=True), help="Sample from this share of probability."
)
@click.option("--top-k", type=click.IntRange(min=0), help="Sample from this many tokens; 0 keeps all.")
@click.option("--repetition-penalty", type=click.FloatRange(min=0, min_open=True), help="Above 1 avoids repetition.")
@click.option("--seed", type=click.IntRange(min=0), help="Seed of the sampling.  [default: a new one each time]")
@click.option("--batch-size", type=click.IntRange(min=1), help="Rows of --file at once.  [default: as many as fit]")
@base_option
@device_option
@json_option
def generate(
    adapter: str,
    instruction: str | None,
    input_text: str,
    file: Path | None,
    out: Path | None,
    compare: bool,
    max_new_tokens: int | None,
    temperature: float | None,
    top_p: float | None,
    top_k: int | None,
    repetition_penalty: float | None,
    seed: int | None,
    batch_size: int | None,
    base: str | None,
    device: str,
    as_json: bool,
) -> None:
    """Answer INSTRUCTION (or the rows of --file) with an adapter or a merged model.

    Example: peft-instruct generate adapters/gpt2-lora "Name three primary colours."
    """
    from peft_instruct.commands.generate import generate as run

    result = run(
        adapter,
        instruction,
        input=input_text,
        file=file,
        out=out,
        compare=compare,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        top_p=top_p,
        top_k=top_k,
        repetition_penalty=repetition_penalty,
        seed=seed,
        batch_size=batch_size,
        base=base,
        device=device,
        stream=stream if sys.stdout and sys.stdout.isatty() and not as_json else None,
        say=say,
    )
    show(result, as_json)
