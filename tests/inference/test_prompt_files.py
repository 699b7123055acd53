"""Files of prompts in, files of completions out."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from peft_instruct.data.prepare import read_source
from peft_instruct.data.templates import ALPACA, CHATML
from peft_instruct.data.writing import json_line
from peft_instruct.errors import DatasetError, RecipeError
from peft_instruct.inference.complete import Generation
from peft_instruct.inference.files import completed_row, one_prompt, read_prompts
from peft_instruct.inference.progress import SECONDS_BETWEEN_LINES, told
from peft_instruct.recipe.data_section import Columns, DataSection
from peft_instruct.report.safe_text import safe_text

TUNED = Generation("prompt", "Red.", 3, True)


def lines(path: Path, *rows: object) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def test_instructions_are_rendered_and_prompts_are_taken_as_they_are(tmp_path: Path) -> None:
    source = lines(
        tmp_path / "in.jsonl",
        {"instruction": "Name a colour.", "id": 7},
        {"instruction": "Double it.", "input": "21"},
        {"instruction": "Name a fruit.", "input": None},
        {"prompt": "Once upon a time"},
    )
    rows = read_prompts(source, ALPACA)
    assert [row.prompt for row in rows] == [
        ALPACA.prompt("Name a colour."),
        ALPACA.prompt("Double it.", "21"),
        ALPACA.prompt("Name a fruit."),
        "Once upon a time",
    ]
    assert rows[0].values == {"instruction": "Name a colour.", "id": 7}
    assert rows[1].origin == f"{source}:2"


def test_what_an_instruction_is_about_is_found_as_in_training(tmp_path: Path) -> None:
    """Dolly calls it `context`; a file that has an `input` anywhere has its inputs there."""
    for about in ({"context": "21"}, {"context": ""}), ({"context": "21"}, {"input": "42", "context": ["21"]}):
        rows = [{"instruction": "Double it.", **each} for each in about]
        given = [read_prompts(lines(tmp_path / "in.jsonl", *rows), ALPACA)]
        answered = [{**row, "output": "42"} for row in rows]
        learned = [read_source(lines(tmp_path / "train.jsonl", *answered), DataSection(train="train.jsonl"))[0]]
        assert [[row.prompt for row in each] for each in given] == [[row.prompt for row in each] for each in learned]
    with pytest.raises(DatasetError, match=r"in.jsonl:1: 'context' is list"):
        read_prompts(lines(tmp_path / "in.jsonl", {"instruction": "Double it.", "context": ["21"]}), ALPACA)


def test_every_broken_row_is_named_at_once(tmp_path: Path) -> None:
    source = lines(
        tmp_path / "in.jsonl",
        {"instruction": "fine"},
        {"instruction": 5},
        {"question": "?"},
        {"instruction": "  "},
        {"instruction": "a", "prompt": "b"},
        {"instruction": "a", "input": ["b"]},
        {"prompt": None},
    )
    with pytest.raises(DatasetError) as error:
        read_prompts(source, ALPACA)
    told_of = str(error.value)
    assert [line.split(": ")[0].strip() for line in told_of.splitlines()[1:]] == [f"{source}:{n}" for n in range(2, 8)]
    for text in ("int '5'", "columns 'question'", "'  '", "'instruction' and 'prompt'", "list", "null"):
        assert text in told_of


SYSTEM = {"role": "system", "content": "Be brief."}
TURNS = [
    {"role": "user", "content": "Sky?"},
    {"role": "assistant", "content": "Blue."},
    {"role": "user", "content": "Grass?"},
]
ANSWER = {"role": "assistant", "content": "Green."}


def test_a_conversation_is_asked_as_it_is_trained_with_or_without_its_last_answer(tmp_path: Path) -> None:
    speakers = {"user": "human", "assistant": "gpt"}
    sharegpt = [{"from": speakers[turn["role"]], "value": turn["content"]} for turn in TURNS]
    source = lines(
        tmp_path / "in.jsonl",
        {"messages": [SYSTEM, *TURNS, ANSWER]},
        {"messages": [SYSTEM, *TURNS]},
        {"messages": [*TURNS, ANSWER, {**ANSWER, "content": "Really."}]},
        {"conversations": sharegpt},
        {"messages": TURNS[:1]},
    )
    trained = lines(
        tmp_path / "train.jsonl", {"messages": [SYSTEM, *TURNS, ANSWER]}, {"messages": [*TURNS, ANSWER]},
        {"messages": [TURNS[0], ANSWER]},
    )  # fmt: skip
    with_system, without, single = read_source(trained, DataSection(train=trained), CHATML)[0]
    prompts = [row.prompt for row in read_prompts(source, CHATML)]
    assert prompts == [with_system.prompt, with_system.prompt, without.prompt, without.prompt, single.prompt]
    assert [p.spans for p in prompts] == [r.prompt.spans for r in (with_system, with_system, without, without, single)]
    assert "Green" not in "".join(prompts) and "Blue." in prompts[0]


def test_a_conversation_without_a_place_in_the_template_is_told_and_not_cut(tmp_path: Path) -> None:
    source = lines(
        tmp_path / "in.jsonl",
        {"messages": TURNS},
        {"messages": [SYSTEM, TURNS[0]]},
        {"messages": [SYSTEM]},
        {"messages": "Sky?"},
        {"messages": [{"role": "user", "content": "half \ud83d"}]},
        {"instruction": "half \ud83d"},
        {"messages": TURNS[:1]},
    )
    with pytest.raises(DatasetError) as error:
        read_prompts(source, replace(CHATML, follow_up="", with_system=""))
    told_of = str(error.value).splitlines()[1:]
    said = ("earlier messages", "a system message", "no message of a user", "expected a list", "half of", "half of")
    assert len(told_of) == len(said)
    for number, (line, what) in enumerate(zip(told_of, said, strict=True), start=1):
        assert f"{source}:{number}: " in line and what in line


def test_an_input_that_the_template_has_no_place_for_is_told() -> None:
    assert one_prompt("Say it.", "", CHATML).prompt == CHATML.prompt("Say it.")
    with pytest.raises(RecipeError, match="an input, but the template"):
        one_prompt("Say it.", "x", replace(CHATML, with_input=CHATML.without_input))
    with pytest.raises(RecipeError, match="half of a surrogate pair"):
        one_prompt("Say \udce9", "", CHATML)


@pytest.mark.parametrize("name", ["absent.jsonl", "absent"])
def test_a_file_that_is_not_there_is_not_looked_for_on_the_hub(name: str) -> None:
    with pytest.raises(DatasetError, match="no such file"):
        read_prompts(name, ALPACA)


def test_a_column_with_a_name_of_ours_is_kept_under_another() -> None:
    row = completed_row({"prompt": "Sky?", "completion": "Blue.", "id": 1}, TUNED, None)
    assert row == {
        "prompt": "Sky?",
        "given_completion": "Blue.",
        "id": 1,
        "completion": "Red.",
        "stopped": True,
        "num_tokens": 3,
    }


def test_no_column_is_lost_or_stale_however_often_a_file_of_ours_is_completed() -> None:
    row: dict[str, Any] = {"prompt": "Sky?"}
    for number in range(4):
        tuned = Generation("p", f"tuned {number}", 3, True, num_cut=12 if number == 0 else 0)
        base = Generation("p", f"base {number}", 3, True) if number % 2 == 0 else None
        row = completed_row(row, tuned, base)
        assert row["completion"] == f"tuned {number}"
        assert row.get("base_completion") == (f"base {number}" if base else None)
        assert row.get("num_prompt_tokens_cut") == (12 if number == 0 else None)
    texts = sorted(str(value) for name, value in row.items() if name.endswith("completion"))
    assert texts == ["base 0", "base 2", "tuned 0", "tuned 1", "tuned 2", "tuned 3"]
    assert 12 in row.values()


def test_a_cut_prompt_and_the_bases_completion_stand_in_the_row() -> None:
    row = completed_row({}, Generation("p", "Red.", 3, True, num_cut=12), Generation("p", "red red", 9, False))
    assert row["num_prompt_tokens_cut"] == 12
    assert (row["base_completion"], row["base_stopped"], row["base_num_tokens"]) == ("red red", False, 9)


@pytest.mark.parametrize("name", ["question", "Frage"])
def test_a_file_may_ask_as_the_rows_of_the_training_did(tmp_path: Path, name: str) -> None:
    path = tmp_path / "faq.csv"
    path.write_text(f"{name},Antwort\nWho?,We.\n")
    (row,) = read_prompts(str(path), ALPACA, Columns(instruction="Frage", output="Antwort"))
    assert row.prompt == ALPACA.prompt("Who?") and row.values == {name: "Who?", "Antwort": "We."}


def test_a_file_without_a_column_that_asks_is_one_problem(tmp_path: Path) -> None:
    (tmp_path / "faq.csv").write_text("Frage,Antwort\nWho?,We.\nWhere?,Here.\n")
    with pytest.raises(DatasetError, match=r"faq\.csv: no column asks; found 'Antwort', 'Frage'\. expected") as caught:
        read_prompts(str(tmp_path / "faq.csv"), ALPACA)
    assert "\n" not in str(caught.value)


def test_lines_stay_lines_whatever_is_in_them() -> None:
    values = {"completion": "two\nlines 東京\u2028🙂", "given": "\x9b2J\x7f \x1b[2J \x00 \u202e", "half": "\ud83d"}
    line = json_line(values)
    assert line.count("\n") == 1 and "東京" in line
    line.encode("utf-8")
    # `show` makes visible what acts on a terminal; what it prints is still the JSON.
    assert json.loads(line) == json.loads(safe_text(line)) == values


def test_progress_is_silent_for_short_work_and_told_now_and_then_for_long() -> None:
    now = [0.0]
    said: list[str] = []
    on_done = told(said.append, "completed", 100, clock=lambda: now[0])
    for count in range(1, 101):
        now[0] += SECONDS_BETWEEN_LINES / 10
        on_done(count)
    assert said == [f"completed: {count} of 100" for count in range(10, 101, 10)]


def test_reading_prompts_needs_no_torch() -> None:
    code = "import sys, peft_instruct.inference.files, peft_instruct.commands.generate, peft_instruct.commands.evaluate"
    done = subprocess.run([sys.executable, "-c", f"{code}; sys.exit('torch' in sys.modules)"], check=False)
    assert done.returncode == 0


def test_a_file_asks_as_training_reads_it(tmp_path: Path) -> None:
    """A question that is called prompt, conversations beside one, or in a column of another name."""
    talk = [{"role": "user", "content": "Name a colour."}, {"role": "assistant", "content": "Red."}]
    for row, columns in (
        ({"prompt": "Name a colour.", "response": "Red."}, Columns()),
        ({"prompt": "Name", "prompt_id": "1", "messages": talk}, Columns()),
        ({"dialogue": talk, "id": 1}, Columns()),
        ({"chat": talk}, Columns(messages="chat")),
        ({"input": "Name a colour.", "output": "Red."}, Columns(instruction="input", output="output")),
    ):  # fmt: skip
        source = lines(tmp_path / "in.jsonl", row)
        (asked,) = read_prompts(source, ALPACA, columns)
        (learned,), _, _ = read_source(source, DataSection(train="in.jsonl", columns=columns), ALPACA)
        assert asked.prompt == learned.prompt == ALPACA.prompt("Name a colour.")
