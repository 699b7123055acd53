"""A chat template of someone else renders as transformers does it, and reaches nothing, in bounded time and memory."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from tiny import write_tiny_base

from peft_instruct.data import rendering
from peft_instruct.data.chat_templates import own_template
from peft_instruct.data.rendering import ChatTemplateError, render_chat
from peft_instruct.errors import RecipeError
from peft_instruct.model.tokenizer import load_tokenizer

MESSAGES = [{"role": "user", "content": "a < b & 'c' é"}, {"role": "assistant", "content": "x"}]
FAITHFUL = """\
{%- if not messages %}{{ raise_exception('none') }}{% endif -%}
{% for message in messages %}
    {%- if loop.index > 5 %}{% break %}{% endif %}
    {% if message['role'] == 'assistant' %}{% generation %}{{ message.content | tojson }}
{{- eos_token }}{% endgeneration %}
    {% else %}
<{{ message['role'] | upper }}> {{ message['content'] | trim }}
    {% endif %}
{% endfor %}
{% if add_generation_prompt %}
<ASSISTANT>
{% endif %}{{ tools is none }}{{ bos_token }}"""


@pytest.mark.parametrize("asks", [True, False])
def test_it_renders_as_transformers_does(asks: bool, tiny_base_folder: Path) -> None:
    tokenizer = load_tokenizer(tiny_base_folder)
    theirs = tokenizer.apply_chat_template(MESSAGES, chat_template=FAITHFUL, tokenize=False, add_generation_prompt=asks)
    assert render_chat(FAITHFUL, MESSAGES, asks, tokenizer.special_tokens_map) == theirs


ESCAPES = (
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ cycler.__init__.__globals__.os.popen('touch CANARY').read() }}",
    "{{ self.__init__.__globals__.__builtins__.open('CANARY', 'w') }}",
    "{{ lipsum.__globals__['os'].system('touch CANARY') }}",
    "{{ ''|attr('__class__') }}{{ ('' | attr('format')).__globals__.x.y }}",
    "{{ '{0.__class__.__init__.__globals__}'.format(cycler) }}{{ cycler.next.__globals__.x.y }}",
    "{% include '/etc/passwd' %}",
    "{% import 'os' as os %}{{ os.system('touch CANARY') }}",
    "{{ messages.append(1) }}",
    "{{ strftime_now.__globals__['sys'] }}",
)
BOMBS = (
    "{% for a in range(99999) %}{% for b in range(99999) %}{% set c = a %}{% endfor %}{% endfor %}",
    "{{ 'a' * 10**10 }}",
    "{% set ns = namespace(t='aaaaaaaa') %}{% for i in range(60) %}{% set ns.t = ns.t ~ ns.t %}{% endfor %}{{ ns.t }}",
    "{{ 10 ** (10 ** 10) }}",
    "{{ 'a'.center(10 ** 11) }}",
    "{% for i in range(10 ** 9) %}x{% endfor %}",
    "{{ 'x' * (2 * 1024 * 1024) }}",
    "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
)


@pytest.mark.parametrize("template", ESCAPES)
def test_an_escape_reaches_nothing(template: str, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    with pytest.raises(ChatTemplateError):
        render_chat(template.replace("CANARY", str(canary)), MESSAGES, False, {})
    assert not canary.exists()


def test_the_date_is_the_same_every_day() -> None:
    """Else a run that is stopped before midnight could not go on after it."""
    dated = "{% if strftime_now is defined %}{{ strftime_now('%d %b %Y') }}{% endif %}"
    assert render_chat(dated, MESSAGES, False, {}) == "26 Jul 2024"


def test_a_system_that_limits_no_address_space_limits_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """As macOS does; a mock, for want of one."""
    resource = pytest.importorskip("resource")
    limited = []

    def setrlimit(what: int, limits: tuple[int, int]) -> None:
        if what == resource.RLIMIT_AS:
            raise ValueError("current limit exceeds maximum limit")
        limited.append(what)

    monkeypatch.setattr(resource, "setrlimit", setrlimit)
    rendering._limit()
    assert limited == [resource.RLIMIT_CPU]


@pytest.mark.parametrize("template", BOMBS)
def test_a_bomb_is_ended(template: str) -> None:
    began = time.process_time()
    with pytest.raises(ChatTemplateError):
        render_chat(template, MESSAGES, False, {})
    assert time.process_time() - began < 1


@pytest.mark.parametrize("template", [BOMBS[1], "{{ nothing.at.all }}", "{% if %}", "{{ raise_exception('no') }}"])
def test_a_base_with_such_a_template_is_told(template: str, tmp_path: Path) -> None:
    base = write_tiny_base(tmp_path / "base")
    path = base / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"chat_template": template}))
    with pytest.raises(RecipeError, match=r"data\.template: tokenizer: its chat template fails"):
        own_template(load_tokenizer(base))
