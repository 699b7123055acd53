"""What a recipe says is what it resolves to: merging, overriding, explaining, writing and reading back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from peft_instruct.errors import RecipeError
from peft_instruct.recipe import Recipe, load_recipe, read_recipe
from peft_instruct.recipe.schema import DEFAULT_LEARNING_RATE
from peft_instruct.recipe.shipped import shipped_folder, shipped_recipes
from peft_instruct.recipe.writing import explain, recipe_hash, recipe_values, recipe_yaml

GOOD = "model: {base: gpt2}\ndata: {train: rows.json}\n"


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Writes files into an empty working folder."""
    monkeypatch.chdir(tmp_path)

    def write_files(**texts: str) -> None:
        for name, text in texts.items():
            Path(f"{name}.yaml").write_text(text, encoding="utf-8")

    return write_files


def test_extends_merges_deeply_and_the_nearer_file_wins(write: Any) -> None:
    write(
        far=GOOD + "training: {epochs: 1, batch_size: 2, seed: 5}\nsamples: {instructions: [a, b]}\n",
        middle="extends: far\ntraining: {batch_size: 3}\n".replace("far", "far.yaml"),
        near="extends: middle.yaml\ntraining: {seed: 7}\nsamples: {instructions: [c]}\n",
    )
    recipe = load_recipe("near.yaml")
    assert (recipe.training.epochs, recipe.training.batch_size, recipe.training.seed) == (1, 3, 7)
    assert recipe.samples.instructions == ["c"], "lists are replaced, not joined"
    assert recipe.name == "near", "the name is the file's own, not its base's"


def test_extends_is_read_from_the_folder_of_the_file_that_says_it(write: Any, tmp_path: Path) -> None:
    write(base=GOOD)
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "mine.yaml").write_text("extends: ../base.yaml\nname: mine\n")
    assert load_recipe("inner/mine.yaml").model.base == "gpt2"


def test_another_kind_of_method_starts_the_section_anew(write: Any) -> None:
    write(lora=GOOD + "method: {kind: lora, rank: 3}\n", full="extends: lora.yaml\nmethod: {kind: full}\n")
    assert load_recipe("full.yaml").method.kind == "full"
    assert load_recipe("lora.yaml", ["method.kind=full"]).method.kind == "full"
    assert load_recipe("full.yaml", ["method.kind=lora"]).method.rank == 16, "the base recipe's rank is gone"


@pytest.mark.parametrize(
    ("override", "path", "value"),
    [
        ("training.learning_rate=1e-4", ("training", "learning_rate"), 1e-4),
        ("training.learning_rate=2e-5", ("training", "learning_rate"), 2e-5),
        ("training.epochs=2", ("training", "epochs"), 2.0),
        ("training.max_steps=null", ("training", "max_steps"), None),
        ("training.evaluate_every=never", ("training", "evaluate_every"), "never"),
        ("training.evaluate_every=20", ("training", "evaluate_every"), 20),
        ("training.keep_best=true", ("training", "keep_best"), True),
        ("training.early_stopping={patience: 2}", ("training", "early_stopping", "patience"), 2),
        ("model.base=no", ("model", "base"), "no"),
        ("model.base='07'", ("model", "base"), "07"),
        ("data.train=a=b.json", ("data", "train"), "a=b.json"),
        ("data.train=C:/rows.json", ("data", "train"), "C:/rows.json"),
        ("data.train=owner/name:test", ("data", "train"), "owner/name:test"),
        ("method.targets=[c_attn]", ("method", "targets"), ["c_attn"]),
        ("samples.instructions=[Say hi., 'Add 1, 2.']", ("samples", "instructions"), ["Say hi.", "Add 1, 2."]),
        ("description=2024-01-01", ("description",), "2024-01-01"),
    ],
)
def test_an_override_goes_through_the_same_schema(write: Any, override: str, path: tuple[str, ...], value: Any) -> None:
    write(r=GOOD)
    found: Any = load_recipe("r.yaml", [override])
    for part in path:
        found = getattr(found, part)
    assert found == value
    assert type(found) is type(value)


def test_the_last_override_of_a_key_wins(write: Any) -> None:
    write(r=GOOD + "training: {seed: 1}\n")
    assert load_recipe("r.yaml", ["training.seed=2", "training.seed=3"]).training.seed == 3


