"""`bench ...`."""

from __future__ import annotations

from pathlib import Path

import click

from peft_instruct.cli.options import json_option, set_option, several, several_numbers
from peft_instruct.cli.output import say, show
from peft_instruct.errors import UnavailableError


class RunByDefault(click.Group):
    """`bench RECIPE` is `bench run RECIPE`."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        return super().resolve_command(ctx, args if args[0] in self.commands else ["run", *args])


# Options before the recipe are those of `run`.
@click.group(cls=RunByDefault, context_settings={"ignore_unknown_options": True})
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
@click.option(
    "--sweep",
    "sweeps",
    multiple=True,
    metavar="AXIS[=A,B]",
    help="Vary length, batch, rank or method around the recipe's own point; several, one after another.",
)
@click.option("--steps", type=click.IntRange(min=1), default=10, help="Measured steps of each cell.")
@click.option("--warmup", type=click.IntRange(min=0), default=3, help="Steps before them that are not measured.")
@click.option("--out", type=click.Path(path_type=Path), help="The result file (JSON).")
@click.option("--plot", type=click.Path(path_type=Path), help="Where an SVG of how cost grows along a sweep goes.")
@json_option
def bench_run(
    recipe: str,
    overrides: tuple[str, ...],
    devices: list[str] | None,
    methods: list[str] | None,
    precisions: list[str] | None,
    batch_sizes: list[int] | None,
    lengths: list[int] | None,
    sweeps: tuple[str, ...],
    steps: int,
    warmup: int,
    out: Path | None,
    plot: Path | None,
    as_json: bool,
) -> None:
    """Measure RECIPE on every device, each cell in a process of its own.

    Example: peft-instruct bench recipes/gpt2_lora.yaml --sweep length --sweep rank=4,16,64 --plot growth.svg
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
        sweeps=sweeps,
        steps=steps,
        warmup=warmup,
        out=out,
        plot=plot,
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
