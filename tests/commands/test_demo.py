"""`demo`: gradio's own page and server, asked over HTTP as a browser asks it."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import requires
from pathlib import Path
from typing import Any

import pytest
from listeners import silent
from packaging.requirements import Requirement

import peft_instruct
from peft_instruct.commands.demo import demo
from peft_instruct.commands.generate import generate
from peft_instruct.errors import RecipeError, UnavailableError

ADAPTER = Path(peft_instruct.__file__).parent / "starter" / "adapters" / "quickstart-lora"
ASKED = "What is the opposite of hot?"
GREEDY = (0, 1, 1)


@dataclass(frozen=True)
class Serving:
    """A `peft-instruct demo` of its own process, whose server and threads leave nothing in this one."""

    process: subprocess.Popen[str]
    said: dict[str, Any]

    @property
    def url(self) -> str:
        return str(self.said["url"])


@contextmanager
def serving(*options: str, folder: Path, **environment: str) -> Iterator[Serving]:
    home = str(Path(peft_instruct.__file__).parent.parent)
    process = subprocess.Popen(
        [sys.executable, "-m", "peft_instruct", "demo", str(ADAPTER), "--device", "cpu", "--json", *options],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=folder,
        env={**os.environ, "PYTHONPATH": home, **environment},
    )  # fmt: skip
    with process:
        assert process.stdout is not None
        lines = ""
        while not lines.endswith("}\n"):
            lines += process.stdout.readline() or "}\n"
        try:
            yield Serving(process, json.loads(lines))
        finally:
            process.kill()


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    with serving("--compare", folder=tmp_path_factory.mktemp("page")) as result:
        yield result


Shown = tuple[str, str, str]
"""The tuned model's text, the base's, and the note."""


def posted(page: Serving, path: str, values: Sequence[Any]) -> Any:
    body = json.dumps({"data": values, "session_hash": "of-a-browser"}).encode()
    to = f"{page.url}gradio_api/{path}"
    return json.loads(fetched(urllib.request.Request(to, body, {"Content-Type": "application/json"})))


def answers_to(page: Serving, *values: Any) -> Iterator[Shown]:
    """What gradio's API gives, one event after the other, as a browser gets it."""
    event = posted(page, "call/answer", values)["event_id"]
    with urllib.request.urlopen(f"{page.url}gradio_api/call/answer/{event}", timeout=60) as lines:
        for line in lines:
            if line.startswith(b"data: ["):
                yield tuple(json.loads(line.removeprefix(b"data: ")))


def ask(page: Serving, instruction: str, most: int = 32, settings: tuple[float, ...] = GREEDY) -> Shown:
    *_, whole = answers_to(page, instruction, "", most, *settings)
    return whole


def fetched(url: str | urllib.request.Request) -> str:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return str(answer.read().decode())


def test_the_page_answers_as_generate_does_and_the_base_beside_it(page: Serving) -> None:
    tuned, base, note = ask(page, ASKED)
    (found,) = generate(str(ADAPTER), ASKED, compare=True, max_new_tokens=32, device="cpu", say=silent).completed
    assert found.base is not None
    assert (tuned, base, note) == (found.tuned.completion, found.base.completion, "")
    assert tuned != base


def test_an_answer_comes_piece_by_piece(page: Serving) -> None:
    *parts, (whole, base, _) = answers_to(page, "Tell a story about a fox.", "", 48, *GREEDY)
    texts = [text for text, _, _ in parts]
    assert len(set(texts)) > 1
    assert all(map(whole.startswith, texts))
    assert base and not parts[0][1]


def test_what_limits_an_answer_is_told(page: Serving) -> None:
    assert "ended by the limit after 1 tokens" in ask(page, "Tell a story about a fox.", most=1)[2]
    assert "sampled with seed" in ask(page, ASKED, settings=(1, 0.9, 1))[2]


