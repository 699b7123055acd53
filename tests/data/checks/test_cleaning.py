"""The cleaned copy of `data check --fix`: nothing that it can mend is left, nothing else is touched."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from planted import ask, clean_rows, write_planted

from peft_instruct.commands.data_check import CheckResult, data_check
from peft_instruct.data.checks.catalogue import CATALOGUE
from peft_instruct.data.checks.cleaning import CLEANERS, clean_text
from peft_instruct.data.prepare import read_source
from peft_instruct.errors import DatasetError
from peft_instruct.recipe.data_section import DataSection


@pytest.fixture(scope="module")
def fixed(tmp_path_factory: pytest.TempPathFactory) -> tuple[CheckResult, Path, bytes]:
    path = tmp_path_factory.mktemp("fixed") / "rows.jsonl"
    write_planted(path)
    before = path.read_bytes()
    return data_check(str(path), fix=True), path, before


def test_the_source_stays_as_it_is(fixed: tuple[CheckResult, Path, bytes]) -> None:
    _, path, before = fixed
    assert path.read_bytes() == before
    assert {found.name for found in path.parent.iterdir()} == {"rows.jsonl", "rows.cleaned.jsonl", "rows.changes.jsonl"}


def test_a_cleaned_copy_has_nothing_left_to_clean_and_can_be_trained(fixed: tuple[CheckResult, Path, bytes]) -> None:
    file = fixed[0].cleaned[0]
    again = data_check(str(file.cleaned))
    assert [finding for finding in again.findings if finding.kind.remedy != "look"] == []
    assert len(read_source(str(file.cleaned), DataSection(train=str(file.cleaned)))[0]) == file.num_rows


def test_clean_rows_stay_in_their_order_and_every_other_is_in_the_log(fixed: tuple[CheckResult, Path, bytes]) -> None:
    file = fixed[0].cleaned[0]
    cleaned = [json.loads(line) for line in file.cleaned.read_text().splitlines()]
    wanted = clean_rows()
    at = iter(cleaned)
    assert all(row in at for row in wanted), "a clean row was changed, moved or lost"
    changes = [json.loads(line) for line in file.changes.read_text().splitlines()]
    left_out = {change["origin"] for change in changes if change["action"] == "left out"}
    num_lines = len(fixed[2].splitlines())
    assert len(cleaned) == num_lines - len(left_out)
    for change in changes:
        assert change["codes"] and all(CATALOGUE[code].remedy in ("drop", "clean") for code in change["codes"])
        # What is masked is masked in the log, too.
        is_masked = change["action"] == "cleaned" and set(change["codes"]) <= {"secret", "personal-data"}
        assert change["action"] == "left out" or (change["before"] == change["after"]) == is_masked


def test_what_is_there_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(ask("Name a bird.", " Robin")) + "\n")
    (tmp_path / "rows.cleaned.jsonl").write_text("mine")
    with pytest.raises(DatasetError, match="is there already"):
        data_check(str(path), fix=True)
    assert data_check(str(path), fix=True, out=tmp_path / "other").cleaned[0].num_cleaned == 1
    assert (tmp_path / "rows.cleaned.jsonl").read_text() == "mine"


@pytest.mark.parametrize("named", ["", "*.jsonl"])
def test_copies_are_not_put_among_the_files_that_a_folder_or_pattern_names(tmp_path: Path, named: str) -> None:
    (tmp_path / "rows").mkdir()
    (tmp_path / "rows" / "a.jsonl").write_text(json.dumps(ask("Name a bird.", " Robin")) + "\n")
    several = str(tmp_path / "rows" / named)
    with pytest.raises(DatasetError, match="with --out"):
        data_check(several, fix=True)
    assert data_check(several, fix=True, out=tmp_path).cleaned[0].cleaned == tmp_path / "a.cleaned.jsonl"
    assert [path.name for path in (tmp_path / "rows").iterdir()] == ["a.jsonl"]


def test_every_kind_that_is_said_to_be_cleaned_has_a_cleaner() -> None:
    assert {code for code, kind in CATALOGUE.items() if kind.remedy == "clean"} == set(CLEANERS)


@pytest.mark.parametrize(
    "text", ["crème brûlée", "“never” – he said…", "Ångström Œuvre", "Привет, мир", "naïve 😀 東京"], ids=ascii
)
@pytest.mark.parametrize("read_as", ["latin-1", "cp1252"])
def test_mojibake_is_read_back(text: str, read_as: str) -> None:
    damaged = "".join(
        byte.decode(read_as, errors="ignore") or byte.decode("latin-1") for byte in (bytes([b]) for b in text.encode())
    )
    assert clean_text(damaged, ["mojibake"]) == text
    assert clean_text(text, ["mojibake"]) == text


def test_what_is_ignored_is_not_mended(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    rows = [
        ask("Where do I write to?", "support@acme.example"),
        ask("Name a bird.", "Robin"),
        ask("Name a bird.", "Robin"),
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    kept = data_check(str(path), fix=True, ignore=["personal-data", "duplicate"], out=tmp_path / "kept").cleaned[0]
    assert [json.loads(line) for line in kept.cleaned.read_text().splitlines()] == rows
    mended = data_check(str(path), fix=True, out=tmp_path / "mended").cleaned[0]
    assert (mended.num_left_out, mended.num_cleaned) == (1, 1)


def test_what_the_copy_masks_its_log_does_not_show(tmp_path: Path) -> None:
    key = "sk-proj-" + "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFGH"
    (tmp_path / "rows.jsonl").write_text(json.dumps(ask("Which key?", f"Use {key}\u200b.")) + "\nbroken\n")
    result = data_check(str(tmp_path / "rows.jsonl"), fix=True)
    log = result.cleaned[0].changes.read_text()
    assert key not in log + result.cleaned[0].cleaned.read_text() and '"secret"' in log
    assert "rows.jsonl: 2 rows\n" in result.text() and "mend the line. Left out by --fix." in result.text()


def test_files_of_one_name_go_to_files_of_their_own(tmp_path: Path) -> None:
    sources = []
    for folder, name in (("a", "rows.jsonl"), ("b", "rows.jsonl"), ("a", "faq.en.jsonl"), ("a", "faq.de.jsonl")):
        path = tmp_path / folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(ask(f"Where is {folder}/{name}?", "Here.")) + "\n")
        sources.append(str(path))
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(json.dumps({"name": "x", "model": {"base": "starter"}, "data": {"train": sources}}))
    cleaned = data_check(str(recipe), fix=True, out=tmp_path / "out").cleaned
    names = [each.cleaned.name for each in cleaned]
    assert names == ["rows.cleaned.jsonl", "rows-2.cleaned.jsonl", "faq.en.cleaned.jsonl", "faq.de.cleaned.jsonl"]
    assert len({each.cleaned.read_text() for each in cleaned}) == 4


@pytest.mark.parametrize(
    ("code", "text", "cleaned"),
    [
        (
            "literal-escape",
            r"Look in C:\new\notes.\nOpen it.\n\nThen wait.",
            "Look in C:\\new\\notes.\nOpen it.\n\nThen wait.",
        ),
        ("html-entity", "Tom &amp; Ann&#39;s &euro; ?id=1&copy=2&region=eu", "Tom & Ann's € ?id=1&copy=2&region=eu"),
    ],
)
def test_what_only_looks_like_a_fault_stays(code: str, text: str, cleaned: str) -> None:
    assert clean_text(text, [code]) == cleaned


def test_of_two_alike_one_stays_though_the_first_is_left_out_for_something_else(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    row = ask("What is the capital of France?", "Paris")
    path.write_text(json.dumps({**row, "accepted": "Paris"}) + "\n" + json.dumps(row) + "\n")
    (file,) = data_check(str(path), fix=True).cleaned
    assert [json.loads(line) for line in file.cleaned.read_text().splitlines()] == [row]
    # A fault that is to be ignored leaves nothing out, and the second is a double again.
    codes = [finding.code for finding in data_check(str(path), ignore=["not-text"]).findings]
    assert codes == ["duplicate"]


@pytest.mark.parametrize("answer", ["<|endoftext|>", "N/A\u200b", "&nbsp;"])
def test_a_row_of_nothing_but_damage_is_left_out(answer: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(
        json.dumps(ask("Name a colour.", answer)) + "\n" + json.dumps(ask("Name a fruit.", "A plum.")) + "\n"
    )
    (file,) = data_check(str(path), fix=True).cleaned
    assert [json.loads(line)["output"] for line in file.cleaned.read_text().splitlines()] == ["A plum."]
    assert '"left out"' in file.changes.read_text()


def test_what_else_is_accepted_is_cleaned_as_the_answer_is(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    row = {
        **ask("Whom do I ask?", "Write to ana@example.org"),
        "accepted": ["Write to ana@example.org", "ana@example.org", "Ana"],
    }
    path.write_text(json.dumps(row) + "\n")
    (file,) = data_check(str(path), fix=True).cleaned
    clean = json.loads(file.cleaned.read_text())
    assert clean["accepted"] == [clean["output"], "[EMAIL]", "Ana"] and clean["output"] == "Write to [EMAIL]"
    assert "ana@" not in file.changes.read_text() and '"accepted[1]"' in file.changes.read_text()
    (kept,) = data_check(str(path), fix=True, ignore=["personal-data"], out=tmp_path / "kept").cleaned
    assert json.loads(kept.cleaned.read_text()) == row


def test_marks_of_a_ready_made_prompt_are_its_own(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    row = {"prompt": "<|user|>\nName a farm animal.<|end|>\n<|assistant|>\n", "completion": "A cow."}
    path.write_text(json.dumps(row) + "\n")
    assert "special-token" not in {finding.code for finding in data_check(str(path)).findings}
    path.write_text(json.dumps({**row, "completion": "A cow.<|end|>"}) + "\n")
    assert "special-token" in {finding.code for finding in data_check(str(path)).findings}
