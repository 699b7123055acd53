"""`train`."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from peft_instruct.cli.options import json_option, set_option
from peft_instruct.cli.output import Progress, show
from peft_instruct.errors import RecipeError


@click.command()
@click.argument("recipe")
@set_option
@click.option("--out", type=click.Path(path_type=Path), help="The adapter folder.  [default: adapters/<name>]")
@click.option(
    "--if-exists",
    type=click.Choice(["refuse", "replace"]),
    default="refuse",
    help="What to do with a finished adapter.",
)
@click.option(
    "--resume",
    metavar="auto|none|PATH",
    default="auto",
    help="Go on with an unfinished run, start anew, or go on from a checkpoint.",
)
@click.option("--resume-allow-changes", is_flag=True, help="Go on although the recipe or the data have changed.")
@click.option("--ledger", is_flag=True, help="Keep the loss of each training row; `data worst` reads it.")
@click.option("--dry-run", "is_dry", is_flag=True, help="Check everything and predict memory and time; train nothing.")
@json_option
def train(
    recipe: str,
    overrides: tuple[str, ...],
    out: Path | None,
    if_exists: str,
    resume: str,
    resume_allow_changes: bool,
    ledger: bool,
    is_dry: bool,
    as_json: bool,
) -> None:
    """Train what RECIPE says, a file or a shipped recipe's name.

    Example: peft-instruct train recipes/gpt2_lora.yaml --set training.max_steps=30
    """
    overrides = (*overrides, "training.ledger=true") if ledger else overrides
    progress = Progress()
    if is_dry:
        if resume != "auto" or resume_allow_changes:
            raise RecipeError("train: --dry-run looks at a whole run, from its first step. Leave --resume away.")
        from peft_instruct.commands.dry_run import dry_run

        show(dry_run(recipe, overrides, out=out, if_exists=if_exists, say=progress.say), as_json)
        return
    from peft_instruct.commands.train import train as run

    live = progress.live if sys.stderr.isatty() and not as_json else None
    result = run(
        recipe,
        overrides,
        out=out,
        if_exists=if_exists,
        resume=resume,
        allow_changes=resume_allow_changes,
        say=progress.say,
        live=live,
    )
    show(result, as_json)
