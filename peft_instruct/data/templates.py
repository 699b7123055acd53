"""The templates that a recipe may name: data, saved with the adapter and used wherever it is prompted.

What the fields mean stands in data/template.py.
"""

from __future__ import annotations

from peft_instruct.data.template import Template
from peft_instruct.data.types import Example
from peft_instruct.errors import RecipeError
from peft_instruct.recipe.data_section import CustomTemplate

__all__ = ["ALPACA", "AS_IS", "GOLDEN_EXAMPLES", "NAMED_TEMPLATES", "PLAIN", "Template", "template_of"]

ALPACA = Template(
    # github.com/tatsu-lab/stanford_alpaca, train.py; with one newline after the last header, where Stanford has none.
    name="alpaca",
    with_input=(
        "Below is an instruction that describes a task, paired with an input that provides further context. "
        "Write a response that appropriately completes the request.\n\n"
        "### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:\n"
    ),
    without_input=(
        "Below is an instruction that describes a task. "
        "Write a response that appropriately completes the request.\n\n"
        "### Instruction:\n{instruction}\n\n### Response:\n"
    ),
    with_system="{system}\n\n### Instruction:\n{instruction}\n\n### Response:\n",
    follow_up="\n\n### Instruction:\n{instruction}\n\n### Response:\n",
)
ALPACA_SHORT = Template(
    # github.com/tloen/alpaca-lora, templates/alpaca_short.json; a third of Alpaca's tokens before the instruction.
    name="alpaca_short",
    with_input="### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:\n",
    without_input="### Instruction:\n{instruction}\n\n### Response:\n",
    with_system="{system}\n\n### Instruction:\n{instruction}\n\n### Response:\n",
    follow_up="\n\n### Instruction:\n{instruction}\n\n### Response:\n",
)
PLAIN = Template(
    name="plain",
    with_input="{instruction}\n{input}\n",
    without_input="{instruction}\n",
    with_system="{system}\n{instruction}\n",
    follow_up="\n{instruction}\n",
)
CHATML = Template(
    # github.com/openai/openai-python, chatml.md (v0.27). GPT-2 has none of these tokens and reads them as text.
    name="chatml",
    with_input="<|im_start|>user\n{instruction}\n\n{input}<|im_end|>\n<|im_start|>assistant\n",
    without_input="<|im_start|>user\n{instruction}<|im_end|>\n<|im_start|>assistant\n",
    with_system=(
        "<|im_start|>system\n{system}<|im_end|>\n<|im_start|>user\n{instruction}<|im_end|>\n<|im_start|>assistant\n"
    ),
    follow_up="\n<|im_start|>user\n{instruction}<|im_end|>\n<|im_start|>assistant\n",
    stop="<|im_end|>",
)
PHI3 = Template(
    # huggingface.co/microsoft/Phi-3-mini-4k-instruct, README.md, chat format.
    name="phi3",
    with_input="<|user|>\n{instruction}\n{input}<|end|>\n<|assistant|>\n",
    without_input="<|user|>\n{instruction}<|end|>\n<|assistant|>\n",
    with_system="<|system|>\n{system}<|end|>\n<|user|>\n{instruction}<|end|>\n<|assistant|>\n",
    follow_up="\n<|user|>\n{instruction}<|end|>\n<|assistant|>\n",
    stop="<|end|>",
)
VICUNA = Template(
    # github.com/lm-sys/FastChat, fastchat/conversation.py, vicuna_v1.1: the answer begins with a space.
    name="vicuna",
    with_input=(
        "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, "
        "detailed, and polite answers to the user's questions. USER: {instruction}\n{input} ASSISTANT:"
    ),
    without_input=(
        "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, "
        "detailed, and polite answers to the user's questions. USER: {instruction} ASSISTANT:"
    ),
    with_system="{system} USER: {instruction} ASSISTANT:",
    follow_up="USER: {instruction} ASSISTANT:",
    answer=" {answer}",
)
BOS_SEP_EOS = Template(
    # [BOS, instruction, SEP, answer, EOS] of the GPT-2 tutorials; GPT-2's one special token serves as all three.
    name="bos_sep_eos",
    with_input="{bos}{instruction}\n{input}{sep}",
    without_input="{bos}{instruction}{sep}",
    with_system="{bos}{system}\n{instruction}{sep}",
    follow_up="{bos}{instruction}{sep}",
)

AS_IS = Template(name="as_is", with_input="{instruction}{input}", without_input="{instruction}")
"""For rows that already are prompts, and for plain text."""

NAMED_TEMPLATES = {
    template.name: template for template in (ALPACA, ALPACA_SHORT, PLAIN, CHATML, PHI3, VICUNA, BOS_SEP_EOS)
}

GOLDEN_EXAMPLES = (
    Example("Name three primary colours.", "", "Red, yellow and blue.", "golden 1"),
    Example(
        "Rewrite the sentence in the past tense.",
        "She says: \"It's 7 o'clock – let's go!\"",
        "She said: …",
        "golden 2",
    ),
)
"""Their token ids are saved with an adapter; a tokenizer or template that gives others is refused."""


def template_of(section: str | CustomTemplate) -> Template:
    """The template that a recipe names or spells out.

    Raises:
        RecipeError: `tokenizer`, which is read off a tokenizer (data/chat_templates.py) and given by the caller.
    """
    if isinstance(section, str):
        if section not in NAMED_TEMPLATES:
            raise RecipeError(f"data.template: {section} is not known before the tokenizer is. Name another here.")
        return NAMED_TEMPLATES[section]
    without = section.prompt if section.prompt_without_input is None else section.prompt_without_input
    return Template(
        name="custom",
        with_input=section.prompt,
        without_input=without,
        with_system=section.prompt_with_system or "",
        follow_up=section.follow_up or "",
        answer=section.answer,
        stop=section.stop or "",
    )
