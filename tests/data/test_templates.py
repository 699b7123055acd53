"""A template puts an example's fields in once, and other tools render the same prompt from its chat template."""

from __future__ import annotations

import copy
import json
import pickle
import string
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st
from tiny import END_OF_TEXT, write_tiny_tokenizer

from peft_instruct.data.templates import (
    ALPACA,
    AS_IS,
    GOLDEN_EXAMPLES,
    NAMED_TEMPLATES,
    PLAIN,
    Template,
    template_of,
)
from peft_instruct.data.types import Example, Exchange, Prompt, Span
from peft_instruct.recipe.data_section import CustomTemplate, DataSection

CUSTOM = template_of(
    CustomTemplate(prompt="Q: {instruction} ({input})\nA:\n", prompt_without_input="Q: {instruction}\nA:\n")
)
ODD = Template("odd", "{input}{instruction}{input}\n", "\"\\{{x}} %s {instruction} 'é' {% raw %} 名\n")
TEMPLATES = (*NAMED_TEMPLATES.values(), CUSTOM, ODD)
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
def test_a_prompt_ends_where_no_tokenizer_merges_it_with_the_answer(template: Template) -> None:
    """GPT-2's BPE merges two newlines, a colon or a space with what follows (shared/STACK.md, 2.1).

    So a prompt ends in a single newline, or in a special token, or the answer begins with the space (Vicuna's).
    """
    for text in filter(None, (template.with_input, template.without_input, template.with_system, template.follow_up)):
        ends_well = text.endswith(("\n", "{sep}")) or template.answer.startswith(" ")
        assert ends_well and not text.endswith(("\n\n", " "))


def test_a_recipe_may_name_exactly_the_templates_of_the_table() -> None:
    named = get_args(get_args(DataSection.model_fields["template"].annotation)[0])
    assert set(named) == {*NAMED_TEMPLATES, "tokenizer"}
    assert all(name == template.name for name, template in NAMED_TEMPLATES.items())


def test_the_templates_are_those_of_their_sources() -> None:
    """Stated in data/templates.py beside each; here as a reader of those pages would copy them."""
    prompts = {name: str(template.prompt("Hi.", "1")) for name, template in NAMED_TEMPLATES.items()}
    assert prompts["alpaca_short"] == "### Instruction:\nHi.\n\n### Input:\n1\n\n### Response:\n"
    assert prompts["chatml"] == "<|im_start|>user\nHi.\n\n1<|im_end|>\n<|im_start|>assistant\n"
    assert prompts["phi3"] == "<|user|>\nHi.\n1<|end|>\n<|assistant|>\n"
    assert prompts["vicuna"].endswith("polite answers to the user's questions. USER: Hi.\n1 ASSISTANT:")
    assert prompts["bos_sep_eos"] == "<bos>Hi.\n1<sep>"


@settings(max_examples=50, deadline=None)
@given(output=TEXT)
def test_an_answer_comes_back_out_of_its_completion(output: str) -> None:
    """`output` is the inverse of `completion`, whatever an answer is wrapped in."""
    wrapped = Template("wrapped", "{instruction}{input}", "{instruction}", answer="<a> {answer}\n</a>")
    for template in (*TEMPLATES, wrapped):
        assert template.output(template.completion(output)) == output
    assert wrapped.output("<a> not closed") == "not closed"


@settings(max_examples=100, deadline=None)
@given(instruction=TEXT, input=TEXT)
@example(instruction="{input}", input="{instruction}")
@example(instruction="\\1 {0} {} {instruction}", input="$1 %s {{input}}")
def test_text_of_the_user_is_never_taken_for_a_field(instruction: str, input: str) -> None:
    """Reference: string.Formatter over a template whose other braces are doubled."""
    for template in TEMPLATES:
        text = template.with_input if input.strip() else template.without_input
        safe = text.replace("{", "{{").replace("}", "}}")
        for field in ("{instruction}", "{input}", "{bos}", "{sep}"):
            safe = safe.replace(f"{{{field}}}", field)
        fields = {"instruction": instruction, "input": input, "bos": "<bos>", "sep": "<sep>"}
        expected = string.Formatter().vformat(safe, (), fields)
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


