"""What `generate` gives back: each prompt with its completions, and what was done to them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from peft_instruct.data.writing import json_line
from peft_instruct.inference.files import PromptRow, completed_row
from peft_instruct.recipe.schema import GenerationSection

if TYPE_CHECKING:  # it imports torch
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


def say_limits(rows: Sequence[PromptRow], generations: Sequence[Generation], positions: int, say: Say) -> None:
    """Tell which prompts were cut, and that a single completion was."""
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
