"""A tokenizer's own chat template, read off as a `Template`: texts with fields, proven to render the same.

The Jinja source is run on words that stand for messages, in a process of its own, and nowhere else: what is saved with
an adapter is text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from peft_instruct.data.rendering import ChatTemplateError, render_chat
from peft_instruct.data.template import ANSWER, Template
from peft_instruct.data.tokens import special_tokens
from peft_instruct.data.types import Example, Exchange, Prompt
from peft_instruct.errors import RecipeError, first_line

Messages = Sequence[tuple[str, str]]

# Words that no template holds; in their place stands a field.
ASKED, ANSWERED, ASKED_LATER, TOLD = "probeaskedq", "probeansweredq", "probelaterq", "probetoldq"
PLACE = "data.template: tokenizer"


def own_template(tokenizer: Any) -> Template:
    """The tokenizer's chat template as texts with fields.

    A template that renders an answer otherwise when messages follow it (as those that drop earlier thoughts do) gets no
    `follow_up`, one without a place for a system message no `with_system`: rows that need them are refused later.

    Raises:
        RecipeError: the tokenizer has none, it fails, or the prompt is not the beginning of the whole text.
    """
    if not tokenizer.chat_template:
        raise RecipeError(f"{PLACE}: the tokenizer has no chat template. Use alpaca, chatml or a text of your own.")
    try:
        return _read_off(tokenizer)
    except ChatTemplateError as error:
        raise RecipeError(
            f"{PLACE}: its chat template fails ({error}). Use alpaca, chatml or a text of your own."
        ) from error


def _read_off(tokenizer: Any) -> Template:
    first = _rendered(tokenizer, [("user", ASKED)], asks=True)
    whole = _rendered(tokenizer, [("user", ASKED), ("assistant", ANSWERED)])
    if first.count(ASKED) != 1 or not whole.startswith(first) or whole.count(ANSWERED) != 1:
        raise RecipeError(
            f"{PLACE}: its prompt is not the beginning of its text with the answer, so a model would be asked "
            "otherwise than it was trained. Use a named template, or a text of your own."
        )
    before, after = whole[len(first) :].split(ANSWERED)
    tail, stop = _until_special(tokenizer, after)
    without_input = first.replace(ASKED, "{instruction}")
    found = Template(
        name="tokenizer",
        with_input=first.replace(ASKED, "{instruction}\n\n{input}"),
        without_input=without_input,
        with_system=_with_system(tokenizer),
        follow_up=_follow_up(tokenizer, first + before + ANSWERED + tail + stop),
        answer=before + ANSWER + tail,
        stop=stop,
        strips=_rendered(tokenizer, [("user", f" {ASKED}\n")], asks=True) == first,
    )
    return found if _same(tokenizer, found) else replace(found, follow_up="")


def _until_special(tokenizer: Any, text: str) -> tuple[str, str]:
    """What stands before the first special token, and that token; nothing where there is none."""
    found = [(text.index(name), name) for name in special_tokens(tokenizer) if name in text]
    if not found:
        return "", ""
    place, name = min(found, key=lambda pair: (pair[0], -len(pair[1])))
    return text[:place], name


def _with_system(tokenizer: Any) -> str:
    try:
        text = _rendered(tokenizer, [("system", TOLD), ("user", ASKED)], asks=True)
    except ChatTemplateError:
        return ""
    is_whole = text.count(TOLD) == text.count(ASKED) == 1
    return text.replace(TOLD, "{system}").replace(ASKED, "{instruction}") if is_whole else ""


def _follow_up(tokenizer: Any, beginning: str) -> str:
    messages = [("user", ASKED), ("assistant", ANSWERED), ("user", ASKED_LATER)]
    try:
        text = _rendered(tokenizer, messages, asks=True)
    except ChatTemplateError:
        return ""
    later = text.removeprefix(beginning)
    return later.replace(ASKED_LATER, "{instruction}") if later != text and later.count(ASKED_LATER) == 1 else ""


def _same(tokenizer: Any, template: Template) -> bool:
    """Whether a conversation of three exchanges is the same text by the chat template and by ours."""
    if not template.follow_up:
        return True
    system = TOLD if template.with_system else ""
    example = Example("c?", "", "C.", PLACE, system=system, earlier=(Exchange("a?", "A."), Exchange("b?", "B.")))
    messages = [("user", "a?"), ("assistant", "A."), ("user", "b?"), ("assistant", "B."), ("user", "c?")]
    theirs = _rendered(tokenizer, [("system", TOLD), *messages] if system else messages, asks=True)
    return written_out(template.render(example).prompt, template.stop) == theirs


def written_out(prompt: str, stop: str) -> str:
    """The text of a prompt with the stop token of every earlier answer spelled out."""
    spans = prompt.spans if isinstance(prompt, Prompt) else ()
    return "".join(span.text + stop * ("answer" in span.kind) for span in spans) if spans else prompt


def _rendered(tokenizer: Any, messages: Messages, asks: bool = False) -> str:
    said = [{"role": role, "content": text} for role, text in messages]
    try:
        source = tokenizer.get_chat_template()
    except ValueError as error:
        raise ChatTemplateError(first_line(error)) from error
    return render_chat(source, said, asks, {name: str(token) for name, token in tokenizer.special_tokens_map.items()})
