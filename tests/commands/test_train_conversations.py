"""Conversations from export to answer: imported, trained by the tokenizer's chat template, asked again, handed over."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tiny import tiny_rows, write_tiny_base, write_tiny_recipe

from peft_instruct.commands.data_import import data_import

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
    tickets = [
        {"id": number, "requester_id": 1, "subject": "help", "comments": comments(two)}
        for number, two in enumerate(zip(pairs[::2], pairs[1::2], strict=True))
    ]
    (folder / "tickets.json").write_text(json.dumps({"tickets": tickets, "count": len(tickets)}))
    imported = data_import(folder / "tickets.json", out=folder / "rows.jsonl", shape="conversations")
    assert len((folder / "rows.jsonl").read_text().splitlines()) == len(tickets) == imported.record()["num_rows"]
    recipe = write_tiny_recipe(folder / "tiny_chat.yaml", base, folder / "rows.jsonl")
    said: list[str] = []
    done = train(str(recipe), ("data.template=tokenizer",), out=folder / "adapter", say=said.append)
    assert any("format messages" in line for line in said)
    return done.folder


def comments(pairs: tuple[tuple[str, str], ...]) -> list[dict[str, Any]]:
    """Questions of the one who opened the ticket and answers of a colleague, in turn."""
    said = [(author, text) for pair in pairs for author, text in zip((1, 2), pair, strict=True)]
    return [
        {"id": number, "author_id": author, "body": text, "public": True, "created_at": f"2026-03-02T09:0{number}:00Z"}
        for number, (author, text) in enumerate(said)
    ]


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


def test_a_file_of_conversations_is_gone_on_with_as_trained(adapter: Path, tmp_path: Path) -> None:
    """The prompt of a row is the prompt that its last answer was learned behind, id for id."""
    from peft_instruct.adapter.folder import load_tuned, open_adapter
    from peft_instruct.commands.generate import generate
    from peft_instruct.data.prepare import read_instruction_data
    from peft_instruct.data.tokens import model_rows, prompt_ids
    from peft_instruct.environment import prepare_environment
    from peft_instruct.model.device import choose_compute
    from peft_instruct.recipe import load_recipe

    opened = open_adapter(adapter)
    tokenizer = load_tuned(opened, choose_compute("cpu", "fp32"), prepare_environment([])).tokenizer
    recipe = load_recipe(str(adapter / "recipe.yaml"))
    data = read_instruction_data(recipe.data, recipe.training.seed, opened.manifest.prompt_template())
    trained, _ = model_rows(data.train, tokenizer, recipe.data)
    lines = (adapter.parent / "rows.jsonl").read_text().splitlines()
    file = tmp_path / "asked.jsonl"
    file.write_text("\n".join(lines[:2]) + "\n")
    done = generate(str(adapter), file=file, device="cpu", max_new_tokens=2, say=lambda _: None)
    ids = {row.origin.rpartition(":")[2]: row.input_ids for row in trained}
    for number, each in enumerate(done.completed, start=1):
        (asked,) = prompt_ids(tokenizer, [each.tuned.prompt])
        answer = each.values["messages"][-1]["content"]
        assert answer not in tokenizer.decode(asked[-8:])
        assert each.values["messages"][0]["content"] in each.tuned.prompt
        if str(number) in ids:
            assert ids[str(number)][: len(asked)] == tuple(asked)
