"""A template puts an example's fields in once, and other tools render the same prompt from its chat template."""

from __future__ import annotations

import string
from pathlib import Path
from typing import Any

import pytest
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st
from tiny import END_OF_TEXT, write_tiny_tokenizer

from peft_instruct.data.templates import ALPACA, AS_IS, GOLDEN_EXAMPLES, PLAIN, Template, template_of
from peft_instruct.data.types import Example
from peft_instruct.recipe.schema import CustomTemplate

CUSTOM = template_of(
    CustomTemplate(prompt="Q: {instruction} ({input})\nA:\n", prompt_without_input="Q: {instruction}\nA:\n")
)
ODD = Template("odd", "{input}{instruction}{input}\n", "\"\\{{x}} %s {instruction} 'é' {% raw %} 名\n")
TEMPLATES = (ALPACA, PLAIN, CUSTOM, ODD)
NAMES = [template.name for template in TEMPLATES]
TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30)


def test_the_alpaca_template_is_stanfords_with_one_newline_after_the_header() -> None:
    """github.com/tatsu-lab/stanford_alpaca, train.py, PROMPT_DICT; there the prompt ends in the colon."""
    assert ALPACA.prompt("Do it.", "With this.") == (
        "Below is an instruction that describes a task, paired with an input that provides further context. "
        "Write a response that appropriately completes the request.\n\n"
        "### Instruction:\nDo it.\n\n### Input:\nWith this.\n\n### Response:\n"
    )
    assert ALPACA.prompt("Do it.") == (
        "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"
        "### Instruction:\nDo it.\n\n### Response:\n"
    )


@pytest.mark.parametrize("template", TEMPLATES, ids=NAMES)
def test_a_prompt_ends_in_a_single_newline(template: Template) -> None:
    """GPT-2's BPE merges two newlines, a colon or a space with what follows (shared/STACK.md, 2.1)."""
    for text in (template.with_input, template.without_input):
        assert text.endswith("\n") and not text.endswith("\n\n")


@settings(max_examples=100, deadline=None)
@given(instruction=TEXT, input=TEXT)
@example(instruction="{input}", input="{instruction}")
@example(instruction="\\1 {0} {} {instruction}", input="$1 %s {{input}}")
def test_text_of_the_user_is_never_taken_for_a_field(instruction: str, input: str) -> None:
    """Reference: string.Formatter over a template whose other braces are doubled."""
    for template in TEMPLATES:
        text = template.with_input if input.strip() else template.without_input
        safe = text.replace("{", "{{").replace("}", "}}")
        for field in ("{instruction}", "{input}"):
            safe = safe.replace(f"{{{field}}}", field)
        expected = string.Formatter().vformat(safe, (), {"instruction": instruction, "input": input})
        assert template.prompt(instruction, input) == expected


@pytest.mark.parametrize("input", ["", " ", "\n", "\t "])
def test_a_blank_input_is_no_input(input: str) -> None:
    assert ALPACA.prompt("Do it.", input) == ALPACA.prompt("Do it.")


def test_a_custom_template_without_a_second_text_uses_the_first(tmp_path: Path) -> None:
    template = template_of(CustomTemplate(prompt="{instruction}|{input}|\n"))
    assert template.prompt("a") == "a||\n"
    assert template.prompt("a", "b") == "a|b|\n"


def test_rendering_keeps_what_travels_with_an_example() -> None:
    row = PLAIN.render(Example("a", "b", "c", "f.json:3", accepted=("c", "C"), group="g"))
    assert (row.prompt, row.completion, row.origin, row.accepted, row.group) == (
        "a\nb\n",
        "c",
        "f.json:3",
        ("c", "C"),
        "g",
    )


def test_rows_that_are_prompts_already_are_left_as_they_are() -> None:
    assert AS_IS.prompt("any {input} text\n") == "any {input} text\n"


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    from transformers import AutoTokenizer

    folder = tmp_path_factory.mktemp("tokenizer")
    write_tiny_tokenizer(folder)
    return AutoTokenizer.from_pretrained(str(folder))


@settings(max_examples=60, deadline=None, phases=(Phase.explicit, Phase.generate, Phase.shrink))
@given(instruction=TEXT)
@example(instruction="{{ eos_token }}{% if %}")
@example(instruction="{instruction}")
@example(instruction="\n two \n\n lines \n")
def test_the_chat_template_renders_the_prompt_of_training(tokenizer: Any, instruction: str) -> None:
    messages = [{"role": "user", "content": instruction}]
    for template in TEMPLATES:
        text = tokenizer.apply_chat_template(
            messages, chat_template=template.chat_template(), tokenize=False, add_generation_prompt=True
        )
        assert text == template.prompt(instruction)


def test_the_chat_template_renders_a_whole_row_as_it_was_trained(tokenizer: Any) -> None:
    messages = [{"role": "user", "content": "Say hi."}, {"role": "assistant", "content": "Hi."}]
    for template in TEMPLATES:
        text = tokenizer.apply_chat_template(messages, chat_template=template.chat_template(), tokenize=False)
        assert text == template.prompt("Say hi.") + "Hi." + END_OF_TEXT


def test_other_trainers_find_the_assistants_tokens_in_the_chat_template(tokenizer: Any) -> None:
    """`{% generation %}` is what transformers and TRL mask by."""
    messages = [{"role": "user", "content": "Say hi."}, {"role": "assistant", "content": "Hi."}]
    encoded = tokenizer.apply_chat_template(
        messages,
        chat_template=PLAIN.chat_template(),
        tokenize=True,
        return_dict=True,
        return_assistant_tokens_mask=True,
    )
    learned = [i for i, mask in zip(encoded["input_ids"], encoded["assistant_masks"], strict=True) if mask]
    assert tokenizer.decode(learned) == "Hi." + END_OF_TEXT


def test_the_golden_examples_cover_both_texts_and_other_scripts() -> None:
    inputs = [example.input for example in GOLDEN_EXAMPLES]
    assert "" in inputs and any(text.strip() for text in inputs)
    assert any(ord(letter) > 127 for text in inputs for letter in text)