def test_a_section_given_whole_is_merged_and_not_replaced(write: Any) -> None:
    write(r=GOOD + "training: {seed: 1, batch_size: 4}\n")
    training = load_recipe("r.yaml", ["training={seed: 2}"]).training
    assert (training.seed, training.batch_size) == (2, 4)


@pytest.mark.parametrize("kind", ["lora", "full"])
def test_the_learning_rate_of_a_method_is_its_own(write: Any, kind: str) -> None:
    write(r=GOOD)
    assert load_recipe("r.yaml", [f"method.kind={kind}"]).training.learning_rate == DEFAULT_LEARNING_RATE[kind]
    given_rate = load_recipe("r.yaml", [f"method.kind={kind}", "training.learning_rate=0.5"])
    assert given_rate.training.learning_rate == 0.5


def test_explain_says_where_each_value_came_from(write: Any) -> None:
    write(base=GOOD + "training:\n  epochs: 1\n  seed: 4\n", r="extends: base.yaml\ntraining:\n  seed: 5\n")
    rows = {key: (value, origin) for key, value, origin in explain(read_recipe("r.yaml", ["method.rank=2"]))}
    assert rows["model.base"] == ('"gpt2"', "base.yaml:1:9")
    assert rows["training.epochs"] == ("1.0", "base.yaml:4:3")
    assert rows["training.seed"] == ("5", "r.yaml:3:3")
    assert rows["method.rank"] == ("2", "--set method.rank=2")
    assert rows["training.batch_size"] == ("8", "default")
    assert rows["name"] == ('"r"', "default")


def test_explain_shows_every_value_once(write: Any) -> None:
    write(r=GOOD)
    resolved = read_recipe("r.yaml")
    keys = [key for key, _, _ in explain(resolved)]
    assert keys == [".".join(path) for path in _leaves(recipe_values(resolved.recipe), ())]
    assert len(set(keys)) == len(keys) > 50


def _leaves(values: dict[str, Any], path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _leaves(value, (*path, key))
        else:
            yield (*path, key)


TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30)
NAMES = st.from_regex(r"\A[A-Za-z0-9][A-Za-z0-9._-]{0,15}\Z")
SOME = st.integers(1, 9999)
REAL = st.floats(1e-9, 1e3)
SHARE = st.floats(0.0, 0.49)
OFTEN = st.one_of(SOME, st.just("epoch"))
WITH_FIELD = st.tuples(TEXT, TEXT).map("{instruction}".join)
VALUES = st.fixed_dictionaries(
    {
        "name": NAMES,
        "model": st.fixed_dictionaries(
            {"base": TEXT}, optional={"revision": TEXT, "dropout": SHARE, "tokenizer": TEXT}
        ),
        "data": st.fixed_dictionaries(
            {"train": TEXT, "validation_fraction": st.floats(0.01, 0.4)},
            optional={
                "test_fraction": SHARE,
                "max_length": SOME,
                "limit": SOME,
                "columns": st.fixed_dictionaries({}, optional={"instruction": TEXT, "output": TEXT}),
                "template": st.one_of(
                    st.sampled_from(["alpaca", "plain"]),
                    st.fixed_dictionaries({"prompt": WITH_FIELD}, optional={"prompt_without_input": WITH_FIELD}),
                ),
            },
        ),
    },
    optional={
        "description": TEXT,
        "method": st.one_of(
            st.just({"kind": "full"}),
            st.fixed_dictionaries(
                {},
                optional={
                    "rank": SOME,
                    "alpha": REAL,
                    "dora": st.booleans(),
                    "targets": st.one_of(st.just("attention"), st.lists(TEXT, min_size=1, max_size=3)),
                },
            ),
        ),
        "training": st.fixed_dictionaries(
            {},
            optional={
                "epochs": REAL,
                "learning_rate": REAL,
                "seed": st.integers(0, 2**31 - 1),
                "warmup": REAL,
                "evaluate_every": OFTEN,
                "keep_best": st.booleans(),
                "early_stopping": st.fixed_dictionaries({}, optional={"patience": SOME, "min_delta": SHARE}),
            },
        ),
        "samples": st.fixed_dictionaries({}, optional={"instructions": st.lists(TEXT, max_size=3), "every": OFTEN}),
    },
)


