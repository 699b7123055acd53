"""The run that is broken in every way here, and the one that nothing happens to."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from children import Ended, Zygote
from tiny import write_tiny_recipe


@pytest.fixture(scope="session")
def fault_recipe(tmp_path_factory: pytest.TempPathFactory, tiny_base_folder: Path, tiny_rows_file: Path) -> Path:
    """The hard case of going on: dropout, buckets, accumulation, evaluations, epochs that end within the run.

    24 rows in batches of 4, two to a step, are 3 steps an epoch; 8 steps in all.
    """
    path = write_tiny_recipe(tmp_path_factory.mktemp("faults") / "fault.yaml", tiny_base_folder, tiny_rows_file)
    text = path.read_text(encoding="utf-8")
    for before, after in (
        ("  dropout: 0.0", "  dropout: 0.1"),
        ("alpha: 8", "alpha: 8\n  dropout: 0.1"),
        ("max_length: 160", "max_length: 160\n  limit: 24"),
        ("max_steps: 12", "max_steps: 8"),
        ("batch_size: 8", "batch_size: 4\n  accumulation: 2\n  save_every: 2\n  evaluate_every: 4"),
        ("log_every: 4", "log_every: 1"),
        ("rows: 4", "rows: 0"),
        ("count: 1", "count: 0"),
    ):
        assert before in text
        text = text.replace(before, after)
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def zygote(tmp_path_factory: pytest.TempPathFactory, fault_recipe: Path) -> Iterator[Zygote]:
    started = Zygote(fault_recipe, tmp_path_factory.mktemp("logs"))
    yield started
    started.close()


@pytest.fixture(scope="session")
def _whole(zygote: Zygote, fault_recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Ended]:
    out = tmp_path_factory.mktemp("uninterrupted") / "adapter"
    ended = zygote.run("train", fault_recipe, "--out", out)
    assert ended.code == 0, ended.said
    return out, ended


@pytest.fixture(scope="session")
def uninterrupted(_whole: tuple[Path, Ended]) -> Path:
    """The adapter of the run that nothing happens to."""
    return _whole[0]


@pytest.fixture(scope="session")
def whole_seconds(_whole: tuple[Path, Ended]) -> float:
    """How long it took."""
    return _whole[1].seconds
