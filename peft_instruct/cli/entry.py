"""The group of all commands, loaded one by one, and the one place where an error leaves the program."""

from __future__ import annotations

import sys
from collections import UserDict
from importlib import import_module
from io import StringIO, TextIOWrapper
from typing import Any, NoReturn

import click

from peft_instruct import __version__
from peft_instruct.cli.output import Progress, shown
from peft_instruct.environment import keep_freed_memory
from peft_instruct.errors import PeftInstructError, Stopped, first_line, is_out_of_memory

INTERRUPTED = 130

COMMANDS = ("bench", "data", "demo", "doctor", "evaluate", "generate", "merge", "recipe", "train")
"""The command NAME is the object `NAME` of `peft_instruct/cli/NAME.py`."""


class Lazy(UserDict[str, Any]):
    """The commands by name; the file of one is imported when it is asked for."""

    def __getitem__(self, name: str) -> click.Command:
        if name not in self:
            raise KeyError(name)
        command: click.Command = getattr(import_module(f"peft_instruct.cli.{name}"), name)
        return command


@click.group(
    commands=Lazy.fromkeys(COMMANDS),
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100, "show_default": True},
)
@click.version_option(__version__, prog_name="peft-instruct")
def cli() -> None:
    """Instruction-tune GPT-2-class models, fully or through LoRA adapters, with proof that it worked.

    Start with: peft-instruct train quickstart_lora
    """


def main() -> None:
    """Run the command line; every error of a user is one message on stderr and its exit code."""
    keep_freed_memory()
    # What a pipe or a terminal has no bytes for is escaped, as Python does on stderr alone.
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        cli.main(standalone_mode=False)
    except click.exceptions.Abort:
        _leave("interrupted", INTERRUPTED)
    except click.ClickException as error:
        told = StringIO()
        error.show(file=told)
        click.echo(shown(told.getvalue()), err=True, nl=False)
        sys.exit(error.exit_code)
    except click.exceptions.Exit as done:
        sys.exit(done.exit_code)
    except PeftInstructError as error:
        _leave(str(error), error.exit_code)
    except Stopped as stopped:
        Progress().say(str(stopped))
        sys.exit(stopped.exit_code)
    except KeyboardInterrupt:
        _leave("interrupted", INTERRUPTED)
    except BrokenPipeError:
        sys.exit(0)
    except OSError as error:
        _leave(f"{error.filename or 'a file'}: {error.strerror or error}. Check the place and its free space.", 1)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        _leave(
            f"out of memory ({first_line(error)}). Lower training.batch_size and raise accumulation, "
            "lower data.max_length, or set training.gradient_checkpointing: true (--batch-size elsewhere).",
            1,
        )


def _leave(message: str, code: int) -> NoReturn:
    click.echo(f"error: {shown(message)}", err=True)
    sys.exit(code)
