"""A tokenizer's chat template as texts with fields: the same text, the same ids, the same answers trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from tiny import END_OF_TEXT, write_tiny_tokenizer

from peft_instruct.data.chat_templates import own_template, written_out
from peft_instruct.data.templates import NAMED_TEMPLATES, Template
from peft_instruct.data.tokens import prompt_ids, tokenize
from peft_instruct.data.types import IGNORED_LABEL, Example, Exchange
from peft_instruct.errors import RecipeError

SPECIAL = ("<|im_start|>", "<|im_end|>", "<|user|>", "<|assistant|>", "<|system|>", "<|end|>", "<s>", "</s>", "[INST]",
           "[/INST]", "<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>")  # fmt: skip
CHATML = (
    "{%- if messages[0]['role'] != 'system' -%}{{ '<|im_start|>system\nYou are a helper.<|im_end|>\n' }}{%- endif -%}"
    "{%- for m in messages -%}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>' + '\n' }}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\n' }}{%- endif -%}"
)
LLAMA_3 = (
    "{{ '<s>' }}{%- for m in messages -%}{{ '<|start_header_id|>' + m.role + '<|end_header_id|>\n\n' + m.content|trim "
    "+ '<|eot_id|>' }}{%- endfor -%}{%- if add_generation_prompt -%}{{ '<|start_header_id|>assistant<|end_header_id|>"
    "\n\n' }}{%- endif -%}"
)
LLAMA_2 = (
    "{%- set told = messages[0].role == 'system' -%}{%- for m in messages if m.role != 'system' -%}"
    "{%- if m.role == 'user' -%}{{ '<s>[INST] ' }}{%- if loop.first and told -%}{{ '<<SYS>>\n' + messages[0].content + "
    "'\n<</SYS>>\n\n' }}{%- endif -%}{{ m.content + ' [/INST]' }}{%- else -%}{{ ' ' + m.content + ' </s>' }}"
    "{%- endif -%}{%- endfor -%}"
)
PHI_3 = (
    "{%- for m in messages -%}{{ '<|' + m.role + '|>\n' + m.content + '<|end|>\n' }}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<|assistant|>\n' }}{%- endif -%}"
)
NO_SYSTEM = (
    "{%- if messages[0].role == 'system' -%}{{ raise_exception('no system message') }}{%- endif -%}{{ bos_token }}"
    "{%- for m in messages -%}{%- if m.role == 'user' -%}{{ '<|user|>' + m.content + '<|assistant|>' }}{%- else -%}"
    "{{ m.content + '</s>' }}{%- endif -%}{%- endfor -%}"
)
THINKING = (
    "{%- for m in messages -%}{{ '<|im_start|>' + m.role + '\n' }}"
    "{%- if m.role == 'assistant' and loop.last -%}{{ '<think>\n\n</think>\n\n' }}{%- endif -%}"
    "{{ m.content + '<|im_end|>\n' }}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\n' }}{%- endif -%}"
)
SOURCES = {"chatml": CHATML, "llama 3": LLAMA_3, "llama 2": LLAMA_2, "phi 3": PHI_3, "no system": NO_SYSTEM}
QUICKLY = settings(max_examples=25, deadline=None, phases=(Phase.explicit, Phase.generate, Phase.shrink))
WORD = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="<[{"), min_size=1, max_size=20)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    from peft_instruct.model.tokenizer import load_tokenizer

    folder = tmp_path_factory.mktemp("tokenizer")
    write_tiny_tokenizer(folder)
    loaded = load_tokenizer(folder)
    loaded.add_special_tokens({"additional_special_tokens": list(SPECIAL)})
    return loaded


def _own(tokenizer: Any, source: str | None) -> Template:
    tokenizer.chat_template = source
    return own_template(tokenizer)


@pytest.fixture(scope="module")
def templates(tokenizer: Any) -> dict[str, Template]:
    """Each is read off in processes of its own, which is what costs; no text of a row is part of it."""
    return {name: _own(tokenizer, source) for name, source in SOURCES.items()}


def _messages(system: str, *texts: str) -> list[dict[str, str]]:
    spoken = [{"role": ("user", "assistant")[number % 2], "content": text} for number, text in enumerate(texts)]
    return [{"role": "system", "content": system}, *spoken] if system else spoken


@pytest.mark.parametrize("name", SOURCES)
@QUICKLY
@given(system=WORD.filter(str.strip), texts=st.lists(WORD, min_size=5, max_size=5))
def test_a_conversation_is_the_text_of_the_chat_template(
    tokenizer: Any, templates: dict[str, Template], name: str, system: str, texts: list[str]
) -> None:
    template, tokenizer.chat_template = templates[name], SOURCES[name]
    told = system if template.with_system else ""
    earlier = (Exchange(texts[0], texts[1]), Exchange(texts[2], texts[3]))
    row = template.render(Example(texts[4], "", "x", "here", system=told, earlier=earlier))
    theirs = tokenizer.apply_chat_template(_messages(told, *texts), tokenize=False, add_generation_prompt=True)
    assert written_out(row.prompt, template.stop) == theirs


@pytest.mark.parametrize("name", SOURCES)
def test_the_ids_are_those_of_the_chat_template_and_the_answers_are_trained(tokenizer: Any, name: str) -> None:
    template = _own(tokenizer, SOURCES[name])
    before, tokenizer.eos_token = tokenizer.eos_token, template.stop
    try:
        row = template.render(Example("And now?", "", "Then.", "here", earlier=(Exchange("Hi.", "Ho."),)))
        ((tokens,), _) = tokenize([row], tokenizer, max_length=1000)
        asked = tokenizer.apply_chat_template(
            _messages("", "Hi.", "Ho.", "And now?"), add_generation_prompt=True, return_dict=False
        )
        assert prompt_ids(tokenizer, [row.prompt])[0] == asked
        whole = tokenizer.apply_chat_template(_messages("", "Hi.", "Ho.", "And now?", "Then."), return_dict=False)
        assert list(tokens.input_ids) == whole[: len(tokens.input_ids)]
        learned = [
            token for token, label in zip(tokens.input_ids, tokens.labels, strict=True) if label != IGNORED_LABEL
        ]
        expected = "".join(template.completion(text) + template.stop for text in ("Ho.", "Then."))
        assert tokenizer.decode(learned, clean_up_tokenization_spaces=False) == expected
    finally:
        tokenizer.eos_token = before


def test_what_is_read_off_llama_2(tokenizer: Any) -> None:
    found = _own(tokenizer, LLAMA_2)
    assert found == Template(
        "tokenizer",
        with_input="<s>[INST] {instruction}\n\n{input} [/INST]",
        without_input="<s>[INST] {instruction} [/INST]",
        with_system="<s>[INST] <<SYS>>\n{system}\n<</SYS>>\n\n{instruction} [/INST]",
        follow_up="<s>[INST] {instruction} [/INST]",
        answer=" {answer} ",
        stop="</s>",
    )


def test_what_is_stripped_by_a_chat_template_is_stripped_by_ours(tokenizer: Any) -> None:
    found = _own(tokenizer, LLAMA_3)
    assert found.strips
    assert found.prompt(" Hi.\n").endswith("\n\nHi.<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n")
    assert found.completion(" Ho.\n") == "Ho." and not _own(tokenizer, CHATML).strips


def test_a_chat_template_that_rewrites_earlier_answers_is_for_single_exchanges(tokenizer: Any) -> None:
    found = _own(tokenizer, THINKING)
    assert (found.follow_up, found.answer) == ("", "<think>\n\n</think>\n\n{answer}")
    assert found.output("<think>\n\n</think>\n\nHo.") == "Ho."
    assert found.lost(Example("a", "", "b", "here", earlier=(Exchange("c", "d"),))) == "follow_up"


def test_a_template_without_a_place_for_a_system_message(tokenizer: Any) -> None:
    assert _own(tokenizer, NO_SYSTEM).with_system == ""


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (None, "the tokenizer has no chat template"),
        ("{{ nothing.at.all }}", "its chat template fails"),
        ("{% for m in messages %}", "its chat template fails"),
        ("{{ raise_exception('not me') }}", "its chat template fails (not me)"),
        ("fixed text", "its prompt is not the beginning"),
        ("{{ messages|length }}{{ messages[0].content }}", "its prompt is not the beginning"),
    ],
)
def test_a_chat_template_that_cannot_be_used_is_refused(tokenizer: Any, source: str | None, expected: str) -> None:
    with pytest.raises(RecipeError) as caught:
        _own(tokenizer, source)
    assert str(caught.value).startswith(f"data.template: tokenizer: {expected}")


@pytest.mark.parametrize("name", NAMED_TEMPLATES)
def test_a_template_comes_back_out_of_its_own_chat_template(tokenizer: Any, name: str) -> None:
    """The inverse of `Template.chat_template`; `{bos}` and the like come back as the tokens they stand for."""
    template = NAMED_TEMPLATES[name]
    found = _own(tokenizer, template.chat_template())
    for key in ("without_input", "with_system", "follow_up"):
        expected = getattr(template, key)
        for token in ("{bos}", "{sep}"):
            expected = expected.replace(token, END_OF_TEXT)
        assert getattr(found, key) == expected, key
    assert (found.answer, found.stop, found.strips) == (template.answer, END_OF_TEXT, False)


def test_trls_assistant_only_loss_trains_the_same_tokens(tokenizer: Any, tmp_path: Path) -> None:
    """SFTTrainer with `assistant_only_loss` on the messages, by the chat template that is exported with a merge."""
    import torch
    from datasets import Dataset
    from transformers import GPT2Config, GPT2LMHeadModel
    from trl import SFTConfig, SFTTrainer

    texts = ["What is 1 and 1?", "Two.", "And 2 and 2?", "It is four.\nSure.", "Thanks, bye!", "Bye."]
    conversations = [("", texts), ("Be brief.", texts[:4]), ("", texts[:2])]
    for name, template in NAMED_TEMPLATES.items():
        tokenizer.chat_template = template.chat_template()
        with torch.device("cpu"):
            model = GPT2LMHeadModel(GPT2Config(vocab_size=len(tokenizer), n_embd=2, n_layer=1, n_head=1))
        arguments = SFTConfig(
            output_dir=str(tmp_path), max_length=1024, assistant_only_loss=True, report_to="none", use_cpu=True,
            bf16=False, gradient_checkpointing=False, disable_tqdm=True,
        )  # fmt: skip
        rows = Dataset.from_list([{"messages": _messages(system, *said)} for system, said in conversations])
        trainer = SFTTrainer(model, arguments, train_dataset=rows, processing_class=tokenizer)
        for row, (system, said) in zip(trainer.train_dataset, conversations, strict=True):
            *earlier, (asked, output) = zip(said[::2], said[1::2], strict=True)
            exchanges = tuple(Exchange(*pair) for pair in earlier)
            ours = template.render(Example(asked, "", output, "here", system=system, earlier=exchanges))
            ((tokens,), _) = tokenize([ours], tokenizer, max_length=1024)
            assert list(tokens.input_ids) == row["input_ids"], name
            labels = row.get("labels") or [
                token if mask else IGNORED_LABEL
                for token, mask in zip(row["input_ids"], row["assistant_masks"], strict=True)
            ]
            assert list(tokens.labels) == labels, name