def _spelled(prompt: Prompt) -> str:
    """The text that other tools tokenise: this tokenizer's one special token spelled out."""
    return "".join(END_OF_TEXT if span.kind == "token" else span.text for span in prompt.spans)


@settings(max_examples=30, deadline=None, phases=(Phase.explicit, Phase.generate, Phase.shrink))
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
        assert text == _spelled(template.prompt(instruction))


def test_the_chat_template_renders_a_whole_row_as_it_was_trained(tokenizer: Any) -> None:
    messages = [{"role": "user", "content": "Say hi."}, {"role": "assistant", "content": "Hi."}]
    for template in TEMPLATES:
        text = tokenizer.apply_chat_template(messages, chat_template=template.chat_template(), tokenize=False)
        assert text == _spelled(template.prompt("Say hi.")) + template.completion("Hi.") + END_OF_TEXT


@pytest.mark.parametrize("text", ["{instruction}\n", "{bos}{instruction}\n", END_OF_TEXT + "{instruction}\n"])
@pytest.mark.parametrize("system", ["", "{system}: {instruction}\n", "{bos}{system}: {instruction}\n"])
def test_where_the_tokenizer_begins_every_text_the_chat_template_begins_once(
    tokenizer: Any, text: str, system: str
) -> None:
    template = replace(PLAIN, without_input=text, with_system=system)
    asked = {"role": "user", "content": "Say hi."}
    for messages in ([asked], [{"role": "system", "content": "Be kind."}, asked]):
        rendered = tokenizer.apply_chat_template(
            messages, chat_template=template.chat_template(END_OF_TEXT), tokenize=False
        )
        assert rendered.startswith(END_OF_TEXT) and rendered.count(END_OF_TEXT) == 1


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


def test_a_prompt_reads_as_its_text_and_travels_with_its_spans() -> None:
    prompt = ALPACA.prompt("Say hi.")
    assert prompt == str(prompt) and {prompt: 1}[str(prompt)] == 1 and json.loads(json.dumps(prompt)) == prompt
    for travelled in (pickle.loads(pickle.dumps(prompt)), copy.deepcopy(prompt)):
        assert travelled == prompt and travelled.spans == prompt.spans
    assert not isinstance(prompt.strip(), Prompt), "what is cut from a prompt is plain text, all of it data"
    assert not Prompt([]) and Prompt([Span("answer", "")]).spans, "an empty answer still has a stop token"


CONVERSATION = Example(
    "c?", "", "C.", "here", system="Be brief.", earlier=(Exchange("a?", "A."), Exchange("b?", "B.", learned=False))
)


@pytest.mark.parametrize("template", NAMED_TEMPLATES.values(), ids=list(NAMED_TEMPLATES))
def test_the_chat_template_renders_a_conversation_as_it_was_trained(template: Template, tokenizer: Any) -> None:
    row = template.render(CONVERSATION)
    messages = [
        {"role": role, "content": text}
        for role, text in zip(
            ("system", "user", "assistant", "user", "assistant", "user", "assistant"),
            ("Be brief.", "a?", "A.", "b?", "B.", "c?", "C."),
            strict=True,
        )
    ]
    text = tokenizer.apply_chat_template(messages, chat_template=template.chat_template(), tokenize=False)
    assert isinstance(row.prompt, Prompt)
    spans = [
        END_OF_TEXT if span.kind == "token" else span.text + END_OF_TEXT * ("answer" in span.kind)
        for span in row.prompt.spans
    ]
    assert text == "".join(spans) + row.completion + END_OF_TEXT
    assert template.lost(CONVERSATION) == ""


def test_what_has_no_place_in_a_template_is_told() -> None:
    assert CUSTOM.lost(CONVERSATION) == "prompt_with_system"
    assert CUSTOM.lost(Example("c?", "", "C.", "here", earlier=(Exchange("a?", "A."),))) == "follow_up"
    assert Template("t", "{instruction}", "{instruction}").lost(Example("a", "b", "c", "here")) == "{input}"
    assert CUSTOM.lost(Example("a", "b", "c", "here")) == ""
