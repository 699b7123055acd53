"""The command line: options in, a command's result out. The only place that imports click or prints an error.

stdout is the result (with --json exactly one document), stderr is progress and errors.
"""

from peft_instruct.cli.entry import cli, main

__all__ = ["cli", "main"]
