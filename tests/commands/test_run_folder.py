"""One writer per folder, an earlier adapter until the new one is proven, and errors before anything is loaded."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from listeners import silent

from peft_instruct.commands.run_folder import LOCK, MANIFEST, RunFolder, check_free, claimed
from peft_instruct.commands.train import train
from peft_instruct.errors import AdapterError, PeftInstructError
from peft_instruct.recipe import load_recipe

RECIPE = load_recipe("quickstart_lora")


def finish(folder: Path, text: str) -> Path:
    folder.mkdir(exist_ok=True)
    for name in ("recipe.yaml", MANIFEST):
        (folder / name).write_text(text)
    return folder


def test_a_second_writer_is_told_who_holds_the_folder(tmp_path: Path) -> None:
    out = tmp_path / "a"
    with claimed(out, RECIPE, "refuse", print) as folder:
        with pytest.raises(PeftInstructError, match=rf"run\.lock is held by process {os.getpid()} on .+ since 20"):
            claimed(out, RECIPE, "refuse", print).__enter__()
        assert json.loads((folder.work / LOCK).read_text())["pid"] == os.getpid()
    assert list(tmp_path.iterdir()) == []


def test_a_lock_of_a_process_that_was_killed_is_taken_over_with_a_note(tmp_path: Path) -> None:
    (tmp_path / "a.run").mkdir()
    (tmp_path / "a.run" / LOCK).write_text('{"pid": 4242, "host": "elsewhere", "since": "2026-01-01"}')
    said: list[str] = []
    with claimed(tmp_path / "a", RECIPE, "refuse", said.append):
        pass
    assert "took over the lock of process 4242 on elsewhere since 2026-01-01" in said[0]


def test_the_earlier_adapter_is_there_until_the_new_one_takes_its_place(tmp_path: Path) -> None:
    out = finish(tmp_path / "a", "old")
    with claimed(out, RECIPE, "replace", print) as folder:
        finish(folder.work, "new")
        assert (out / MANIFEST).read_text() == "old"
        folder.put_in_place()
    assert (out / MANIFEST).read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert not (out / LOCK).exists()


def test_a_crash_between_the_two_renames_loses_neither_adapter(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "a", finish(tmp_path / "a.run", "new"))
    finish(folder.replaced, "old")
    with claimed(tmp_path / "a", RECIPE, "replace", print) as again:
        assert (again.final / MANIFEST).read_text() == "old"
        assert (again.work / MANIFEST).read_text() == "new"
    finish(folder.replaced, "older")  # a crash after them, before the earlier one was gone
    with claimed(tmp_path / "a", RECIPE, "replace", print):
        assert not folder.replaced.exists()


def test_the_lock_of_who_comes_next_is_left_to_it(tmp_path: Path) -> None:
    """Between a run's being put in place and its end another one may begin."""
    with claimed(tmp_path / "a", RECIPE, "refuse", print) as folder:
        finish(folder.work, "new")
        folder.put_in_place()
        folder.work.mkdir()
        (folder.work / LOCK).write_text('{"pid": 4242, "host": "here", "since": "2026-01-01"}')
    assert (folder.work / LOCK).is_file()


def test_a_working_folder_of_someone_else_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "a.run").mkdir()
    (tmp_path / "a.run" / "thesis.txt").write_text("mine")
    with pytest.raises(AdapterError, match=r"a\.run: holds what no run wrote \(thesis\.txt\)"):
        claimed(tmp_path / "a", RECIPE, "replace", print).__enter__()
    assert (tmp_path / "a.run" / "thesis.txt").read_text() == "mine"


def test_a_folder_above_the_working_folder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "project").mkdir()
    monkeypatch.chdir(tmp_path / "project")
    with pytest.raises(AdapterError, match="the working folder"):
        claimed(tmp_path, RECIPE, "replace", print).__enter__()


def test_a_mount_point_is_refused_before_and_not_after_training() -> None:
    with pytest.raises(AdapterError, match="is a mount point"):
        claimed(Path("/proc"), RECIPE, "replace", print).__enter__()


@pytest.mark.skipif(not hasattr(os, "setresuid"), reason="no user ids here")
def test_a_place_that_may_not_be_written_is_told_with_owner_and_mode(tmp_path: Path) -> None:
    """As nobody where the tests run as root, whom no mode stops."""
    (tmp_path / "shut").mkdir(mode=0o555)
    code = (
        "import os, sys, pathlib\n"
        "from peft_instruct.commands.run_folder import claimed\n"
        "from peft_instruct.errors import AdapterError\n"
        "from peft_instruct.recipe import load_recipe\n"
        "recipe = load_recipe('quickstart_lora')\n"
        "os.chdir(sys.argv[1])\n"
        "if os.geteuid() == 0: os.setresuid(65534, 65534, 65534)\n"
        "try: claimed(pathlib.Path('a'), recipe, 'refuse', print).__enter__()\n"
        "except AdapterError as error: print(error)\n"
        "assert 'torch' not in sys.modules\n"
    )
    for folder in (tmp_path, tmp_path.parent, tmp_path.parent.parent):
        folder.chmod(folder.stat().st_mode | 0o055)
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "shut")], capture_output=True, text=True)
    assert "a.run: cannot be written (Permission denied; . has mode 555 and owner" in done.stdout, done.stderr


def test_what_a_file_manager_leaves_is_nobodys_work(tiny_recipe: Path, tmp_path: Path) -> None:
    final = tmp_path / "adapter"
    overrides = ("training.max_steps=3", "samples.count=0", "evaluation.rows=0")
    train(str(tiny_recipe), overrides, out=final, say=silent)
    (final / ".DS_Store").write_bytes(b"icons")
    again = train(str(tiny_recipe), overrides, out=final, say=silent)
    assert again.record()["finished_already"]


def test_a_place_that_cannot_be_written_is_told_by_a_dry_run_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda place, mode: False)  # root may write everywhere
    with pytest.raises(AdapterError, match=r"adapter\.run: cannot be written \(.* has mode \d+ and owner"):
        check_free(tmp_path / "adapter", RECIPE, "refuse")
