"""The command line: options in, a command's result out. The only place that imports click or prints an error.

stdout is the result (with --json exactly one document), stderr is progress and errors.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any, NoReturn, Protocol

import click

from peft_instruct import __version__
from peft_instruct.errors import PeftInstructError, UnavailableError
from peft_instruct.report.safe_text import safe_text

INTERRUPTED = 130
OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")
"""As CUDA and MPS, the CPU's allocator, and Windows say it (torch 2.13)."""


class Result(Protocol):
    """What every command returns."""

    def record(self) -> dict[str, Any]: ...
    def text(self) -> str: ...


def main() -> None:
    """Run the command line; every error of a user is one message on stderr and its exit code."""
    try:
        cli.main(standalone_mode=False)
    except click.exceptions.Abort:
        _leave("interrupted", INTERRUPTED)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except click.exceptions.Exit as done:
        sys.exit(done.exit_code)
    except PeftInstructError as error:
        _leave(str(error), error.exit_code)
    except KeyboardInterrupt:
        _leave("interrupted", INTERRUPTED)
    except BrokenPipeError:
        sys.exit(0)
    except OSError as error:
        _leave(f"{error.filename or 'a file'}: {error.strerror or error}. Check the place and its free space.", 1)
    except RuntimeError as error:
        if not any(text in str(error) for text in OUT_OF_MEMORY):
            raise
        _leave(
            f"out of memory ({str(error).splitlines()[0][:160]}). Lower training.batch_size and raise accumulation, "
            "lower data.max_length, or set training.gradient_checkpointing: true (--batch-size elsewhere).",
            1,
        )


def _leave(message: str, code: int) -> NoReturn:
    click.echo(f"error: {safe_text(message)}", err=True)
    sys.exit(code)


class Progress:
    """Lines on stderr; on a terminal the last one may be rewritten in place."""

    def __init__(self) -> None:
        self.is_live = False

    def say(self, line: str) -> None:
        click.echo(("\r\x1b[2K" if self.is_live else "") + safe_text(line), err=True)
        self.is_live = False

    def live(self, line: str) -> None:
        # A line that wraps could not be taken back.
        fitting = safe_text(line, keep="")[: shutil.get_terminal_size().columns - 1]
        click.echo(f"\r\x1b[2K{fitting}", err=True, nl=False)
        self.is_live = True


def say(line: str) -> None:
    """A line of progress of a command that has no live line."""
    click.echo(safe_text(line), err=True)


def show(result: Result, as_json: bool) -> None:
    # What models and data say acts on no terminal: escapes are shown, JSON is ASCII.
    click.echo(json.dumps(result.record(), indent=2) if as_json else safe_text(result.text()))


def stream(piece: str) -> None:
    """A piece of a completion as it is generated."""
    click.echo(safe_text(piece), nl=False)


json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of text.")
set_option = click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a recipe key, e.g. training.max_steps=30."
)
base_option = click.option("--base", metavar="FOLDER", help="The adapter's base, where it has moved.")
device_option = click.option(
    "--device", type=click.Choice(["auto", "cpu", "cuda", "mps"]), default="auto", help="Where to run."
)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="peft-instruct")
def cli() -> None:
    """Instruction-tune GPT-2-class models, fully or through LoRA adapters, with proof that it worked.

    Start with: peft-instruct train quickstart_lora
    """


@cli.command()
@click.argument("recipe")
@set_option
@click.option("--out", type=click.Path(path_type=Path), help="The adapter folder.  [default: adapters/<name>]")
@click.option(
    "--if-exists",
    type=click.Choice(["refuse", "replace"]),
    default="refuse",
    help="What to do with a finished adapter.",
)
@json_option
def train(recipe: str, overrides: tuple[str, ...], out: Path | None, if_exists: str, as_json: bool) -> None:
    """Train what RECIPE says, a file or a shipped recipe's name.

    Example: peft-instruct train recipes/gpt2_lora.yaml --set training.max_steps=30
    """
    from peft_instruct.commands.train import train as run

    progress = Progress()
    live = progress.live if sys.stderr.isatty() and not as_json else None
    show(run(recipe, overrides, out=out, if_exists=if_exists, say=progress.say, live=live), as_json)


@cli.command()
@click.argument("adapter")
@click.argument("instruction", required=False)
@click.option("--input", "input_text", default="", help="The input that goes with the instruction.")
@click.option("--file", type=click.Path(path_type=Path), help="Rows to answer: .json, .jsonl, .csv or .parquet.")
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
@click.option("--batch-size", type=click.IntRange(min=1), default=8, help="Rows of --file per forward pass.")
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
    batch_size: int,
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
        stream=stream if sys.stdout.isatty() and not as_json else None,
        say=say,
    )
    show(result, as_json)


@cli.command()
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


@cli.command()
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


@cli.group()
def recipe() -> None:
    """List, show, explain and check recipes."""


