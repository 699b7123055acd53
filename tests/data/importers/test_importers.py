"""Realistic exports of each kind come to exactly the rows listed by hand, and every message is accounted for."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import made_chats
import made_mail
import made_tickets
import pytest
from scattered import NUM_NOISE
from talks import PAIRS, TALKS

from peft_instruct.data.importers.run import Imported, import_export
from peft_instruct.errors import DatasetError

EXPORTS: dict[str, tuple[str, Callable[[Path], Path]]] = {
    "slack": ("export.zip", made_chats.write_slack),
    "discord": ("help.json", made_chats.write_discord),
    "zendesk": ("tickets.json", made_tickets.write_zendesk),
    "intercom": ("conversations.jsonl", made_tickets.write_intercom),
    "mbox": ("help.mbox", made_mail.write_mbox),
}


@pytest.fixture(scope="module", params=EXPORTS)
def written(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    name, write = EXPORTS[request.param]
    return request.param, write(tmp_path_factory.mktemp(request.param) / name)


@pytest.fixture(scope="module")
def imported(written: tuple[str, Path]) -> Imported:
    return import_export(written[1])


def _plain(text: str, kind: str) -> str:
    # HTML has no place for the language of a code block.
    return text.replace("```python", "```") if kind in ("intercom", "mbox") else text


def test_the_kind_is_found_and_the_reason_is_shown(written: tuple[str, Path], imported: Imported) -> None:
    assert imported.kind == written[0]
    assert imported.reason


def test_the_rows_are_those_listed_by_hand(written: tuple[str, Path], imported: Imported) -> None:
    kind = written[0]
    rows = [(_plain(row["instruction"], kind), _plain(row["output"], kind)) for row in imported.rows]
    assert rows == [(_plain(question, kind), _plain(answer, kind)) for question, answer in PAIRS]


def test_every_message_is_in_a_row_or_among_the_dropped(imported: Imported) -> None:
    used = [(row["provenance"]["file"], id_) for row in imported.rows for id_ in row["provenance"]["ids"]]
    dropped = [(item.file, item.id) for item in imported.dropped if item.id]
    assert imported.num_messages == len(used) + len(dropped) >= 200
    assert len(set(used) | set(dropped)) >= imported.num_messages - 1, "one message counted twice"
    assert not set(used) & set(dropped)


def test_every_row_says_when_it_was_written(imported: Imported) -> None:
    assert all(row["provenance"]["time"].startswith("2026-0") for row in imported.rows)


def test_nothing_of_quotes_signatures_bots_and_notes_is_left(imported: Imported) -> None:
    text = json.dumps(imported.rows, ensure_ascii=False)
    for left in (
        "> ",
        "wrote:",
        "schrieb",
        "Acme",
        "regards",
        "iPhone",
        "Beep",
        "internal:",
        "VIP",
        "joined",
        "2 hours",
    ):
        assert left not in text.replace("c > d", "").replace("dora -> ", ""), left


def test_whole_conversations_keep_the_later_turns(written: tuple[str, Path]) -> None:
    rows = import_export(written[1], shape="conversations").rows
    assert len(rows) == len(PAIRS)
    turns = next(row["messages"] for row in rows if row["messages"][0]["content"].startswith("¿Hay descuento"))
    assert [turn["role"] for turn in turns] == ["user", "assistant", "user", "assistant"]
    assert turns[3]["content"] == "También, el mismo."
    assert all(row["messages"][-1]["role"] == "assistant" for row in rows)


def test_slack_counts_what_it_leaves_out(tmp_path: Path) -> None:
    imported = import_export(made_chats.write_slack(tmp_path / "export.zip"))
    reasons = Counter(item.reason for item in imported.dropped)
    noise = Counter(number % 7 for number in range(NUM_NOISE))
    assert reasons["system message (channel_join)"] == noise[0]
    assert reasons["written by a bot"] == noise[1] + noise[2] + 1
    assert reasons["system message (channel_topic)"] == noise[6]
    assert reasons["deleted"] == 2
    assert reasons["edit (applied)"] == reasons["deletion (applied)"] == 1
    alone = sum(len(talk.said) for talk in TALKS if talk.answer is None)
    # Of the talk of two messages without an answer both are of one thread.
    assert reasons["nobody answered"] == noise[4] + noise[5] + alone


@pytest.mark.parametrize("date", ["", "Date: Mon, 2 Mar 2026 08:57:00 +0000\n"])
def test_a_reply_without_a_date_or_of_a_clock_that_is_behind_is_no_question(tmp_path: Path, date: str) -> None:
    asked = "From: ana@a.de\nDate: Mon, 2 Mar 2026 09:00:00 +0000\nMessage-ID: <1@a>\nSubject: x\n\nIs it on?\n"
    answer = f"From: bo@b.de\n{date}Message-ID: <2@b>\nIn-Reply-To: <1@a>\nSubject: Re: x\n\nIt is on.\n"
    start = "From ana@a.de Mon Mar  2 09:00:00 2026\n"
    (tmp_path / "a.mbox").write_text(f"{start}{asked}\n{start}{answer}")
    (row,) = import_export(tmp_path / "a.mbox").rows
    assert (row["instruction"], row["output"]) == ("Is it on?", "It is on.")


def test_what_is_masked_is_counted(imported: Imported) -> None:
    assert imported.masked == Counter({"email": 2, "phone": 2, "ip": 1, "secret": 1, "card": 1})


def test_a_folder_is_read_as_its_zip(tmp_path: Path) -> None:
    import zipfile

    path = made_chats.write_slack(tmp_path / "export.zip")
    with zipfile.ZipFile(path) as archive:
        archive.extractall(tmp_path / "folder")
    assert import_export(tmp_path / "folder").rows == import_export(path).rows


def test_direct_messages_of_slack_are_left_out(tmp_path: Path) -> None:
    def write(name: str, value: Any) -> None:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(json.dumps(value))

    talk = [{"type": "message", "user": user, "text": text, "ts": f"{ts}.0", "thread_ts": "1.0"}
            for user, text, ts in (("U1", "Is it on?", 1), ("U2", "It is.", 2))]  # fmt: skip
    write("users.json", [])
    write("dms.json", [{"id": "D1", "members": ["U1", "U2"]}])
    write("mpims.json", [{"id": "G1", "name": "mpdm-ana--bo--cy-1"}])
    for channel in ("help", "D1", "mpdm-ana--bo--cy-1"):
        write(f"{channel}/2026-03-02.json", talk)
    imported = import_export(tmp_path)
    assert [row["provenance"]["file"] for row in imported.rows] == ["help"]
    assert Counter(item.reason for item in imported.dropped) == {"direct message": 4}


@pytest.mark.parametrize("name", ["users.json", "dms.json", "mpims.json"])
def test_a_damaged_list_of_slack_is_told(name: str, tmp_path: Path) -> None:
    """Without it bots, ids in place of names, or direct messages would become rows."""
    day = tmp_path / "help" / "2026-03-02.json"
    day.parent.mkdir()
    day.write_text(json.dumps([{"type": "message", "user": "U1", "text": "Is it on?", "ts": "1.0"}]))
    for each in ("users.json", "dms.json", "mpims.json"):
        (tmp_path / each).write_text("[{" if each == name else "[]")
    with pytest.raises(DatasetError, match=re.escape(name)):
        import_export(tmp_path)
