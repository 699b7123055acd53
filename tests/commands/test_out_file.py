"""A file that `--out` names is there whole, or as it was before."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from listeners import silent

from peft_instruct.commands.data_preview import data_preview
from peft_instruct.commands.data_stats import data_stats
from peft_instruct.commands.evaluate import evaluate
from peft_instruct.commands.out_file import check_not_read, check_out, out_file
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
    too_long = tmp_path / ("a" * 300)
    for path, said in (
        (tmp_path, "is a folder"),
        (tmp_path / "file" / "out.jsonl", "cannot be written"),
        (too_long, "cannot be written"),
    ):
        with pytest.raises(RecipeError, match=said), out_file(path):
            pytest.fail("the block ran")


def test_what_is_no_plain_file_stays(tmp_path: Path) -> None:
    """Put in its place, a file would take away /dev/null, or the pipe that another program reads."""
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(RecipeError, match="is a device or a pipe"), out_file(tmp_path / "pipe"):
        pytest.fail("the block ran")
    with pytest.raises(RecipeError, match="is a device or a pipe"):
        check_out(tmp_path / "pipe")
    assert (tmp_path / "pipe").is_fifo()


def test_a_link_stays_one_and_what_it_names_is_written(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "folder" / "named")
    for text in ("new\n", "newer\n"):
        with out_file(tmp_path / "link") as stream:
            stream.write(text)
        assert (tmp_path / "link").is_symlink() and (tmp_path / "folder" / "named").read_text() == text


def test_rows_that_are_read_are_not_written_over(tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"instruction": "a", "output": "b"}\n')
    (tmp_path / "link.jsonl").symlink_to(rows)
    for out, source in ((rows, rows), (rows, tmp_path), (tmp_path / "link.jsonl", rows), (rows, f"{tmp_path}/*.jsonl")):
        with pytest.raises(RecipeError, match="is read as well"):
            check_not_read(out, [str(source)])
    check_not_read(tmp_path / "new.jsonl", [str(rows)])
    check_not_read(tmp_path / ("a" * 300), [str(rows)])
    for command in (lambda: data_preview(str(rows), html=rows), lambda: data_stats(str(rows), svg=rows)):
        with pytest.raises(RecipeError, match="is read as well"):
            command()
    with pytest.raises(RecipeError, match="is read as well"):
        evaluate("adapters/quickstart-lora", data=str(rows), out=rows, say=silent)
    assert rows.read_text() == '{"instruction": "a", "output": "b"}\n'
