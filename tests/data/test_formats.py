"""Which format rows are in is told from their columns and their content, with the reason, and can be overridden."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from peft_instruct.data import content
from peft_instruct.data.conversations import (
    ANSWER_FIRST,
    JOINED,
    QUESTION_LAST,
    BrokenConversationError,
    UnusableConversationError,
    read_conversation,
)
from peft_instruct.data.formats import detect_format
from peft_instruct.data.prepare import read_instruction_data, read_source
from peft_instruct.data.sources import files_of
from peft_instruct.data.types import Exchange, Row
from peft_instruct.errors import DatasetError
from peft_instruct.recipe.data_section import Columns, DataSection

TALK = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
GPT = [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]


def _rows(*records: dict[str, Any]) -> list[Row]:
    return [Row(record, f"f:{number}") for number, record in enumerate(records, start=1)]


@pytest.mark.parametrize(
    ("record", "name", "parts", "reason"),
    [
        ({"instruction": "a", "input": "", "output": "b", "text": "c"}, "alpaca", "instruction input output",
         "'instruction' and 'output', by its column names"),
        ({"Instruction": "a", "Output ": "b"}, "alpaca", "instruction output",
         "'Instruction' and 'Output ', by its column names"),
        ({"instruction": "a", "context": "c", "response": "b", "category": "d"}, "alpaca", "instruction input output",
         "'instruction' and 'response', by its column names"),
        ({"prompt": "a", "completion": "b"}, "prompt_completion", "prompt completion",
         "'prompt' and 'completion', by its column names"),
        ({"Question": "a", "Answer": "b"}, "question_answer", "instruction output",
         "'Question' and 'Answer', by its column names"),
        ({"prompt": "a", "response": "b"}, "question_answer", "instruction output",
         "'prompt' and 'response', by its column names"),
        ({"asked": "Why?", "told": "So."}, "question_answer", "instruction output",
         "two columns; 100% of 'asked' end in a question mark"),
        ({"messages": TALK}, "messages", "messages", "'messages' holds lists of messages"),
        ({"conversations": GPT, "id": 1}, "sharegpt", "messages", "'conversations' holds lists of messages"),
        ({"conversations": TALK}, "messages", "messages", "'conversations' holds lists of messages"),
        ({"messages": GPT}, "sharegpt", "messages", "'messages' holds lists of messages"),
        ({"chat": TALK, "source": "x"}, "messages", "messages", "'chat' holds lists of messages"),
        ({"messages": "3 new", "instruction": "a", "output": "b"}, "alpaca", "instruction output",
         "'instruction' and 'output', by its column names"),
        ({"text": "a"}, "text", "text", "'text', the only column"),
    ],
)  # fmt: skip
def test_a_format_is_told_with_its_reason(record: dict[str, Any], name: str, parts: str, reason: str) -> None:
    form = detect_format(_rows(record), "auto", Columns(), "f")
    assert (form.name, " ".join(form.columns), form.reason) == (name, parts, reason)
    assert {*form.columns.values(), *form.ignored} == set(record)


def test_a_format_or_columns_of_the_recipe_win() -> None:
    rows = _rows({"instruction": "a", "output": "b", "text": "c", "question": "d", "answer": "e"})
    assert detect_format(rows, "auto", Columns(), "f").name == "alpaca"
    assert detect_format(rows, "text", Columns(), "f").columns == {"text": "text"}
    assert detect_format(rows, "question_answer", Columns(), "f").columns["instruction"] == "question"
    assert detect_format(rows, "text", Columns(), "f").reason == "as data.format says"
    named = detect_format(rows, "auto", Columns(prompt="text", completion="answer"), "f")
    assert (named.name, named.columns) == ("prompt_completion", {"prompt": "text", "completion": "answer"})
    assert named.reason == "'text' and 'answer', named in data.columns"
    two = detect_format(
        _rows({"frage": "a", "antwort": "b"}), "auto", Columns(instruction="frage", output="antwort"), "f"
    )
    assert two.columns == {"instruction": "frage", "output": "antwort"}


def test_a_column_that_is_named_for_one_part_is_no_other() -> None:
    """Else a question stands in its prompt twice, as the instruction and as what that is about."""
    named = Columns(instruction="input", output="output")
    assert detect_format(_rows({"input": "a", "output": "b"}), "auto", named, "f").columns == {
        "instruction": "input", "output": "output",
    }  # fmt: skip
    form = detect_format(_rows({"input": "a", "output": "b", "context": "c"}), "auto", named, "f")
    assert form.columns["input"] == "context"


def test_whole_text_is_known_by_its_name_where_there_is_more() -> None:
    form = detect_format(_rows({"id": "1", "body": "a"}), "auto", Columns(text="body"), "f")
    assert (form.name, form.columns, form.ignored) == ("text", {"text": "body"}, ("id",))


@pytest.mark.parametrize(
    "record", [{"a": "b", "c": "d"}, {"a": "b?", "c": "d?"}, {"text": "a", "label": "b"}, {"a": [1]}, {"messages": []}]
)
def test_what_is_not_known_is_not_guessed(record: dict[str, Any]) -> None:
    with pytest.raises(DatasetError, match="cannot read the rows as auto"):
        detect_format(_rows(record), "auto", Columns(), "f")


def _read(path: Path, rows: list[dict[str, Any]], **section: Any) -> tuple[list[tuple[str, str]], list[str]]:
    path.write_text("\n".join(json.dumps(row) for row in rows))
    found, _, notes = read_source(str(path), DataSection.model_validate({"train": str(path), **section}))
    return [(str(row.prompt), row.completion) for row in found], notes


def test_a_conversation_is_one_row_with_every_answer(tmp_path: Path) -> None:
    said = [{"role": "system", "content": "Be brief."}, *TALK, {"role": "user", "content": "c"},
            {"role": "assistant", "content": "d"}]  # fmt: skip
    pairs, notes = _read(tmp_path / "f.jsonl", [{"messages": said}], template="plain")
    assert pairs == [("Be brief.\na\nb\nc\n", "d")]
    assert notes[0].endswith("1 rows, format messages ('messages' holds lists of messages)")


def test_what_of_a_conversation_is_not_taken_as_it_stands_is_counted(tmp_path: Path) -> None:
    rows = [
        {"conversations": [GPT[1], *GPT]},
        {"conversations": [*GPT, GPT[0]]},
        {"conversations": [GPT[0], *GPT]},
        {"conversations": [GPT[0], {"from": "tool", "value": "x"}]},
    ]
    pairs, notes = _read(tmp_path / "f.jsonl", rows, template="plain")
    assert pairs == [("a\n", "b"), ("a\n", "b"), ("a\n\na\n", "b")]
    told = "\n".join(notes)
    for what in (ANSWER_FIRST, QUESTION_LAST, JOINED):
        assert f"1 conversations {what}" in told
    assert f"1 rows left out: {tmp_path}/f.jsonl:4: message 2 is of 'tool'" in told


def test_an_answer_of_weight_zero_is_shown_and_not_learned() -> None:
    """OpenAI's `weight`, axolotl's `train`; what follows the last learned answer teaches nothing and is left off."""
    later = [{"role": "user", "content": "c"}, {"role": "assistant", "content": "d"}]
    unlearned = [TALK[0], {**TALK[1], "weight": 0}]
    assert read_conversation([*unlearned, *later]).exchanges == (Exchange("a", "b", False), Exchange("c", "d"))
    assert read_conversation([*TALK, later[0], {**later[1], "train": False}]).exchanges == (Exchange("a", "b"),)
    with pytest.raises(UnusableConversationError):
        read_conversation(unlearned)


def test_text_in_parts_is_text() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    assert read_conversation([{"role": "user", "content": parts}, TALK[1]]).exchanges == (Exchange("ab", "b"),)
    with pytest.raises(UnusableConversationError, match="more than text"):
        read_conversation([{"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}, TALK[1]])


ROLE = st.sampled_from(["system", "user", "human", "assistant", "gpt", "tool", "", 3, None])
ANYTHING = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=5)), lambda inner: st.lists(inner, max_size=3)
)
MESSAGE = st.one_of(
    ANYTHING,
    st.fixed_dictionaries({"role": ROLE, "content": ANYTHING}, optional={"weight": ANYTHING, "tool_calls": ANYTHING}),
    st.fixed_dictionaries({"from": ROLE, "value": st.text(max_size=5)}),
)


@settings(max_examples=300, deadline=None)
@given(value=st.one_of(ANYTHING, st.lists(MESSAGE, max_size=6)))
def test_any_value_is_a_conversation_or_told_to_be_none(value: Any) -> None:
    try:
        conversation = read_conversation(value)
    except (BrokenConversationError, UnusableConversationError) as error:
        assert str(error)
    else:
        assert conversation.exchanges[-1].learned
        assert all(each.user.strip() and each.answer.strip() for each in conversation.exchanges)


def _numbered(path: Path, name: str, count: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(json.dumps({"instruction": f"{name} {n}", "output": f"o{n}"}) for n in range(count)))
    return path


def _section(*sources: Any, **values: Any) -> DataSection:
    return DataSection.model_validate({"train": list(sources), "template": "plain", "split": "rows", **values})


def test_folders_and_patterns_name_their_files(tmp_path: Path) -> None:
    for name in ("b.jsonl", "a.jsonl", "deep/c.jsonl", ".hidden.jsonl", "deep/.git/d.jsonl"):
        _numbered(tmp_path / name, name, 2)
    (tmp_path / "notes.md").write_text("not rows")
    _numbered(tmp_path / "deep/C.JSONL", "upper case", 2)
    names = [str(tmp_path / name) for name in ("a.jsonl", "b.jsonl", "deep/C.JSONL", "deep/c.jsonl")]
    assert files_of(str(tmp_path)) == names
    assert files_of(f"{tmp_path}/*.jsonl") == names[:2]
    assert files_of(f"{tmp_path}/**/*.jsonl") == [name for name in names if name.endswith("l")]
    assert files_of(f"{tmp_path}/none*.jsonl") == files_of(str(tmp_path / "none.json")) == []
    rows, _, notes = read_source(str(tmp_path), _section(str(tmp_path)))
    assert [row.origin for row in rows] == [f"{name}:{line}" for name in names for line in (1, 2)]
    assert len([note for note in notes if "2 rows, format alpaca" in note]) == 4


def test_packed_files_are_unpacked(tmp_path: Path) -> None:
    import pyarrow

    plain = _numbered(tmp_path / "f.jsonl", "x", 3).read_bytes()
    (tmp_path / "g.jsonl.gz").write_bytes(gzip.compress(plain))
    with pyarrow.CompressedOutputStream(str(tmp_path / "z.jsonl.zst"), "zstd") as out:
        out.write(plain)
    (tmp_path / "G.JSONL.GZ").write_bytes(gzip.compress(plain))
    for name in ("f.jsonl", "g.jsonl.gz", "G.JSONL.GZ", "z.jsonl.zst"):
        rows, _, _ = read_source(str(tmp_path / name), _section(str(tmp_path / name)))
        assert [row.completion for row in rows] == ["o0", "o1", "o2"]
        assert rows[2].origin == f"{tmp_path / name}:3"


def test_a_file_that_unpacks_to_too_much_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(content, "LEAST_EXPANSION_BYTES", 1 << 20)
    (tmp_path / "bomb.jsonl.gz").write_bytes(gzip.compress(b"0" * (2 << 20)))
    with pytest.raises(DatasetError, match="unpacks to more than 100 times its size"):
        read_source(str(tmp_path / "bomb.jsonl.gz"), _section("x"))


def test_tabs_and_whole_files_of_text(tmp_path: Path) -> None:
    (tmp_path / "f.tsv").write_text("question\tanswer\nWhy?\tSo, and so.\n")
    (tmp_path / "f.txt").write_text("Once upon a time.\n\nThe end.\n")
    assert [row.completion for row in read_source(str(tmp_path / "f.tsv"), _section("x"))[0]] == ["So, and so."]
    (document,) = read_source(str(tmp_path / "f.txt"), _section("x"))[0]
    assert (document.prompt, document.completion) == ("", "Once upon a time.\n\nThe end.\n")


def test_several_sources_are_seen_by_their_weights_and_counts(tmp_path: Path) -> None:
    for name, count in (("a", 10), ("b", 10), ("c", 10), ("d", 3)):
        _numbered(tmp_path / f"{name}.jsonl", name, count)
    path = {name: str(tmp_path / f"{name}.jsonl") for name in "abcd"}
    section = _section(
        path["a"],
        {"source": path["b"], "weight": 2.5},
        {"source": path["c"], "weight": 0.5},
        {"source": path["d"], "rows": 7},
        validation_fraction=0.0,
    )
    data = read_instruction_data(section, seed=3)
    seen = [str(row.prompt).strip() for row in data.train]
    counts = {name: sorted(seen.count(f"{name} {n}") for n in range(10)) for name in "abcd"}
    assert counts["a"] == [1] * 10
    assert counts["b"] == [2] * 5 + [3] * 5
    assert counts["c"] == [0] * 5 + [1] * 5
    assert counts["d"] == [0] * 7 + [2, 2, 3]
    assert data == read_instruction_data(section, seed=3) != read_instruction_data(section, seed=4)


def test_what_is_repeated_is_never_held_out(tmp_path: Path) -> None:
    for name in "ab":
        _numbered(tmp_path / f"{name}.jsonl", name, 20)
    sources = [{"source": str(tmp_path / "a.jsonl"), "weight": 3.0}, str(tmp_path / "b.jsonl")]
    data = read_instruction_data(_section(*sources, validation_fraction=0.2), seed=0)
    learned, held_out = ({row.origin for row in rows} for rows in (data.train, data.validation))
    assert len(held_out) == 8 and not learned & held_out and len(learned | held_out) == 40
    assert len(data.train) == 3 * sum("a.jsonl" in origin for origin in learned) + sum("b.js" in o for o in learned)


def test_sources_of_different_formats_are_one_set_of_rows(tmp_path: Path) -> None:
    (tmp_path / "faq.csv").write_text("Q,A\nWhy?,So.\n")
    (tmp_path / "chat.jsonl").write_text(json.dumps({"messages": TALK}))
    named = {"source": str(tmp_path / "faq.csv"), "columns": {"instruction": "Q", "output": "A"}}
    data = read_instruction_data(_section(named, str(tmp_path / "chat.jsonl"), validation_fraction=0.0), seed=0)
    assert sorted((str(row.prompt), row.completion) for row in data.train) == [("Why?\n", "So."), ("a\n", "b")]
    assert data.template.name == "plain"


def test_a_file_named_twice_is_refused(tmp_path: Path) -> None:
    path = _numbered(tmp_path / "a.jsonl", "a", 3)
    with pytest.raises(DatasetError, match=r"a\.jsonl is named by two sources"):
        read_instruction_data(_section(str(path), str(tmp_path)), seed=0)


def test_one_source_in_a_list_is_that_source(tmp_path: Path) -> None:
    path = _numbered(tmp_path / "a.jsonl", "a", 30)
    alone = DataSection.model_validate({"train": str(path), "template": "plain", "split": "rows"})
    assert read_instruction_data(_section(str(path)), seed=1) == read_instruction_data(alone, seed=1)


@settings(
    max_examples=30, deadline=None, phases=(Phase.explicit, Phase.generate, Phase.shrink),
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)  # fmt: skip
@given(sizes=st.lists(st.integers(1, 12), min_size=1, max_size=3), weight=st.floats(0.1, 4.0), seed=st.integers(0, 99))
def test_a_weight_is_kept_to_within_a_row(tmp_path: Path, sizes: list[int], weight: float, seed: int) -> None:
    sources = [
        {"source": str(_numbered(tmp_path / f"{n}.jsonl", str(n), size)), "weight": weight}
        for n, size in enumerate(sizes)
    ]
    data = read_instruction_data(_section(*sources, validation_fraction=0.0), seed=seed)
    for number, size in enumerate(sizes):
        seen = sum(str(row.prompt).startswith(f"{number} ") for row in data.train)
        assert seen == max(1, round(size * weight))
