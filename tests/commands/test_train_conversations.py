"""Conversations from recipe to answer: trained by a chat template of the tokenizer, asked again, handed over."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tiny import tiny_rows, write_tiny_base, write_tiny_recipe

CHAT = (
    "{%- for m in messages -%}{{ '<|turn|>' + m.role + ': ' + m.content }}"
    "{%- if m.role == 'assistant' -%}{{ '<|done|>' }}{%- endif -%}{{ '\\n' }}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<|turn|>assistant:' }}{%- endif -%}"
)


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import AutoTokenizer, GPT2LMHeadModel

    from peft_instruct.commands.train import train

    folder = tmp_path_factory.mktemp("conversations")
    base = write_tiny_base(folder / "base")
    tokenizer = AutoTokenizer.from_pretrained(str(base))
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|turn|>", "<|done|>"]})
    tokenizer.chat_template = CHAT
    tokenizer.save_pretrained(str(base))
    model = GPT2LMHeadModel.from_pretrained(str(base))
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    model.save_pretrained(str(base))
    pairs = [(row["instruction"], row["output"]) for row in tiny_rows() if not row["input"]]
    lines = [
        {"messages": [{"role": role, "content": text} for pair in two for role, text in zip(ROLES, pair, strict=True)]}
        for two in zip(pairs[::2], pairs[1::2], strict=True)
    ]
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, lines)))
    recipe = write_tiny_recipe(folder / "tiny_chat.yaml", base, folder / "rows.jsonl")
    said: list[str] = []
    done = train(str(recipe), ("data.template=tokenizer",), out=folder / "adapter", say=said.append)
    assert any("format messages" in line for line in said)
    return done.folder


ROLES = ("user", "assistant")


def test_the_chat_template_travels_with_the_adapter_as_text(adapter: Path) -> None:
    manifest = json.loads((adapter / "manifest.json").read_text())
    template = manifest["template"]
    assert template["without_input"] == "<|turn|>user: {instruction}\n<|turn|>assistant:"
    assert (template["answer"], template["stop"]) == (" {answer}", "<|done|>")
    assert template["follow_up"] == "\n<|turn|>user: {instruction}\n<|turn|>assistant:"
    assert manifest["metrics"]["scored_on"].endswith("validation rows")


def test_it_is_asked_as_it_was_trained_and_ends_by_its_own_stop_token(adapter: Path) -> None:
    from peft_instruct.adapter.folder import load_tuned, open_adapter
    from peft_instruct.commands.generate import generate
    from peft_instruct.environment import prepare_environment
    from peft_instruct.inference.complete import complete
    from peft_instruct.model.device import choose_compute
    from peft_instruct.recipe.schema import GenerationSection

    opened = open_adapter(adapter)
    tuned = load_tuned(opened, choose_compute("cpu", "fp32"), prepare_environment([]))
    assert tuned.tokenizer.eos_token == "<|done|>"
    assert opened.manifest.golden[0].completion[-1] == tuned.tokenizer.convert_tokens_to_ids("<|done|>")
    prompt = tuned.template.prompt("Add 1 and 7.")
    options = GenerationSection(max_new_tokens=4)
    where = {"positions": tuned.base.positions, "device": tuned.base.compute.torch_device}
    (raw,) = complete(tuned.model, tuned.tokenizer, [prompt], options, **where)
    done = generate(str(adapter), "Add 1 and 7.", device="cpu", max_new_tokens=4, say=lambda _: None)
    assert raw.completion.startswith(" "), "so it was trained to answer"
    assert done.text() == raw.completion[1:], "what the answer is wrapped in is taken off"
