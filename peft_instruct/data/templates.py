"""How an example becomes a prompt. A template is data, saved with the adapter and used wherever it is prompted."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

from peft_instruct.data.types import Example, PromptCompletion
from peft_instruct.recipe.schema import CustomTemplate

_FIELD = re.compile(r"\{(instruction|input)\}")


@dataclass(frozen=True)
class Template:
    """Two texts with `{instruction}` and `{input}` in them; the completion follows at once.

    Each ends in a single newline: GPT-2's BPE merges two newlines, a colon or a space with what follows, and then
    the prompt that a model was trained on could not be typed (measured with GPT-2's BPE; see data/tokens.py).
    """

    name: str
    with_input: str
    without_input: str

    def prompt(self, instruction: str, input: str = "") -> str:
        """The prompt of one example; fields are put in once, so text of the user is never taken for a field."""
        fields = {"instruction": instruction, "input": input}
        text = self.with_input if input.strip() else self.without_input
        return _FIELD.sub(lambda field: fields[field[1]], text)

    def render(self, example: Example) -> PromptCompletion:
        return PromptCompletion(
            prompt=self.prompt(example.instruction, example.input),
            completion=example.output,
            origin=example.origin,
            asked=f"{example.instruction}\n{example.input}".strip(),
            accepted=example.accepted,
            group=example.group,
        )

    def chat_template(self, starts_with_bos: bool = False) -> str:
        """The same prompt as a Jinja chat template, so that other tools prompt the model as it was trained.

        A user's message is the instruction; an assistant's message is followed by the end-of-text token.

        Args:
            starts_with_bos: the tokenizer puts a beginning-of-text token before every text.
        """
        pieces = self.without_input.replace("{input}", "").split("{instruction}")
        prompt = " + message['content'] + ".join(_literal(piece) for piece in pieces)
        return (
            ("{{- bos_token -}}" if starts_with_bos else "") + "{%- for message in messages -%}"
            "{%- if message['role'] == 'assistant' -%}"
            "{% generation %}{{ message['content'] + eos_token }}{% endgeneration %}"
            "{%- else -%}"
            f"{{{{ {prompt} }}}}"
            "{%- endif -%}"
            "{%- endfor -%}"
        )


ALPACA = Template(
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
)
PLAIN = Template(name="plain", with_input="{instruction}\n{input}\n", without_input="{instruction}\n")
AS_IS = Template(name="as_is", with_input="{instruction}{input}", without_input="{instruction}")
"""For rows that already are prompts, and for plain text."""

_NAMED = {template.name: template for template in (ALPACA, PLAIN)}

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
    """The template that a recipe names or spells out."""
    if isinstance(section, CustomTemplate):
        without = section.prompt if section.prompt_without_input is None else section.prompt_without_input
        return Template("custom", section.prompt, without)
    return _NAMED[section]


def _literal(text: str) -> str:
    # Jinja reads the escapes of JSON in its string literals; other scripts stay as they are.
    return json.dumps(text, ensure_ascii=False)