def test_what_is_wrong_with_a_question_is_told_and_the_next_one_is_answered(page: Serving) -> None:
    assert ask(page, " ") == ("", "", "error: generate: 'instruction' is ' '. expected text.")
    assert ask(page, ASKED)[0]


def test_stop_ends_an_answer(page: Serving) -> None:
    # A penalty below 1 favours what was said: it goes on and on, and greedily always the same.
    endless = ("Tell a story.", "", 200, 0, 1, 0.5)
    *_, (whole, _, note) = answers_to(page, *endless)
    assert "ended by the limit" in note
    notes = []
    for _ in range(5):  # a busy machine may be done before it is told
        answers = answers_to(page, *endless)
        next(answers)
        posted(page, "run/stop", [])
        *_, (text, base, note) = answers
        notes.append(note)
        if note == "ended before its end":
            assert base == "" and text and whole.startswith(text)
            break
    assert "ended before its end" in notes


def test_hostile_text_stays_text(page: Serving) -> None:
    """All that shows an answer are text boxes; gradio's HTML and Markdown are nowhere on the page."""
    kinds = {each["type"] for each in json.loads(fetched(f"{page.url}config"))["components"]}
    assert "textbox" in kinds
    assert not kinds & {"html", "markdown", "chatbot", "code", "highlightedtext"}


def test_nothing_of_the_page_is_from_elsewhere(page: Serving) -> None:
    loads = re.findall(r"""(?:src|href|url)\s*[=(]\s*["']?(https?://[^"') ]+)""", fetched(page.url))
    styles = fetched(f"{page.url}theme.css")
    assert [url for url in loads if not url.startswith(page.url)] == []
    assert json.loads(fetched(f"{page.url}config"))["stylesheets"] == []
    assert "http" not in re.sub(r"http://www\.w3\.org/\S+", "", styles)


@pytest.mark.parametrize("name", ["manifest.json", "recipe.yaml"])
def test_no_file_is_served(page: Serving, name: str) -> None:
    with pytest.raises(urllib.error.HTTPError, match="403"):
        fetched(f"{page.url}gradio_api/file={ADAPTER / name}")


def test_another_site_cannot_ask(page: Serving) -> None:
    """A browser that has a foreign page open says from where it asks."""
    foreign = urllib.request.Request(f"{page.url}config", headers={"Origin": "https://example.com"})
    with urllib.request.urlopen(foreign, timeout=10) as answer:
        assert answer.headers.get("Access-Control-Allow-Origin") in (None, page.url.rstrip("/"))


def test_a_port_in_use_is_told() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        expected = f"--port: {port} is in use"
        with pytest.raises(RecipeError, match=expected), demo(str(ADAPTER), port=port, device="cpu", say=silent):
            pass


def test_without_gradio_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    every = map(Requirement, requires("peft-instruct") or [])
    (wanted,) = [each for each in every if each.marker and str(each.marker) == 'extra == "demo"']
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UnavailableError) as told, demo(str(ADAPTER), device="cpu", say=silent):
        pass
    (shown,) = re.findall(r"pip install '(.+)'", str(told.value))
    assert Requirement(shown).specifier == wanted.specifier


def test_it_is_for_this_machine_alone_whatever_the_environment_says_and_ends_with_ctrl_c(tmp_path: Path) -> None:
    with serving(folder=tmp_path, GRADIO_SERVER_NAME="0.0.0.0", GRADIO_SHARE="True") as page:
        assert page.said["base"] is None
        assert page.url.startswith("http://127.0.0.1:")
        port = int(page.url.rstrip("/").rsplit(":", 1)[1])
        # On Linux every address 127.x is this machine's: a server on all addresses would answer there.
        with socket.socket() as elsewhere:
            assert elsewhere.connect_ex(("127.0.0.2", port)) != 0
        assert "peft-instruct" in fetched(page.url)
        page.process.send_signal(signal.SIGINT)
        _, told = page.process.communicate(timeout=30)
        assert (page.process.returncode, told) == (130, "the page is closed\n")
    assert list(tmp_path.iterdir()) == []
