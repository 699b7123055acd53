"""Recipes and rows gone wrong in any way are read or told, within a second, and never end in a traceback.

The long form, `pytest -m slow tests/faults/test_fuzz.py`, runs other mutations each time.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from mutations import DATA_FILES, Fuzzed, fuzz

from peft_instruct.data.prepare import read_source
from peft_instruct.errors import DatasetError, RecipeError
from peft_instruct.recipe import load_recipe
from peft_instruct.recipe.data_section import DataSection
from peft_instruct.recipe.shipped import shipped_recipes
from peft_instruct.recipe.writing import recipe_yaml

MOST_SECONDS = 1.0
SHORT = 150
LONG = 2500


def recipe_originals() -> tuple[bytes, ...]:
    """Every shipped recipe, as it is and with every key."""
    files = shipped_recipes()
    return (*(file.read_bytes() for file in files), *(recipe_yaml(load_recipe(str(file))).encode() for file in files))


def recipe_outcome(path: Path, content: bytes) -> str:
    """`told` or `read`; a recipe that is read is written and read again as the same."""
    path.write_bytes(content)
    try:
        recipe = load_recipe(str(path))
    except RecipeError as error:
        assert str(error).startswith(str(path)), "a problem without its place"
        return "told"
    path.write_text(recipe_yaml(recipe), encoding="utf-8")
    assert load_recipe(str(path)) == recipe
    return "read"


def rows_outcome(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    try:
        rows = read_source(str(path), DataSection(train=str(path)))[0]
    except DatasetError as error:
        assert str(error).startswith(str(path)), "a problem without its place"
        return "told"
    assert rows
    return "read"


def fuzz_recipes(folder: Path, num_cases: int, *, repeatable: bool = True) -> Fuzzed:
    act = partial(recipe_outcome, folder / "r.yaml")
    return fuzz(recipe_originals(), act, num_cases, repeatable=repeatable)


def fuzz_rows(folder: Path, suffix: str, num_cases: int, *, repeatable: bool = True) -> Fuzzed:
    act = partial(rows_outcome, folder / f"rows{suffix}")
    return fuzz(DATA_FILES[suffix], act, num_cases, repeatable=repeatable)


def parquet_files() -> Iterator[bytes]:
    import io

    import pyarrow as arrow
    import pyarrow.parquet as parquet

    for compression in ("none", "zstd"):
        out = io.BytesIO()
        table = arrow.table({"instruction": ["a", "b"] * 20, "output": ["é" * 9, "d"] * 20})
        parquet.write_table(table, out, compression=compression)
        yield out.getvalue()


@pytest.fixture
def parquet_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(DATA_FILES, ".parquet", tuple(parquet_files()))


def check(fuzzed: Fuzzed, num_cases: int) -> None:
    assert fuzzed.num_cases >= num_cases
    assert fuzzed.slowest_seconds <= MOST_SECONDS
    # Mutations that all break, or none of them, would show nothing.
    assert min(fuzzed.outcomes["told"], fuzzed.outcomes["read"]) >= num_cases // 50


def test_recipes_gone_wrong_are_read_or_told(tmp_path: Path) -> None:
    check(fuzz_recipes(tmp_path, SHORT), SHORT)


@pytest.mark.parametrize("suffix", DATA_FILES)
def test_rows_gone_wrong_are_read_or_told(suffix: str, tmp_path: Path) -> None:
    check(fuzz_rows(tmp_path, suffix, SHORT // 3), SHORT // 3)


@pytest.mark.slow
def test_thousands_of_recipes_gone_wrong(tmp_path: Path) -> None:
    check(fuzz_recipes(tmp_path, LONG, repeatable=False), LONG)


@pytest.mark.slow
@pytest.mark.usefixtures("parquet_too")
@pytest.mark.parametrize("suffix", [*DATA_FILES, ".parquet"])
def test_thousands_of_files_of_rows_gone_wrong(suffix: str, tmp_path: Path) -> None:
    check(fuzz_rows(tmp_path, suffix, LONG // 3, repeatable=False), LONG // 3)
