"""A chat template of someone else, run in a process of its own: it may take a little time and memory, and nothing else.

Jinja's sandbox keeps a template from objects and files, not from loops within loops or from doubling a text forty times
(transformers 5.23 renders in its own process, without a limit). Only Python's own library and Jinja are loaded.
"""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import suppress
from typing import Any

MOST_SECONDS = 30.0
MOST_PROCESSOR_SECONDS = 5
MOST_MEMORY_BYTES = 1 << 30
MOST_CHARACTERS = 1 << 20


class ChatTemplateError(ValueError):
    """The template is broken, refuses these messages, or takes more than it may."""


def render_chat(template: str, messages: list[dict[str, str]], asks: bool, special_tokens: dict[str, str]) -> str:
    """The text of a conversation, as `apply_chat_template(tokenize=False)` gives it.

    Args:
        asks: the beginning of an answer stands at the end.
        special_tokens: `bos_token` and the like, which a template may name.

    Raises:
        ChatTemplateError: see there.
    """
    request = {"template": template, "messages": messages, "add_generation_prompt": asks, "tokens": special_tokens}
    try:
        done = subprocess.run(
            # -I: no module of the working folder is taken for one of Python's.
            [sys.executable, "-I", __file__],
            input=json.dumps(request),
            capture_output=True,
            encoding="utf-8",
            timeout=MOST_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise ChatTemplateError(f"not done after {MOST_SECONDS:g} s") from error
    if done.returncode:
        raise ChatTemplateError("it takes too much time or memory")
    answer: dict[str, Any] = json.loads(done.stdout)
    if "error" in answer:
        raise ChatTemplateError(answer["error"])
    return str(answer["text"])


def main() -> None:
    _limit()
    request = json.load(sys.stdin)
    try:
        text = _render(request)
        answer = {"text": text} if len(text) <= MOST_CHARACTERS else {"error": f"{len(text)} characters"}
    except MemoryError:
        answer = {"error": "it takes too much memory"}
    # A template may cause any error of Python.
    except Exception as error:
        answer = {"error": (str(error).splitlines() or [type(error).__name__])[0][:200]}
    json.dump(answer, sys.stdout)


def _limit() -> None:
    try:
        import resource
    except ImportError:  # Windows: the time is limited by the parent
        return
    with suppress(ValueError, OSError):  # macOS: a process has mapped more than that when it begins
        resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY_BYTES, MOST_MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (MOST_PROCESSOR_SECONDS, MOST_PROCESSOR_SECONDS))


def _render(request: dict[str, Any]) -> str:
    """With the options, filters and functions that transformers gives a template (5.23, chat_template_utils.py)."""
    from datetime import datetime

    from jinja2 import TemplateError, nodes
    from jinja2.ext import Extension, loopcontrols
    from jinja2.parser import Parser
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        """`{% generation %}` marks what is learned, and renders as what is in it."""

        tags = {"generation"}  # noqa: RUF012

        def parse(self, parser: Parser) -> list[nodes.Node]:
            next(parser.stream)
            return list(parser.parse_statements(("name:endgeneration",), drop_needle=True))

    def raise_exception(message: str) -> None:
        raise TemplateError(message)

    def tojson(value: Any, ensure_ascii: bool = False, indent: int | None = None, sort_keys: bool = False) -> str:
        return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, sort_keys=sort_keys)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols]
    )
    environment.filters["tojson"] = tojson
    environment.globals["raise_exception"] = raise_exception
    # Today's date would make other rows of the same ones tomorrow; this is Llama 3.2's own where it is told none.
    environment.globals["strftime_now"] = datetime(2024, 7, 26).strftime
    return environment.from_string(request["template"]).render(
        messages=request["messages"],
        tools=None,
        documents=None,
        add_generation_prompt=request["add_generation_prompt"],
        **request["tokens"],
    )


if __name__ == "__main__":
    main()
