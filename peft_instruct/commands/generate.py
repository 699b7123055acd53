"""`generate`: a trained adapter and an instruction (or a file of them) in, completions out."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TextIO

from pydantic import ValidationError

from peft_instruct.commands.completing import Completing
from peft_instruct.commands.generated import Completed, GenerateResult, say_limits
from peft_instruct.commands.hub_ids import hub_ids_of_adapter
from peft_instruct.commands.out_file import behind_link, out_file
from peft_instruct.commands.untuned import Untuned
from peft_instruct.data.templates import AS_IS, Template
from peft_instruct.data.writing import json_line
from peft_instruct.environment import prepare_environment
from peft_instruct.errors import RecipeError
from peft_instruct.evaluation.held_out import columns_of, recipe_of
from peft_instruct.inference.files import PromptRow, one_prompt, read_prompts
from peft_instruct.recipe.data_section import Columns
from peft_instruct.recipe.problems import problem_lines
from peft_instruct.recipe.schema import GenerationSection
from peft_instruct.recipe.shipped import find_adapter
from peft_instruct.whole_file import partial_file

Say = Callable[[str], None]


def generate(
    adapter_path: str,
    instruction: str | None = None,
    *,
    input: str = "",
    file: Path | None = None,
    out: Path | None = None,
    compare: bool = False,
    base: str | None = None,
    seed: int | None = None,
    batch_size: int | None = None,
    device: str = "auto",
    stream: Say | None = None,
    say: Say,
    **settings: float | None,
) -> GenerateResult:
    """Complete an instruction, or every row of a file, as the adapter was trained to be prompted.

    Args:
        input: the text that the instruction is about.
        file: rows with `instruction` (and `input` or `context`), with `prompt`, or with a conversation to go on with.
        out: where the completed rows of `file` go, portion by portion; without it they are the result.
        compare: complete with the base as it was before training, too.
        base: where the base is, when not where the adapter says.
        seed: of sampling; the result names the one that was used.
        stream: gets the text of a single completion while it is generated; not with `compare`.
        settings: of a recipe's generation section, in place of the adapter's own; None leaves these.

    Raises:
        RecipeError: the options do not go together.
        DatasetError: `file` is missing or broken.
        AdapterError, ModelError: the adapter or its base is unusable.
    """
    _check_usage(instruction, input, file, out, seed, batch_size)
    path = find_adapter(adapter_path, say)
    hub = prepare_environment(hub_ids_of_adapter(path, base, needs_base=compare))
    from peft_instruct.adapter.folder import load_tuned, open_adapter
    from peft_instruct.inference.complete import new_seed
    from peft_instruct.model.device import choose_compute

    adapter = open_adapter(path)
    options = options_of(adapter.manifest.generation, settings, say)
    template = adapter.manifest.prompt_template()
    rows = _rows_of(file, template, _columns(path), say) if file else [one_prompt(instruction or "", input, template)]
    used_seed = None if options.temperature == 0 else new_seed() if seed is None else seed
    with ExitStack() as stack:
        written = stack.enter_context(out_file(out, keeps=True)) if out else None
        tuned = load_tuned(adapter, choose_compute(device, "fp32"), hub, base=base)
        if not compare:  # which asks the base as well
            tuned = tuned.merged()
        completing = Completing(tuned, Untuned(tuned, hub, base), options, used_seed or 0, batch_size, say)
        on_text = None if file or compare or not completing.streams else stream
        if on_text:
            completed = [completing.streamed(rows[0], on_text)]
        else:
            completed = _kept_as_it_goes(completing.portions(rows, compare), written, out, say)
    say_limits(rows, [each.tuned for each in completed], tuned.base.positions, say)
    return GenerateResult(
        adapter=adapter_path,
        device=tuned.base.compute.device,
        options=options,
        seed=used_seed,
        completed=tuple(completed),
        from_file=file is not None,
        out=str(out) if out else None,
        streamed=on_text is not None,
    )


def _rows_of(file: Path, template: Template, columns: Columns | None, say: Say) -> list[PromptRow]:
    rows = read_prompts(str(file), template, columns)
    as_they_are = sum(row.values.get("prompt") == row.prompt for row in rows)
    if as_they_are and template.name != AS_IS.name:
        say(
            f"{file}: {as_they_are} of {len(rows)} rows have a 'prompt', which is taken as it is; an 'instruction' is "
            f"put into the template of the training ({template.name})"
        )
    return rows


def _columns(adapter: Path) -> Columns | None:
    """What the rows of the training called theirs, where its recipe is there and read."""
    try:
        recipe = recipe_of(adapter, data="a file of prompts")
    except RecipeError:
        return None
    return columns_of(recipe) if recipe else None


def _kept_as_it_goes(
    portions: Iterable[list[Completed]], written: TextIO | None, out: Path | None, say: Say
) -> list[Completed]:
    """All completions; each portion is on its way to the disk before the next one is asked for."""
    completed: list[Completed] = []
    try:
        for portion in portions:
            completed += portion
            if written is not None:
                written.writelines(json_line(each.row()) for each in portion)
                written.flush()
    except BaseException:
        if out is not None and completed:
            say(f"{out}: not finished. Its first {len(completed):,} rows are in {partial_file(behind_link(out))}")
        raise
    return completed


def _check_usage(
    instruction: str | None, input: str, file: Path | None, out: Path | None, seed: int | None, batch_size: int | None
) -> None:
    problems = []
    if (instruction is None) == (file is None):
        problems.append("INSTRUCTION and --file: give one of them.")
    if instruction is not None and not instruction.strip():
        problems.append("INSTRUCTION: empty. expected text.")
    if input and instruction is None:
        problems.append("--input: goes with INSTRUCTION; rows of a file have an input of their own.")
    if out is not None and file is None:
        problems.append("--out: goes with --file.")
    if out is not None and file is not None and out.resolve() == file.resolve():
        problems.append(f"--out: {out} is the file of prompts itself. Name another file.")
    if seed is not None and not 0 <= seed < 2**63:
        problems.append(f"--seed: {seed}. expected a number from 0 on.")
    if batch_size is not None and batch_size < 1:
        problems.append(f"--batch-size: {batch_size}. expected at least 1.")
    if problems:
        raise RecipeError.of("generate", problems)


def options_of(defaults: GenerationSection, given: dict[str, Any], say: Say) -> GenerationSection:
    """The adapter's defaults with what was given in their place; what then has no effect is told.

    Raises:
        RecipeError: a value is out of range; all of them told.
    """
    named = {name: value for name, value in given.items() if value is not None}
    try:
        options = GenerationSection.model_validate({**defaults.model_dump(), **named})
    except ValidationError as error:
        lines = problem_lines(error, GenerationSection, lambda key: f"--{str(key[-1]).replace('_', '-')}")
        # `--top-p: top_p: is 2` names the option twice.
        parts = [line.split(": ", 2) for line in lines]
        raise RecipeError.of("generate", [f"{option}: {what}" for option, _, what in parts]) from error
    idle = [name for name in ("top_p", "top_k") if name in named]
    if idle and options.temperature == 0:
        say(f"{', '.join(idle)}: no effect, temperature 0 is greedy")
    return options
