"""`data check` on faults that are known, and on rows that have none."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from planted import PLANTED, write_planted

from peft_instruct.data.checks.catalogue import CATALOGUE, Finding
from peft_instruct.data.checks.check import check_files, read_file
from peft_instruct.recipe.data_section import Columns


@pytest.fixture(scope="module")
def checked(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Finding], set[tuple[str, str]], set[str]]:
    path = tmp_path_factory.mktemp("planted") / "rows.jsonl"
    expected, clean = write_planted(path)
    return check_files([read_file(str(path), "auto", Columns())]), expected, clean


def test_planted_faults_are_found_at_their_line(
    checked: tuple[list[Finding], set[tuple[str, str]], set[str]],
) -> None:
    findings, expected, _ = checked
    found = {(finding.origin, finding.code) for finding in findings} | {
        (":".join(finding.origin.split(":")[:2]), finding.code) for finding in findings
    }
    assert len(PLANTED) >= 45
    missed = sorted(code for origin, code in expected if (origin, code) not in found)
    assert len(missed) <= 0.05 * len(expected), missed
    # No kind is missed as a whole.
    assert {code for code, count in Counter(missed).items() if count == len(PLANTED[code])} == set()


def test_clean_rows_are_left_alone(checked: tuple[list[Finding], set[tuple[str, str]], set[str]]) -> None:
    findings, _, clean = checked
    false = [finding for finding in findings if finding.origin in clean and finding.code != "ignored-column"]
    assert len(clean) > 2000
    assert len(false) <= 2 * len(clean) / 1000, false


def test_the_readme_counts_the_kinds() -> None:
    readme = (Path(__file__).resolve().parents[3] / "README.md").read_text(encoding="utf-8")
    assert f"{len(CATALOGUE)} kinds;" in readme
    assert f"planted faults of {len(PLANTED)} kinds" in " ".join(readme.split())


def test_conversations_are_checked_message_by_message(tmp_path: Path) -> None:
    path = tmp_path / "chats.jsonl"
    conversations: list[Any] = [
        [("user", "What is the capital of Peru?"), ("assistant", "Lima"), ("user", "Thanks!"), ("assistant", "N/A")],
        [("system", ""), ("human", "Name a lake.\u200b"), ("gpt", "Como")],
        [("user", "Name a sea."), ("assistant", None)],
        "Hello?",
    ]
    rows = [
        [{"role": role, "content": text} for role, text in turns] if isinstance(turns, list) else turns
        for turns in conversations
    ]
    path.write_text("".join(json.dumps({"messages": messages}) + "\n" for messages in rows), encoding="utf-8")
    found = check_files([read_file(str(path), "auto", Columns())])
    assert [(f.code, f.origin.rpartition(":")[2], f.part) for f in found] == [
        ("placeholder-answer", "1", "messages.3.content"),
        ("zero-width", "2", "messages.1.content"),
        ("bad-conversation", "3", "messages.1"),
        ("bad-conversation", "4", "messages"),
    ]


ASKED_APART = (("What is 8 + 0?", "8"), ("What is 8 - 0?", "8"), ("What is C?", "A language."),
               ("What is C++?", "Another one."), ("Is it 5.3?", "Yes."), ("Is it 53?", "No."))  # fmt: skip


def test_rows_that_differ_in_a_sign_are_different_rows(tmp_path: Path) -> None:
    rows, others = tmp_path / "rows.jsonl", tmp_path / "others.jsonl"
    rows.write_text("".join(json.dumps({"instruction": ask, "output": say}) + "\n" for ask, say in ASKED_APART))
    others.write_text(json.dumps({"instruction": "What is C#?", "output": "A third."}) + "\n")
    read = [read_file(str(path), "auto", Columns()) for path in (rows, others)]
    codes = {finding.code for finding in check_files(read[:1], read[1:])}
    assert not codes & {"duplicate", "contradiction", "train-evaluation-overlap"}


def test_case_spacing_and_the_signs_of_a_sentence_make_no_other_row(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    rows = (("What is C++?", "A language."), ("what  is C++", "A language!"))
    path.write_text("".join(json.dumps({"instruction": ask, "output": say}) + "\n" for ask, say in rows))
    findings = check_files([read_file(str(path), "auto", Columns())])
    assert [finding.code for finding in findings if finding.code == "duplicate"] == ["duplicate"]


def test_answers_without_spaces_that_differ_in_a_character_contradict_nothing(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    answers = ("東京は日本の首都で、人口が最も多い都市です。", "東京は日本の首都で、人口が最も多い都市だ。")
    path.write_text("".join(json.dumps({"instruction": "東京とは？", "output": say}) + "\n" for say in answers))
    codes = {finding.code for finding in check_files([read_file(str(path), "auto", Columns())])}
    assert not codes & {"duplicate", "contradiction"}


def test_what_is_learned_as_it_is_may_have_its_own_template_and_spaces(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    rows = [{"prompt": f"### Instruction:\nName a {what}.\n\n### Response:\n", "completion": f" {said}\n"}
            for what, said in (("bird", "Robin"), ("river", "Rhine"))]  # fmt: skip
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert check_files([read_file(str(path), "auto", Columns())]) == []
    path.write_text(json.dumps({"prompt": "Name a bird.", "completion": "### Response:\nRobin"}) + "\n")
    findings = check_files([read_file(str(path), "auto", Columns())])
    assert [finding.code for finding in findings] == ["template-text"]
