"""`generate`: a trained adapter and an instruction (or a file of them) in, completions out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from peft_instruct.commands.hub_ids import hub_ids_of_adapter
from peft_instruct.data.template import ANSWER
from peft_instruct.environment import HubState, prepare_environment
from peft_instruct.errors import RecipeError
from peft_instruct.inference.files import PromptRow, completed_row, finished_file, json_line, read_prompts
from peft_instruct.recipe.problems import problem_lines
from peft_instruct.recipe.schema import GenerationSection
from peft_instruct.recipe.shipped import find_adapter

if TYPE_CHECKING:
    from peft_instruct.adapter.folder import Adapter, Tuned
    from peft_instruct.inference.complete import Generation

Say = Callable[[str], None]
MOST_LISTED = 20
"""Cut prompts named in a line; the count is always whole."""


@dataclass(frozen=True)
class Completed:
    """A row of the input (an instruction of the command line is one, too) with what was generated for it."""

    values: dict[str, Any]
    tuned: Generation
    base: Generation | None

    def row(self) -> dict[str, Any]:
        return completed_row(self.values, self.tuned, self.base)


@dataclass(frozen=True)
class GenerateResult:
    """Completions and what they were made with.

    Attributes:
        seed: of sampling; None where the completions are greedy.
        from_file: whether the prompts came out of a file.
        out: the file of completions; None where they are the result itself.
        streamed: the text was told while it was generated, so `text` does not repeat it.
    """

    adapter: str
    device: str
    options: GenerationSection
    seed: int | None
    completed: tuple[Completed, ...]
    from_file: bool
    out: str | None
    streamed: bool

    @property
    def num_stopped(self) -> int:
        return sum(each.tuned.stopped for each in self.completed)

    def record(self) -> dict[str, Any]:
        """The completions stand in it unless they were written to a file."""
        record = {
            "adapter": self.adapter,
            "device": self.device,
            "precision": "fp32",
            "options": self.options.model_dump(),
            "seed": self.seed,
            "num_prompts": len(self.completed),
            "num_stopped": self.num_stopped,
            "num_cut": sum(each.tuned.num_cut > 0 for each in self.completed),
            "out": self.out,
        }
        return record if self.out else {**record, "completions": [each.row() for each in self.completed]}

    def text(self) -> str:
        if self.out:
            return (
                f"{self.out}: {len(self.completed)} completions, {self.num_stopped} of them ended by the stop token, "
                f"{len(self.completed) - self.num_stopped} by the limit"
            )
        if self.from_file:
            return "".join(json_line(each.row()) for each in self.completed).removesuffix("\n")
        (one,) = self.completed
        if one.base is not None:
            return f"--- base\n{one.base.completion}\n--- {self.adapter}\n{one.tuned.completion}"
        return "" if self.streamed else one.tuned.completion


def generate(
    adapter_path: str,
    instruction: str | None = None,
    *,
    input: str = "",
    file: Path | None = None,
    out: Path | None = None,
    compare: bool = False,
    base: str | None = None,
    max_new_tokens: int | None = None,
    temperature: float | None = None,
    top_p: float | None = None,
    top_k: int | None = None,
    repetition_penalty: float | None = None,
    seed: int | None = None,
    batch_size: int | None = None,
    device: str = "auto",
    stream: Say | None = None,
    say: Say,
) -> GenerateResult:
    """Complete an instruction, or every row of a file, as the adapter was trained to be prompted.

    Args:
        input: the text that the instruction is about.
        file: rows with `instruction` (and `input`), or with `prompt`.
        out: where the completed rows of `file` go; without it they are the result.
        compare: complete with the base as it was before training, too.
        base: where the base is, when not where the adapter says.
        max_new_tokens, temperature, top_p, top_k, repetition_penalty: in place of the adapter's own defaults.
        seed: of sampling; the result names the one that was used.
        stream: gets the text of a single completion while it is generated; not with `compare`.

    Raises:
        RecipeError: the options do not go together.
        DatasetError: `file` is missing or broken.
        AdapterError, ModelError: the adapter or its base is unusable.
    """
    _check_usage(instruction, input, file, out, seed, batch_size)
    path = find_adapter(adapter_path)
    hub = prepare_environment(hub_ids_of_adapter(path, base, needs_base=compare))
    from peft_instruct.adapter.folder import load_tuned, open_adapter
    from peft_instruct.inference.complete import new_seed
    from peft_instruct.model.device import choose_compute

    adapter = open_adapter(path)
    given = {
        "max_new_tokens": max_new_tokens,
        "temperature": temperature,
        "top_p": top_p,
        "top_k": top_k,
        "repetition_penalty": repetition_penalty,
    }
    options = _options(adapter.manifest.generation, given)
    rows = _prompts(adapter, instruction, input, file)
    used_seed = None if options.temperature == 0 else new_seed() if seed is None else seed
    idle = [name for name, value in {"top_p": top_p, "top_k": top_k}.items() if value is not None]
    if idle and used_seed is None:
        say(f"{', '.join(idle)}: no effect, temperature 0 is greedy")
    with ExitStack() as stack:
        written = stack.enter_context(finished_file(out)) if out else None
        compute = choose_compute(device, "fp32")
        tuned = load_tuned(adapter, compute, hub, base=base)
        run = _Run(tuned, hub, base, options, used_seed or 0, batch_size, say)
        # What an answer is wrapped in can be taken off the whole alone.
        streamed = stream is not None and file is None and not compare and tuned.template.answer == ANSWER
        generations = run.streamed(rows, stream) if streamed and stream else run.tuned([row.prompt for row in rows])
        bases = run.untuned([row.prompt for row in rows]) if compare else [None] * len(rows)
        completed = tuple(
            Completed(row.values, generation, other)
            for row, generation, other in zip(rows, generations, bases, strict=True)
        )
        if written is not None:
            written.writelines(json_line(each.row()) for each in completed)
    _say_limits(rows, generations, tuned.base.positions, say)
    return GenerateResult(
        adapter=adapter_path,
        device=compute.device,
        options=options,
        seed=used_seed,
        completed=completed,
        from_file=file is not None,
        out=str(out) if out else None,
        streamed=streamed,
    )


@dataclass(frozen=True)
class _Run:
    """What all completions of one call share."""

    loaded: Tuned
    hub: HubState
    base: str | None
    options: GenerationSection
    seed: int
    batch_size: int | None
    say: Say

    def streamed(self, rows: Sequence[PromptRow], on_text: Say) -> list[Generation]:
        from peft_instruct.inference.stream import stream

        return [
            stream(
                self.loaded.model,
                self.loaded.tokenizer,
                row.prompt,
                self.options,
                on_text,
                positions=self.loaded.base.positions,
                device=self.loaded.base.compute.torch_device,
                seed=self.seed,
            )
            for row in rows
        ]

    def tuned(self, prompts: list[str]) -> list[Generation]:
        return self._complete(self.loaded.model, self.loaded.base, prompts, "completed")

    def untuned(self, prompts: list[str]) -> list[Generation]:
        """The same prompts to the model as it was before training."""
        if not self.loaded.adapter.holds_model:
            with self.loaded.untuned() as model:
                return self._complete(model, self.loaded.base, prompts, "completed by the base")
        from peft_instruct.adapter.folder import load_untuned

        base = load_untuned(self.loaded.adapter, self.loaded.base.compute, self.hub, self.base)
        return self._complete(base.model, base, prompts, "completed by the base")

    def _complete(self, model: Any, base: Any, prompts: list[str], what: str) -> list[Generation]:
        from peft_instruct.inference.complete import complete
        from peft_instruct.inference.progress import told

        done = complete(
            model,
            base.tokenizer,
            prompts,
            self.options,
            positions=base.positions,
            device=base.compute.torch_device,
            batch_size=self.batch_size,
            seed=self.seed,
            on_done=told(self.say, what, len(prompts)),
        )
        template = self.loaded.template
        return [replace(generation, completion=template.output(generation.completion)) for generation in done]


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


def _options(defaults: GenerationSection, given: dict[str, Any]) -> GenerationSection:
    """The adapter's defaults with what was given in their place.

    Raises:
        RecipeError: a value is out of range; all of them told.
    """
    named = {name: value for name, value in given.items() if value is not None}
    try:
        return GenerationSection.model_validate({**defaults.model_dump(), **named})
    except ValidationError as error:
        lines = problem_lines(error, GenerationSection, lambda key: f"--{str(key[-1]).replace('_', '-')}")
        # `--top-p: top_p: is 2` names the option twice.
        parts = [line.split(": ", 2) for line in lines]
        raise RecipeError.of("generate", [f"{option}: {what}" for option, _, what in parts]) from error


def _prompts(adapter: Adapter, instruction: str | None, input: str, file: Path | None) -> list[PromptRow]:
    template = adapter.manifest.prompt_template()
    if file is not None:
        return read_prompts(str(file), template)
    assert instruction is not None  # _check_usage
    values = {"instruction": instruction, **({"input": input} if input else {})}
    return [PromptRow(values, template.prompt(instruction, input), "INSTRUCTION")]


def _say_limits(rows: Sequence[PromptRow], generations: Sequence[Generation], positions: int, say: Say) -> None:
    cut = [
        f"{row.origin} by {each.num_cut} tokens" for row, each in zip(rows, generations, strict=True) if each.num_cut
    ]
    if cut:
        rest = f"; and {len(cut) - MOST_LISTED} more" if len(cut) > MOST_LISTED else ""
        say(
            f"{len(cut)} of {len(rows)} prompts were cut from their left to fit {positions} positions: "
            f"{'; '.join(cut[:MOST_LISTED])}{rest}"
        )
    if len(generations) == 1 and not generations[0].stopped:
        say(f"ended by the limit after {generations[0].num_tokens} tokens; --max-new-tokens raises it")