@recipe.command("list")
@json_option
def recipe_list(as_json: bool) -> None:
    """List the shipped recipes."""
    from peft_instruct.commands.recipes import list_recipes

    show(list_recipes(), as_json)


@recipe.command("show")
@click.argument("name")
def recipe_show(name: str) -> None:
    """Print a recipe file as it is written."""
    from peft_instruct.commands.recipes import show_recipe

    click.echo(show_recipe(name), nl=False)


@recipe.command("explain")
@click.argument("name")
@set_option
@json_option
def recipe_explain(name: str, overrides: tuple[str, ...], as_json: bool) -> None:
    """Print every value of a recipe with where it came from."""
    from peft_instruct.commands.recipes import explain_recipe

    show(explain_recipe(name, overrides), as_json)


@recipe.command("validate")
@click.argument("names", nargs=-1, required=True)
@set_option
@json_option
def recipe_validate(names: tuple[str, ...], overrides: tuple[str, ...], as_json: bool) -> None:
    """Check recipes and tell all their problems at once; loads no model."""
    from peft_instruct.commands.recipes import validate_recipes

    show(validate_recipes(names, overrides), as_json)


@recipe.command("schema")
def recipe_schema() -> None:
    """Print the JSON Schema of a recipe, for editors."""
    from peft_instruct.recipe.writing import schema

    click.echo(json.dumps(schema(), indent=2))


def several(_: click.Context, parameter: click.Parameter, value: str | None) -> list[str] | None:
    """`a,b` as two values."""
    return None if value is None else [word.strip() for word in value.split(",") if word.strip()]


def several_numbers(context: click.Context, parameter: click.Parameter, value: str | None) -> list[int] | None:
    words = several(context, parameter, value)
    if words is not None and not all(word.isdigit() and int(word) > 0 for word in words):
        raise click.BadParameter(f"{value!r}: expected whole numbers from 1, separated by commas.", context, parameter)
    return None if words is None else [int(word) for word in words]


class RunByDefault(click.Group):
    """`bench RECIPE` is `bench run RECIPE`."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        return super().resolve_command(ctx, args if args[0] in self.commands else ["run", *args])


@cli.group(cls=RunByDefault)
def bench() -> None:
    """Measure throughput and memory on CUDA, MPS and the CPU, and put result files side by side."""


@bench.command("run")
@click.argument("recipe")
@set_option
@click.option("--devices", callback=several, metavar="A,B", help="cuda, mps, cpu.  [default: all three]")
@click.option("--methods", callback=several, metavar="A,B", help="lora, dora, full, qlora, ….  [default: the recipe's]")
@click.option("--precisions", callback=several, metavar="A,B", help="auto, fp32, bf16, fp16.  [default: the recipe's]")
@click.option("--batch-sizes", callback=several_numbers, metavar="N,M", help="[default: the recipe's]")
@click.option("--lengths", callback=several_numbers, metavar="N,M", help="data.max_length.  [default: the recipe's]")
@click.option("--steps", type=click.IntRange(min=1), default=10, help="Measured steps of each cell.")
@click.option("--warmup", type=click.IntRange(min=0), default=3, help="Steps before them that are not measured.")
@click.option("--out", type=click.Path(path_type=Path), help="The result file (JSON).")
@json_option
def bench_run(
    recipe: str,
    overrides: tuple[str, ...],
    devices: list[str] | None,
    methods: list[str] | None,
    precisions: list[str] | None,
    batch_sizes: list[int] | None,
    lengths: list[int] | None,
    steps: int,
    warmup: int,
    out: Path | None,
    as_json: bool,
) -> None:
    """Measure RECIPE on every device, each cell in a process of its own.

    Example: peft-instruct bench recipes/gpt2_lora.yaml --methods lora,full --out cpu.json
    """
    from peft_instruct.commands.bench import bench as run

    result = run(
        recipe,
        overrides,
        devices=devices,
        methods=methods,
        precisions=precisions,
        batch_sizes=batch_sizes,
        lengths=lengths,
        steps=steps,
        warmup=warmup,
        out=out,
        say=say,
    )
    show(result, as_json)
    if not result.num_measured:
        raise UnavailableError("bench: no cell could be measured; the reasons stand in its rows. Try --devices cpu.")


@bench.command("compare")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--plot", type=click.Path(path_type=Path), help="Where an SVG of speed and memory goes.")
@json_option
def bench_compare(files: tuple[Path, ...], plot: Path | None, as_json: bool) -> None:
    """Put result FILES side by side, such as one from CUDA and one from MPS.

    Example: peft-instruct bench compare cuda.json mps.json
    """
    from peft_instruct.commands.bench import compare

    show(compare(files, plot), as_json)


@cli.command()
@click.option("--hub", "check_hub", is_flag=True, help="Also ask whether the hub answers.")
@json_option
def doctor(check_hub: bool, as_json: bool) -> None:
    """Say what is installed and what this machine can do, and what is wrong."""
    from peft_instruct.commands.doctor import doctor as run

    show(run(check_hub=check_hub), as_json)
