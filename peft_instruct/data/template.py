"""How an example becomes a prompt, and a generation an answer again."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from peft_instruct.data.types import Example, Prompt, PromptCompletion, Span

_FIELD = re.compile(r"\{(instruction|input|system|bos|eos|sep)\}")
_TOKENS = ("bos", "eos", "sep")
ANSWER = "{answer}"


@dataclass(frozen=True)
class Template:
    """Texts with fields in them; the completion follows at once, and the stop token follows it.

    The fields are `{instruction}`, `{input}`, `{system}`, and `{bos}`, `{eos}`, `{sep}` for those tokens of the
    tokenizer (`{sep}` is the stop token where it has none). The name of a special token in a text is that token.

    Ours end in a single newline: GPT-2's BPE merges two newlines, a colon or a space with what follows, and then other
    tools could not type the prompt that a model was trained on (measured with GPT-2's BPE; see data/tokens.py).

    Attributes:
        with_system: the first message of a conversation that has a system message; empty: it has no place for one.
        follow_up: a later message, right after the stop token of the answer before; empty: none has a place.
        answer: what is learned, around `{answer}`.
        stop: the special token that ends an answer, where the tokenizer has it; else the tokenizer's own.
        strips: white space around what is filled in is removed, as some chat templates do.
    """

    name: str
    with_input: str
    without_input: str
    with_system: str = ""
    follow_up: str = ""
    answer: str = ANSWER
    stop: str = ""
    strips: bool = False

    def prompt(self, instruction: str, input: str = "") -> Prompt:
        """The prompt of one example; fields are put in once, so text of the user is never taken for a field."""
        text = self.with_input if input.strip() else self.without_input
        return Prompt(self._filled(text, instruction=instruction, input=input))

    def render(self, example: Example) -> PromptCompletion:
        """What the example's model is asked and what it is to learn; see `lost` for what has no place in it."""
        return PromptCompletion(
            prompt=self._conversation(example) if example.earlier or example.system else self._single(example),
            completion=self.completion(example.output),
            origin=example.origin,
            asked="\n".join([part for part in _asked(example) if part.strip()]).strip(),
            accepted=tuple(map(self.completion, example.accepted)),
            group=example.group,
        )

    def lost(self, example: Example) -> str:
        """What of an example has no place in this template: the key that would give it one, or nothing."""
        if example.input.strip() and "{input}" not in self.with_input:
            return "{input}"
        if example.system.strip() and "{system}" not in self.with_system:
            return "prompt_with_system"
        return "follow_up" if example.earlier and not self.follow_up else ""

    def completion(self, output: str) -> str:
        """What is learned of an output."""
        return self.answer.replace(ANSWER, output.strip() if self.strips else output)

    def output(self, completion: str) -> str:
        """The inverse of `completion`: the answer in what a model has generated."""
        before, _, after = self.answer.partition(ANSWER)
        return completion.removeprefix(before).removesuffix(after)

    def chat_template(self, bos_token: str = "") -> str:
        """The same prompts as a Jinja chat template, so that other tools prompt the model as it was trained.

        A user's message is the instruction; an assistant's message is followed by the end-of-text token.

        Args:
            bos_token: the beginning-of-text token, where the tokenizer puts it before every text. A template that
                spells it itself has it once.
        """

        def opened(text: str) -> str:
            begins = not bos_token or text.startswith((bos_token, "{bos}"))
            return self._jinja(text) if begins else f"bos_token + {self._jinja(text)}"

        begin = next((each for each in ("{bos}", bos_token) if each and self.without_input.startswith(each)), "")
        under_system = f"{begin}{{system}}\n{self.without_input.removeprefix(begin)}"
        first, system = opened(self.without_input), opened(self.with_system or under_system)
        later = self._jinja(self.follow_up or self.without_input)
        answer = self._jinja(self.answer.replace(ANSWER, "{instruction}"))
        strip = "|trim" if self.strips else ""
        return (
            "{%- for message in messages -%}"
            "{%- if message['role'] == 'assistant' -%}"
            f"{{% generation %}}{{{{ {answer} + eos_token }}}}{{% endgeneration %}}"
            "{%- elif message['role'] != 'system' -%}"
            "{%- if loop.index0 > 1 or (loop.index0 == 1 and messages[0]['role'] != 'system') -%}"
            f"{{{{ {later} }}}}"
            "{%- elif loop.index0 == 1 -%}"
            f"{{{{ {system} }}}}"
            "{%- else -%}"
            f"{{{{ {first} }}}}"
            "{%- endif -%}"
            "{%- endif -%}"
            "{%- endfor -%}"
        ).replace("['content']", f"['content']{strip}")

    def _single(self, example: Example) -> Prompt:
        return self.prompt(example.instruction, example.input)

    def _conversation(self, example: Example) -> Prompt:
        """The first message with the system's, then every answer with its stop token and the message after it."""
        begin = self.with_system if example.system.strip() else self.without_input
        last = f"{example.instruction}\n{example.input}" if example.input.strip() else example.instruction
        messages = [*(exchange.user for exchange in example.earlier), last]
        spans = list(self._filled(begin, instruction=messages[0], system=example.system))
        for exchange, message in zip(example.earlier, messages[1:], strict=True):
            spans.append(Span("answer" if exchange.learned else "unlearned_answer", self.completion(exchange.answer)))
            spans += self._filled(self.follow_up, instruction=message)
        return Prompt(spans)

    def _filled(self, text: str, **fields: str) -> Iterator[Span]:
        for part in _parts(text):
            if isinstance(part, Span):
                yield part
            else:
                value = fields.get(part, "")
                yield Span("data", value.strip() if self.strips else value)

    def _jinja(self, text: str) -> str:
        values = {
            "instruction": "message['content']",
            "system": "messages[0]['content']",
            "input": "''",
            "bos": "(bos_token or eos_token)",
            "eos": "eos_token",
            "sep": "(sep_token or eos_token)",
        }
        pieces = _FIELD.split(text)
        return " + ".join(values[piece] if number % 2 else _literal(piece) for number, piece in enumerate(pieces))


@lru_cache(maxsize=64)
def _parts(text: str) -> tuple[Span | str, ...]:
    """A template's text as its own spans and the names of the fields between them."""
    pieces = _FIELD.split(text)
    return tuple(
        Span("template", piece) if number % 2 == 0 else Span("token", piece) if piece in _TOKENS else piece
        for number, piece in enumerate(pieces)
    )


def _asked(example: Example) -> list[str]:
    earlier = [text for exchange in example.earlier for text in (exchange.user, exchange.answer)]
    return [example.system, *earlier, example.instruction, example.input]


def _literal(text: str) -> str:
    # Jinja reads the escapes of JSON in its string literals; other scripts stay as they are.
    return json.dumps(text, ensure_ascii=False)
