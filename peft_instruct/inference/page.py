"""A page in the browser that asks one model, on this machine alone: an instruction in, its answer as it comes.

Gradio's page is made for others to see; what it would take from its environment is set here (gradio 6.31, blocks.py):
it listens on 127.0.0.1, is shared nowhere and serves no file, asks nobody for a newer version, and counts nothing.
Answers are shown as text, never as HTML.
"""

from __future__ import annotations

import importlib.util
import os
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any

from peft_instruct.errors import PeftInstructError, RecipeError, UnavailableError, first_line
from peft_instruct.recipe.schema import GenerationSection

HOST = "127.0.0.1"
SLIDERS = {"temperature": (0, 2, 0.05), "top_p": (0.05, 1, 0.05), "repetition_penalty": (0.5, 2, 0.05)}
"""Settings of the page besides the number of tokens: from, to, step. Temperature 0 is greedy."""


@dataclass(frozen=True)
class Answer:
    """What the page shows: the tuned model's text, the base's where it is asked, and what is to be known of them."""

    tuned: str
    base: str = ""
    note: str = ""


Answering = Callable[[str, str, dict[str, Any], Callable[[str], None]], Answer]
"""(instruction, input, settings, told each piece of the tuned text) -> the whole answer."""


class _EndedError(Exception):
    """Raised out of a piece of text: nobody waits for the rest."""


class _Asking:
    """One answer on its way, computed in a thread of its own so that it can be shown and ended meanwhile."""

    def __init__(self, answering: Answering, instruction: str, given: str, settings: dict[str, Any]) -> None:
        self._found: SimpleQueue[str | Answer | BaseException] = SimpleQueue()
        self._is_ended = threading.Event()
        asked = answering, instruction, given, settings
        threading.Thread(target=self._answer, args=asked, daemon=True).start()

    def end(self) -> None:
        self._is_ended.set()

    def answers(self) -> Iterator[Answer]:
        """The answer so far, again and again, and at last the whole one or what was wrong."""
        text = ""
        while True:
            found: list[str | Answer | BaseException] = [self._found.get()]
            try:
                while True:
                    found.append(self._found.get_nowait())
            except Empty:
                pass
            text += "".join(piece for piece in found if isinstance(piece, str))
            last = found[-1]
            if isinstance(last, Answer):
                yield last
            elif isinstance(last, _EndedError):
                yield Answer(text, note="ended before its end")
            elif isinstance(last, BaseException):
                said = str(last) if isinstance(last, PeftInstructError) else first_line(last)
                yield Answer(text, note=f"error: {said}")
            else:
                yield Answer(text)
                continue
            return

    def _answer(self, answering: Answering, instruction: str, given: str, settings: dict[str, Any]) -> None:
        try:
            self._found.put(answering(instruction, given, settings, self._tell))
        except BaseException as error:  # told on the page, where somebody waits
            self._found.put(error)

    def _tell(self, piece: str) -> None:
        if self._is_ended.is_set():
            raise _EndedError
        self._found.put(piece)


def build_page(
    answering: Answering,
    *,
    name: str,
    base: str | None,
    takes_input: bool,
    settings: GenerationSection,
    most_tokens: int,
    examples: Sequence[str] = (),
) -> Any:
    """The page, as gradio's Blocks; over HTTP its two functions are /answer and /stop.

    Args:
        base: what the base is called, where it answers, too.
        takes_input: whether the template has a place for an input.
        most_tokens: of an answer.
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    import gradio as gr

    answer, stop = _functions(answering, gr.Request)
    with gr.Blocks(analytics_enabled=False, title=f"peft-instruct: {name}") as page:
        instruction = gr.Textbox(label="Instruction", lines=3, autofocus=True)
        given = gr.Textbox(label="Input", lines=2, visible=takes_input)
        with gr.Row():
            ask = gr.Button("Answer", variant="primary")
            end = gr.Button("Stop")
        tuned = gr.Textbox(label=name, lines=6, buttons=["copy"])
        untuned = gr.Textbox(label=f"{base} before training", lines=6, buttons=["copy"], visible=base is not None)
        note = gr.Textbox(label="Note", lines=1)
        with gr.Accordion("Settings", open=False):
            first = min(settings.max_new_tokens, most_tokens)
            chosen = [gr.Slider(1, most_tokens, first, step=1, label="max-new-tokens")]
            for key, (least, most, step) in SLIDERS.items():
                chosen.append(gr.Slider(least, most, getattr(settings, key), step=step, label=key.replace("_", "-")))
        if examples:
            gr.Examples([[each] for each in examples], [instruction], cache_examples=False, api_visibility="private")
        gr.on(
            [ask.click, instruction.submit], answer, [instruction, given, *chosen], [tuned, untuned, note],
            api_name="answer", concurrency_limit=1, show_progress="hidden",
        )  # fmt: skip
        end.click(stop, api_name="stop", queue=False)
    return page


def _functions(answering: Answering, request_type: type) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Asking, and ending what the same browser asks."""
    asking: dict[str | None, _Asking] = {}

    def answer(
        instruction: str, given: str, max_new_tokens: float, temperature: float, top_p: float,
        repetition_penalty: float, request: Any,
    ) -> Iterator[tuple[str, str, str]]:  # fmt: skip
        chosen = {
            "max_new_tokens": int(max_new_tokens), "temperature": temperature, "top_p": top_p,
            "repetition_penalty": repetition_penalty,
        }  # fmt: skip
        mine = asking[request.session_hash] = _Asking(answering, instruction, given, chosen)
        try:
            for each in mine.answers():
                yield each.tuned, each.base, each.note
        finally:
            mine.end()
            asking.pop(request.session_hash, None)

    def stop(request: Any) -> None:
        if mine := asking.get(request.session_hash):
            mine.end()

    # gradio hands its request to what says so by its annotation, which is not text.
    for function in (answer, stop):
        function.__annotations__["request"] = request_type
    return answer, stop


def check_page(port: int | None) -> None:
    """What a page needs, looked at before a model is loaded.

    Raises:
        UnavailableError: gradio is not installed.
        RecipeError: the port is in use.
    """
    if importlib.util.find_spec("gradio") is None:
        raise UnavailableError("demo: gradio is not installed. pip install 'gradio>=6.31,<7'")
    with socket.socket() as probe:
        # As gradio itself looks (6.31, http_server.py): a port that was left a moment ago is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port or 0))
        except OSError as error:
            raise RecipeError(f"demo: --port: {port} is in use. Name another, or leave it out.") from error


@contextmanager
def listening(page: Any, port: int | None) -> Iterator[str]:
    """The address of a page for as long as the block lasts.

    Args:
        port: None: the first free one from 7860 on.
    """
    _, url, _ = page.launch(
        server_name=HOST, server_port=port, prevent_thread_lock=True, quiet=True, inbrowser=False, share=False,
        footer_links=[], allowed_paths=[], root_path="", max_file_size="1mb", strict_cors=True,
        enable_monitoring=False, ssr_mode=False, mcp_server=False, pwa=False, run_history=False,
    )  # fmt: skip
    try:
        yield str(url)
    finally:
        page.close(verbose=False)
