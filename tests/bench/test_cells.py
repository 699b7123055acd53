"""The grid holds what was asked for, and each cell's recipe trains that and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from peft_instruct.bench.cells import DEVICES, METHODS, cell_recipe, method_of, plan
from peft_instruct.errors import RecipeError
from peft_instruct.recipe import Recipe, load_recipe


@pytest.fixture
def recipe(tiny_recipe: Path) -> Recipe:
    return load_recipe(str(tiny_recipe), ["training.keep_best=true", "samples.count=3"])


def test_without_a_word_every_device_is_asked_for_what_the_recipe_says(recipe: Recipe) -> None:
    cells = plan(recipe)
    assert [cell.device for cell in cells] == list(DEVICES)
    assert {(cell.method, cell.rank, cell.precision, cell.batch_size, cell.max_length) for cell in cells} == {
        ("lora", 4, "fp32", 8, 160)
    }


def test_the_grid_is_every_combination_once(recipe: Recipe) -> None:
    cells = plan(recipe, devices=["cpu", "cpu"], methods=["lora", "full"], batch_sizes=[1, 8], lengths=[64])
    assert len(cells) == len(set(cells)) == 4


def test_all_unknown_words_are_told_at_once(recipe: Recipe) -> None:
    with pytest.raises(RecipeError) as error:
        plan(recipe, devices=["gpu"], methods=["adapter"], precisions=["int4"], batch_sizes=[0], lengths=[])
    assert str(error.value) == (
        "bench: 5 problems\n"
        "  lengths: nothing is named. Leave it out, or name at least one.\n"
        "  devices: 'gpu' is not one of cuda, mps, cpu.\n"
        f"  methods: 'adapter' is not one of {', '.join(METHODS)}.\n"
        "  precisions: 'int4' is not one of auto, fp32, bf16, fp16.\n"
        "  batch_sizes: 0 is less than 1."
    )


@pytest.mark.parametrize("method", METHODS)
def test_the_recipe_of_a_cell_is_of_the_cell_s_method(recipe: Recipe, method: str) -> None:
    (cell,) = plan(recipe, devices=["cpu"], methods=[method], batch_sizes=[3], lengths=[77])
    found = cell_recipe(recipe, cell, num_steps=5)
    assert method_of(found) == method
    assert (found.training.max_steps, found.training.batch_size, found.data.max_length) == (5, 3, 77)
    assert (found.training.evaluate_every, found.training.save_every, found.samples.count) == ("never", "never", 0)
    if method != "full":
        assert (found.method.rank, found.method.alpha) == (recipe.method.rank, recipe.method.alpha)


def test_a_full_recipe_can_be_benched_with_lora_s_defaults(tmp_path: Path) -> None:
    path = tmp_path / "full.yaml"
    path.write_text("model: {base: gpt2}\nmethod: {kind: full}\ndata: {train: rows.json}\ntraining: {}\n")
    recipe = load_recipe(str(path))
    assert method_of(recipe) == "full"
    (cell,) = plan(recipe, devices=["cpu"], methods=["lora"])
    assert cell_recipe(recipe, cell, 5).method.rank == 16


def test_a_recipe_that_a_method_cannot_train_is_told_with_the_cell(tmp_path: Path) -> None:
    path = tmp_path / "scratch.yaml"
    path.write_text("model: {base: gpt2, init: random}\nmethod: {kind: full}\ndata: {train: rows.json}\ntraining: {}\n")
    recipe = load_recipe(str(path))
    (cell,) = plan(recipe, devices=["cpu"], methods=["lora"])
    with pytest.raises(RecipeError, match="an adapter on random weights cannot be used again") as error:
        cell_recipe(recipe, cell, 5)
    assert str(error.value).startswith("cpu lora rank 16 auto batch 8 length 512: ")
