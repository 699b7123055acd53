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
    assert f"planted faults of {len(PLANTED)}\n" in readme


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
