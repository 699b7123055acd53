"""Text of a recipe's own as a template: nothing of a row is lost, and a chat template gives the same prompt."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from peft_instruct.data.prepare import read_source
from peft_instruct.data.templates import Template
from peft_instruct.errors import DatasetError
from peft_instruct.recipe.data_section import CustomTemplate, DataSection


def test_a_template_without_input_refuses_rows_that_have_one(tmp_path: Path) -> None:
    rows = tmp_path / "rows.json"
    rows.write_text(json.dumps([{"instruction": "Add.", "input": "1 and 2", "output": "3"}]))
    section = DataSection(train=str(rows), template=CustomTemplate(prompt="Q: {instruction}\nA:\n"))
    with pytest.raises(
        DatasetError, match=r"1 rows have an input \(first .*row 1\)\), but data\.template has no \{input\}"
    ):
        read_source(str(rows), section)


@pytest.mark.parametrize("text", ["Q: {instruction}\n{input}\nA:\n", "{instruction} Again: {instruction}\n"])
def test_the_chat_template_of_a_custom_text_is_its_prompt(text: str, tiny_base_folder: Path) -> None:
    template = Template("custom", text, text)
    tokenizer = AutoTokenizer.from_pretrained(str(tiny_base_folder))
    tokenizer.chat_template = template.chat_template()
    rendered = tokenizer.apply_chat_template([{"role": "user", "content": "Hi {input}"}], tokenize=False)
    assert rendered == template.prompt("Hi {input}")
