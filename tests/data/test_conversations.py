"""Conversations that exports hold: what is said of them by `data check` is what training does with them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from peft_instruct.data.checks.check import check_files, read_file
from peft_instruct.data.conversations import read_conversation, read_question
from peft_instruct.data.prepare import read_source
from peft_instruct.errors import DatasetError
from peft_instruct.recipe.data_section import Columns, DataSection

GOOD = [{"role": "user", "content": "Is the mill open?"}, {"role": "assistant", "content": "From nine to five."}]
LEFT_OUT: dict[str, list[dict[str, Any]]] = {
    "a role that is not known": [GOOD[0], {"role": "tool", "content": "sunny"}, GOOD[1]],
    "a late system message": [GOOD[0], {"role": "system", "content": "Be nice."}, GOOD[1]],
    "a system message alone": [{"role": "system", "content": "Be nice."}],
    "a question alone": GOOD[:1],
    "a tool call": [GOOD[0], {**GOOD[1], "tool_calls": [{"id": "1"}]}],
    "a tool call without text": [GOOD[0], {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]}, GOOD[1]],
    "a picture": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}, GOOD[1]],
}


def written(path: Path, *conversations: Any) -> str:
    path.write_text("".join(json.dumps({"messages": each}) + "\n" for each in conversations))
    return str(path)


@pytest.mark.parametrize("text", ["", " \n"])
def test_a_system_message_that_says_nothing_is_none(text: str) -> None:
    messages = [{"role": "system", "content": text}, *GOOD]
    assert read_conversation(messages) == read_conversation(GOOD)
    assert read_question(messages) == read_question(GOOD)


@pytest.mark.parametrize("name", LEFT_OUT)
def test_what_training_leaves_out_is_found(name: str, tmp_path: Path) -> None:
    path = written(tmp_path / "chats.jsonl", GOOD, LEFT_OUT[name])
    findings = [each for each in check_files([read_file(path, "auto", Columns())]) if each.code != "duplicate"]
    pairs, _, notes = read_source(path, DataSection(train=path, template="chatml"))
    assert len(pairs) == 1
    (reason,) = [note for note in notes if "left out" in note]
    assert [(each.code, each.origin) for each in findings] == [("unusable-conversation", f"{path}:2")]
    assert findings[0].detail in reason


@pytest.mark.parametrize("role", [" Assistant", "GPT", "assistant "])
def test_a_role_is_known_as_in_training(role: str, tmp_path: Path) -> None:
    path = written(tmp_path / "chats.jsonl", [GOOD[0], {"role": role, "content": GOOD[1]["content"]}])
    assert check_files([read_file(path, "auto", Columns())]) == []
    assert len(read_source(path, DataSection(train=path, template="chatml"))[0]) == 1


def test_a_fault_of_a_message_is_told_once(tmp_path: Path) -> None:
    path = written(
        tmp_path / "chats.jsonl", [GOOD[0], {"role": "assistant", "content": ""}], [{"role": "", "content": "?"}]
    )
    codes = [each.code for each in check_files([read_file(path, "auto", Columns())])]
    assert codes == ["empty-answer", "bad-conversation"]


def test_where_no_row_is_left_the_reasons_are_told(tmp_path: Path) -> None:
    path = written(tmp_path / "chats.jsonl", *LEFT_OUT.values())
    with pytest.raises(DatasetError, match=r"no row is left\. 7 rows left out: .*chats\.jsonl:1: .*'tool'"):
        read_source(path, DataSection(train=path, template="chatml"))
