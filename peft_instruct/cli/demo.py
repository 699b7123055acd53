"""`demo`."""

from __future__ import annotations

import threading

import click

from peft_instruct.cli.options import base_option, device_option, json_option
from peft_instruct.cli.output import say, show
from peft_instruct.errors import Stopped


@click.command()
@click.argument("adapter")
@click.option("--compare", is_flag=True, help="The base answers beside the tuned model.")
@click.option("--port", type=click.IntRange(1, 65535), help="Where to listen.  [default: the first free one from 7860]")
@base_option
@device_option
@json_option
def demo(adapter: str, compare: bool, port: int | None, base: str | None, device: str, as_json: bool) -> None:
    """Ask an adapter or a merged model on a page in the browser, on this machine alone.

    Needs gradio, which the extra `demo` installs.

    Example: peft-instruct demo adapters/gpt2-lora --compare
    """
    from peft_instruct.commands.demo import demo as run

    with run(adapter, compare=compare, base=base, port=port, device=device, say=say) as result:
        show(result, as_json)
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            raise Stopped("the page is closed", 130) from None
