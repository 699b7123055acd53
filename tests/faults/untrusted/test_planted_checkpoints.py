"""Checkpoints of someone who can make a manifest that fits: no pickle runs, JSON of another structure is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch
from listeners import silent, stop_when
from planting import QUICK, payloads, refused
from transformers import TrainerState

from peft_instruct.adapter.storage import seal, stamp
from peft_instruct.commands.train import train
from peft_instruct.errors import AdapterError, PeftInstructError, Stopped
from peft_instruct.training.checkpoints import commit, verified_with_best, verify
from peft_instruct.training.contents import StoredTrainerState
from peft_instruct.training.state_file import read_state, write_state

pytestmark = pytest.mark.usefixtures("quiet_transformers")

OF_CHECKPOINTS = (*QUICK[1:], "training.max_steps=4", "training.save_every=1", "training.log_every=1")
BESIDE_A_CHECKPOINT = (
    "adapter_model.bin", "pytorch_model.bin", "optimizer.pt", "scheduler.pt", "rng_state.pth", "scaler.pt",
    "training_args.bin", "state.pkl",
)  # fmt: skip
"""What transformers and peft read from a checkpoint, besides what ours hold."""


@pytest.fixture(scope="module")
def stopped(tiny_recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The working folder of a run that was stopped, with checkpoints 1 and 2; to be copied."""
    out = tmp_path_factory.mktemp("stopped") / "a"

    with pytest.raises(Stopped):
        train(str(tiny_recipe), OF_CHECKPOINTS, out=out, say=stop_when("step 2/"))
    return out.with_name("a.run")


@pytest.mark.parametrize("kind", ["pickle", "torch"])
def test_a_run_goes_on_from_no_checkpoint_with_a_pickle_in_any_place_of_it(
    kind: str, stopped: Path, tiny_recipe: Path, canary: Path, tmp_path: Path
) -> None:
    """As it was planted, and with a manifest made anew to fit it, as one who knows the format would hand it over."""
    content = payloads(canary, tmp_path)[kind]
    whole = stopped / "checkpoints" / "checkpoint-2"
    slots = [path.name for path in whole.iterdir() if path.name != "README.md"] + list(BESIDE_A_CHECKPOINT)
    assert len(slots) == 6 + len(BESIDE_A_CHECKPOINT)
    for name in slots:
        for is_sealed in (False, True) if name != "manifest.json" else (False,):
            given = tmp_path / "given" / "checkpoint-2"
            shutil.copytree(whole, given)
            (given / name).write_bytes(content)
            if is_sealed:
                manifest = verify(whole).manifest
                commit(given, manifest.model_copy(update={"seal": ""}))
            error = refused(
                lambda: train(str(tiny_recipe), OF_CHECKPOINTS, out=tmp_path / "b", resume=str(given), say=silent)  # noqa: B023
            )
            assert name in str(error), (name, is_sealed)
            assert not canary.exists()
            shutil.rmtree(given)
    assert not (tmp_path / "b").exists()


def test_a_checkpoint_with_a_pickle_is_set_aside_and_the_one_before_it_taken(
    stopped: Path, tiny_recipe: Path, canary: Path, tmp_path: Path
) -> None:
    shutil.copytree(stopped, tmp_path / "a.run")
    (tmp_path / "a.run" / "checkpoints" / "checkpoint-2" / "optimizer.pt").write_bytes(
        payloads(canary, tmp_path)["torch"]
    )
    said: list[str] = []
    train(str(tiny_recipe), OF_CHECKPOINTS, out=tmp_path / "a", say=said.append)
    text = "\n".join(said)
    assert "optimizer.pt: not part of the checkpoint" in text and "Set aside in" in text
    assert "going on from" in text and "checkpoint-1, step 1 of 4" in text
    assert not canary.exists()


WRONG_VALUES: tuple[Any, ...] = (None, True, -1, 10**400, 1e308, "x", [], {}, [[]], {"a": [1]})
ANYTHING: dict[str, set[str]] = {
    "metrics.jsonl": {"epoch", "learning_rate", "gradient_norm", "token_accuracy", "num_tokens", "seconds"},
    "adapter_config.json": set(),
    "trainer_state.json": set(),
    "manifest.json": set(),
}
"""Keys of which nothing depends on the value."""


