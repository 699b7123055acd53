"""`train --ledger` and `data worst`: the loss of each training row, and the rows that a person should look at."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from peft_instruct.cli import cli
from peft_instruct.commands.data_worst import WorstResult, data_worst
from peft_instruct.data.prepare import read_instruction_data
from peft_instruct.data.tokens import tokenize
from peft_instruct.evaluation.ledger import LedgerEntry, Suspects, read_ledger, suspects
from peft_instruct.recipe import load_recipe

NUM_ROWS = 48


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory, tiny_recipe: Path) -> Path:
    """An adapter with its ledger; of its rows, all answered `red`, two are mislabelled."""
    folder = tmp_path_factory.mktemp("ledger")
    rows = [{"instruction": f"Colour of thing {n}?", "output": "red red red"} for n in range(NUM_ROWS)]
    rows[7]["output"] = rows[30]["output"] = "\x1b[31mblue green blue"
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "held_out.jsonl").write_text(json.dumps(rows[0]) + "\n")
    overrides = [
        f"data.train={folder / 'rows.jsonl'}", f"data.validation={folder / 'held_out.jsonl'}", "samples.count=0",
        "evaluation.rows=0", "training.max_steps=24", "training.learning_rate=0.02",
        "training.warmup=0",
    ]  # fmt: skip
    out = folder / "adapter"
    options = [word for override in overrides for word in ("--set", override)]
    done = CliRunner().invoke(cli, ["train", str(tiny_recipe), *options, "--ledger", "--out", str(out)])
    assert done.exit_code == 0, done.output
    return out


def test_the_ledger_is_the_loss_of_each_row_before_and_after(kept: Path) -> None:
    """Against a pass of its own over the base and over base and adapter, one row at a time."""
    import torch

    from peft_instruct.adapter.folder import load_tuned, open_adapter
    from peft_instruct.environment import HubState
    from peft_instruct.model.device import choose_compute

    tuned = load_tuned(open_adapter(kept), choose_compute("cpu", "fp32"), HubState(False))
    recipe = load_recipe(str(kept / "recipe.yaml"))
    data = read_instruction_data(recipe.data, recipe.training.seed)
    tokens, _ = tokenize(data.train, tuned.base.tokenizer, max_length=recipe.data.max_length)
    entries = read_ledger(kept)
    assert [entry.origin for entry in entries] == [row.origin for row in tokens]

    def loss(model: Any, row: Any) -> float:
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([row.input_ids])).logits[0, row.prompt_length - 1 : -1].double()
        return float(torch.nn.functional.cross_entropy(logits, torch.tensor(row.labels[row.prompt_length :])))

    for entry, row in list(zip(entries, tokens, strict=True))[::9]:
        assert entry.loss_after == pytest.approx(loss(tuned.model, row), rel=1e-4)
        with tuned.untuned() as base:
            assert entry.loss_before == pytest.approx(loss(base, row), rel=1e-4)


def test_mislabelled_rows_are_listed_with_what_they_say(kept: Path) -> None:
    result = data_worst(str(kept))
    assert sorted(entry.origin.rsplit(":", 1)[1] for entry in result.suspects.mislabelled) == ["31", "8"]
    shown = CliRunner().invoke(cli, ["data", "worst", str(kept)])
    assert shown.exit_code == 0, shown.output
    assert "48 training rows, median loss" in shown.output
    assert "2 rows look mislabelled" in shown.output
    assert "asked       Colour of thing 30?" in shown.output
    assert "completion  \\x1b[31mblue green blue" in shown.output and "\x1b" not in shown.output


def test_json_has_every_suspect_with_its_row(kept: Path) -> None:
    done = CliRunner().invoke(cli, ["data", "worst", str(kept), "--rows", "1", "--json"])
    record = json.loads(done.stdout)
    assert record["num_rows"] == NUM_ROWS
    assert {row["asked"] for row in record["mislabelled"]} == {"Colour of thing 7?", "Colour of thing 30?"}
    assert list(record) == ["adapter", "num_rows", "note", "mislabelled", "worse", "unlearned"]


def test_the_folder_hands_over_no_text_of_the_rows(kept: Path) -> None:
    assert "Colour" not in (kept / "ledger.jsonl").read_text(encoding="utf-8")
    assert "ledger.jsonl" in json.loads((kept / "manifest.json").read_text(encoding="utf-8"))["files"]


def test_rows_that_changed_or_are_gone_are_not_shown(kept: Path) -> None:
    source = kept.parent / "rows.jsonl"
    there = source.read_text()
    try:
        source.write_text(there.replace("thing 7", "item 7"))
        assert "not that of the training any more" in data_worst(str(kept)).text()
        source.unlink()
        result = data_worst(str(kept))
        assert "the rows cannot be shown" in result.note and not result.rows
        assert len(result.suspects.mislabelled) == 2
    finally:
        source.write_text(there)


@pytest.mark.parametrize(("after", "told"), [(2.5, True), (2.3, False)])
def test_a_run_that_learned_little_says_so_above_its_lists(after: float, told: bool) -> None:
    entries = [LedgerEntry(f"rows.jsonl:{n}", 5, 3.0, after, 0.5, -1.0) for n in range(4)]
    text = WorstResult("a", entries, suspects(entries), {}, "", 10).text()
    assert ("learned little" in text) is told


@pytest.mark.parametrize(("num_wrong", "told"), [(2, False), (4, True)])
def test_where_many_stand_out_they_are_said_to_be_another_kind(num_wrong: int, told: bool) -> None:
    entries = [LedgerEntry(f"a:{number}", 3, 4.0, 0.1, 1.0, 0.0) for number in range(10)]
    wrong = tuple(entries[:num_wrong])
    text = WorstResult("a", entries, Suspects(wrong, (), ()), {}, "", 10).text()
    assert (f"{num_wrong * 10}% of the rows stand out: more likely another kind" in text) == told


def test_an_adapter_without_a_ledger_is_told(tiny_adapter_folder: Path) -> None:
    done = CliRunner().invoke(cli, ["data", "worst", str(tiny_adapter_folder)])
    assert "no ledger.jsonl: its run kept none" in str(done.exception)


def test_a_changed_ledger_is_refused(kept: Path, tmp_path: Path) -> None:
    from peft_instruct.errors import AdapterError

    copy = shutil.copytree(kept, tmp_path / "copy")
    lines = (copy / "ledger.jsonl").read_text(encoding="utf-8").splitlines()
    (copy / "ledger.jsonl").write_text("\n".join(lines[:-1]) + "\n", encoding="utf-8")
    with pytest.raises(AdapterError, match=r"ledger\.jsonl"):
        data_worst(str(copy))
