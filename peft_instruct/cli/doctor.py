"""`doctor`."""

from __future__ import annotations

import click

from peft_instruct.cli.options import json_option
from peft_instruct.cli.output import show


@click.command()
@click.option("--hub", "check_hub", is_flag=True, help="Also ask whether the hub answers.")
@json_option
def doctor(check_hub: bool, as_json: bool) -> None:
    """Say what is installed and what this machine can do, and what is wrong."""
    from peft_instruct.commands.doctor import doctor as run

    show(run(check_hub=check_hub), as_json)
