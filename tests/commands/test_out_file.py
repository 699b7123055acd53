"""A file that `--out` names is there whole, or as it was before."""

from __future__ import annotations

from pathlib import Path

import pytest

from peft_instruct.commands.out_file import out_file
from peft_instruct.errors import RecipeError


def test_a_file_appears_when_it_is_finished_and_not_before(tmp_path: Path) -> None:
    path = tmp_path / "new" / "out.jsonl"
    with out_file(path) as stream:
        stream.write("whole\n")
        assert not path.exists()
    assert path.read_text() == "whole\n"
    assert [file.name for file in path.parent.iterdir()] == ["out.jsonl"]


def test_a_failed_run_leaves_the_earlier_file_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    path.write_text("earlier\n")

    def fail() -> None:
        with out_file(path) as stream:
            stream.write("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert path.read_text() == "earlier\n"
    assert [file.name for file in tmp_path.iterdir()] == ["out.jsonl"]


def test_a_place_that_cannot_be_written_is_told_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path, said in ((tmp_path, "is a folder"), (tmp_path / "file" / "out.jsonl", "cannot be written")):
        with pytest.raises(RecipeError, match=said), out_file(path):
            pytest.fail("the block ran")