@settings(
    max_examples=60,
    deadline=None,
    phases=(Phase.explicit, Phase.generate, Phase.shrink),
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(values=VALUES)
def test_a_saved_recipe_reads_back_as_the_same_recipe(tmp_path: Path, values: dict[str, Any]) -> None:
    try:
        recipe = Recipe.model_validate(values)
    except ValidationError:
        assume(False)
    saved = tmp_path / "saved.yaml"
    saved.write_text(recipe_yaml(recipe), encoding="utf-8")
    again = load_recipe(str(saved))
    assert again == recipe
    assert recipe_hash(again) == recipe_hash(recipe)
    assert recipe_yaml(again) == recipe_yaml(recipe)


def test_the_hash_depends_on_every_value_and_not_on_the_order_of_keys(write: Any) -> None:
    write(
        one=GOOD + "name: n\ntraining: {seed: 1, epochs: 2}\n", two="training: {epochs: 2, seed: 1}\nname: n\n" + GOOD
    )
    assert recipe_hash(load_recipe("one.yaml")) == recipe_hash(load_recipe("two.yaml"))
    assert recipe_hash(load_recipe("one.yaml")) != recipe_hash(load_recipe("one.yaml", ["training.seed=2"]))


def test_a_recipe_cannot_be_changed(write: Any) -> None:
    write(r=GOOD)
    with pytest.raises(ValidationError):
        load_recipe("r.yaml").training.seed = 3  # type: ignore[misc]


SHIPPED = sorted(shipped_folder("recipes").rglob("*.yaml"))
RECIPES = [path for path in SHIPPED if path.parent.name == "recipes"]


def test_recipes_ship() -> None:
    assert shipped_recipes() == RECIPES
    assert {"gpt2_lora", "gpt2_full", "gpt2_qlora"} <= {path.stem for path in RECIPES}


@pytest.mark.parametrize("path", RECIPES, ids=[path.stem for path in RECIPES])
def test_a_shipped_recipe_is_valid_described_and_found_by_its_name(
    path: Path, monkeypatch: Any, tmp_path: Path
) -> None:
    recipe = load_recipe(str(path))
    assert recipe.description, "recipe list shows it"
    assert path.read_text(encoding="utf-8").startswith("# "), "a recipe begins with what it is for"
    monkeypatch.chdir(tmp_path)
    for name in (path.stem, path.name, f"recipes/{path.name}"):
        assert load_recipe(name) == recipe


def test_no_two_shipped_recipes_train_into_one_folder() -> None:
    names = [load_recipe(str(path)).name for path in RECIPES]
    assert len(set(names)) == len(names)


def test_a_recipe_of_ones_own_hides_the_shipped_one(write: Any) -> None:
    write(gpt2_lora=GOOD)
    assert load_recipe("gpt2_lora.yaml").data.train == "rows.json"


def test_a_wrong_name_is_told_with_the_near_one() -> None:
    with pytest.raises(RecipeError, match=r"gpt2_lorra: no such recipe. Did you mean `gpt2_lora`\?"):
        load_recipe("gpt2_lorra")


def test_a_folder_is_no_recipe(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="no such recipe"):
        load_recipe(str(tmp_path))


def test_every_section_is_frozen_and_strict() -> None:
    def sections(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
        yield model
        for sub in model.__subclasses__():
            yield from sections(sub)

    from peft_instruct.recipe.section import Section

    found = list(sections(Section))
    assert len(found) > 10
    for section in found:
        assert section.model_config["frozen"] is True
        assert section.model_config["strict"] is True
        assert section.model_config["extra"] == "forbid"


def test_batches_by_tokens_take_the_place_of_batches_by_rows_of_a_base_and_the_other_way_round() -> None:
    rows = read_recipe("gpt2_lora")
    by_tokens = read_recipe("gpt2_lora", ["training.batch_tokens=4096"])
    assert rows.recipe.training.batch_tokens is None and by_tokens.recipe.training.batch_tokens == 4096
    assert ("training", "batch_size") in rows.origins and ("training", "batch_size") not in by_tokens.origins
    back = load_recipe("gpt2_lora", ["training.batch_tokens=4096", "training.batch_size=2"])
    assert (back.training.batch_tokens, back.training.batch_size) == (None, 2)
    with pytest.raises(RecipeError, match=r"batch_tokens: batch_size is set, too\. Keep one of them"):
        load_recipe("gpt2_lora", ["training={batch_tokens: 4096, batch_size: 2}"])
    # What is saved with the adapter reads back as the same recipe.
    assert Recipe.model_validate(recipe_values(by_tokens.recipe)) == by_tokens.recipe
