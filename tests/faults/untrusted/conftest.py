"""Copies of everything that a command reads, and the file that no payload may leave behind."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from planting import World


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    return tmp_path / "canary"


@pytest.fixture
def world(
    tiny_recipe: Path, tiny_base_folder: Path, tiny_rows_file: Path, tiny_adapter_folder: Path, tmp_path: Path
) -> World:
    base = Path(shutil.copytree(tiny_base_folder, tmp_path / "tiny-gpt2"))
    # Beside the other, so that its relative way to the base holds.
    adapter = tiny_adapter_folder.parent / f"planted-{tmp_path.name}"
    shutil.copytree(tiny_adapter_folder, adapter)
    rows = tmp_path / "rows.json"
    shutil.copyfile(tiny_rows_file, rows)
    return World(tiny_recipe, base, rows, adapter, tmp_path / "out")