def other_structures(content: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """(key, content) with one value replaced or one key taken away; the key is empty where all is replaced."""
    for wrong in WRONG_VALUES:
        yield "", wrong
        for key in content:
            yield key, content | {key: wrong}
    for key, value in content.items():
        if type(value) is int:
            yield key, content | {key: float(value)}
    for key in content:
        yield key, {name: value for name, value in content.items() if name != key}
    yield "", content | {"unknown": 1}


def forged(whole: Path, given: Path, name: str) -> Iterator[tuple[str, Any]]:
    """`given` with the JSON file `name` in one other structure after the other, each with a manifest that fits."""
    shutil.copytree(whole, given)
    manifest = verify(whole).manifest.model_copy(update={"seal": ""})
    text = (whole / name).read_text(encoding="utf-8")
    for key, content in other_structures(json.loads(text.split("\n")[0] if name == "metrics.jsonl" else text)):
        if name == "manifest.json":
            fits = isinstance(content, dict) and key != "seal"
            (given / name).write_text(seal(json.dumps(content | {"seal": ""})) if fits else json.dumps(content))
        else:
            (given / name).write_text(json.dumps(content))
            files = {**manifest.files, name: stamp(given / name)}
            fitting = manifest.model_copy(update={"files": files}).model_dump_json(indent=1)
            (given / "manifest.json").write_text(seal(fitting))
        yield key, content
    shutil.rmtree(given)


@pytest.mark.parametrize("name", ANYTHING)
def test_json_of_another_structure_is_refused_before_anything_acts_on_it(
    name: str, stopped: Path, tmp_path: Path
) -> None:
    whole, given = stopped / "checkpoints" / "checkpoint-2", tmp_path / "checkpoint-2"
    verified_with_best(whole)
    for key, content in forged(whole, given, name):
        try:
            verified_with_best(given)
        except AdapterError as error:
            place = given.name if name == "manifest.json" else name
            assert place in str(error), (key, str(error))
            continue
        is_wrong = content == [[]] or (isinstance(content, dict) and (key == "r" or content.get(key) == [[]]))
        assert not is_wrong or key in ANYTHING[name], (key, content)


def test_every_field_of_transformers_state_is_looked_at() -> None:
    assert set(StoredTrainerState.model_fields) == {field.name for field in fields(TrainerState)}


def without_a_moment(optimizer: dict[str, Any]) -> dict[str, Any]:
    kept = optimizer["state"]
    return optimizer | {"state": kept | {0: {"step": kept[0]["step"], "exp_avg": kept[0]["exp_avg"]}}}


def without_a_parameter(optimizer: dict[str, Any]) -> dict[str, Any]:
    return optimizer | {"state": {number: kept for number, kept in optimizer["state"].items() if number != 0}}


@pytest.mark.parametrize(
    ("key", "wrong"),
    [
        ("optimizer", None),
        ("optimizer", {"state": {}, "param_groups": [{"params": []}]}),
        ("optimizer", without_a_moment),
        ("optimizer", without_a_parameter),
        ("optimizer", lambda whole: whole | {"state": {}}),
        ("random", {"python": [3]}),
        ("window", {"loss": torch.zeros(2)}),
        ("own", []),
        ("schedule_step", "x"),
    ],
)
def test_a_state_of_another_run_is_one_line(
    key: str, wrong: Any, stopped: Path, tiny_recipe: Path, tmp_path: Path
) -> None:
    """Its tensors and their tree are looked at when they are loaded."""
    given = Path(shutil.copytree(stopped / "checkpoints" / "checkpoint-2", tmp_path / "checkpoint-2"))
    state = read_state(given / "state.safetensors")
    write_state({**state, key: wrong(state[key]) if callable(wrong) else wrong}, given / "state.safetensors")
    commit(given, verify(stopped / "checkpoints" / "checkpoint-2").manifest.model_copy(update={"seal": ""}))
    error = refused(lambda: train(str(tiny_recipe), OF_CHECKPOINTS, out=tmp_path / "b", resume=str(given), say=silent))
    assert "does not fit this run" in str(error) and "\n" not in str(error)


@pytest.mark.slow
@pytest.mark.parametrize("name", ANYTHING)
def test_json_of_another_structure_that_is_not_refused_does_no_harm(
    name: str, stopped: Path, tiny_recipe: Path, tmp_path: Path
) -> None:
    whole, given = stopped / "checkpoints" / "checkpoint-2", tmp_path / "checkpoint-2"
    for number, (key, _) in enumerate(forged(whole, given, name)):
        out = tmp_path / str(number)
        try:
            train(str(tiny_recipe), OF_CHECKPOINTS, out=out, resume=str(given), allow_changes=True, say=silent)
        except PeftInstructError as error:
            assert error.exit_code == 4, (key, str(error))
        except Exception as error:
            raise AssertionError(f"{name}: {key}: {json.loads((given / name).read_text())}") from error
