"""`demo`: a page in the browser that asks a trained adapter, its base beside it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peft_instruct.commands.completing import Completing
from peft_instruct.commands.generate import options_of
from peft_instruct.commands.generated import say_limits
from peft_instruct.commands.hub_ids import hub_ids_of_adapter
from peft_instruct.commands.untuned import Untuned
from peft_instruct.environment import prepare_environment
from peft_instruct.errors import RecipeError
from peft_instruct.evaluation.held_out import recipe_of
from peft_instruct.inference.files import one_prompt
from peft_instruct.inference.page import Answer, build_page, check_page, listening
from peft_instruct.recipe.shipped import find_adapter

if TYPE_CHECKING:  # it imports torch
    from peft_instruct.adapter.folder import Tuned

Say = Callable[[str], None]


@dataclass(frozen=True)
class DemoResult:
    """Where the page is.

    Attributes:
        base: what answers beside the adapter; None: nothing does.
    """

    adapter: str
    url: str
    device: str
    base: str | None

    def record(self) -> dict[str, Any]:
        return asdict(self)

    def text(self) -> str:
        return f"{self.url} asks {self.adapter}, for this machine alone. Ctrl-C ends it"


@dataclass(frozen=True)
class _Answering:
    """What the page asks: one instruction, its settings those of its sliders."""

    tuned: Tuned
    before: Untuned
    compares: bool
    say: Say

    def __call__(self, instruction: str, given: str, settings: dict[str, Any], on_text: Say) -> Answer:
        from peft_instruct.inference.complete import new_seed

        template, defaults = self.tuned.template, self.tuned.adapter.manifest.generation
        notes: list[str] = []
        row = one_prompt(instruction, given, template)
        # Greedy, top_p does nothing, and nobody who left its slider alone wants to be told so.
        chosen = {**settings, "top_p": settings["top_p"] if settings["temperature"] else None}
        options, seed = options_of(defaults, chosen, notes.append), new_seed()
        completing = Completing(self.tuned, self.before, options, seed, 1, self.say)
        # Also what is not told asks whether it is still wanted.
        found = completing.streamed(row, on_text if completing.streams else lambda _: on_text("")).tuned
        say_limits([row], [found], self.tuned.base.positions, notes.append)
        if options.temperature:
            notes.append(f"sampled with seed {seed}")
        on_text("")
        theirs = completing.of_the_base(row).completion if self.compares else ""
        return Answer(template.output(found.completion), theirs, "; ".join(notes))


@contextmanager
def demo(
    adapter_path: str,
    *,
    compare: bool = False,
    base: str | None = None,
    port: int | None = None,
    device: str = "auto",
    say: Say,
) -> Iterator[DemoResult]:
    """An adapter behind a page on this machine, for as long as the block lasts.

    Args:
        compare: the base as it was before training answers, too.
        base: where the base is, when not where the adapter says.
        port: None: the first free one from 7860 on.

    Raises:
        UnavailableError: gradio is not installed.
        RecipeError: the port is in use.
        AdapterError, ModelError: the adapter or its base is unusable.
    """
    check_page(port)
    path = find_adapter(adapter_path, say)
    hub = prepare_environment(hub_ids_of_adapter(path, base, needs_base=compare))
    from peft_instruct.adapter.folder import load_tuned, open_adapter
    from peft_instruct.model.device import choose_compute

    adapter = open_adapter(path)
    tuned = load_tuned(adapter, choose_compute(device, "fp32"), hub, base=base)
    before = Untuned(tuned, hub, base)
    if compare:
        with before.opened():  # a base that is missing is told now
            pass
    else:  # which would be the base as well
        tuned = tuned.merged()

    named = adapter.manifest.base.id if compare else None
    page = build_page(
        _Answering(tuned, before, compare, say),
        name=adapter_path,
        base=named,
        takes_input="{input}" in tuned.template.with_input,
        settings=adapter.manifest.generation,
        most_tokens=tuned.base.positions - 1,
        examples=_examples(path),
    )
    with listening(page, port) as url:
        yield DemoResult(adapter_path, url, tuned.base.compute.device, named)


def _examples(adapter: Path) -> list[str]:
    """The instructions that the training showed samples of."""
    try:
        recipe = recipe_of(adapter, data="a question")
    except RecipeError:
        return []
    return recipe.samples.instructions if recipe else []
