"""Pickles planted wherever a command reads a file: none of them runs, and each is refused or passed over."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from planting import Touch, World, payloads, refused

from peft_instruct.data.sources import read_rows
from peft_instruct.errors import DatasetError, PeftInstructError

pytestmark = pytest.mark.usefixtures("quiet_transformers")


def test_the_payloads_are_real(canary: Path, tmp_path: Path) -> None:
    for kind, content in payloads(canary, tmp_path).items():
        assert not canary.exists()
        (tmp_path / "x.pt").write_bytes(content)
        if kind == "pickle":
            pickle.loads(content)
        else:
            torch.load(tmp_path / "x.pt", weights_only=False)
        canary.unlink()


Plant = Callable[[World, bytes], None]
COMMANDS_ON_ADAPTERS = ("generate", "evaluate", "merge")


def in_base(name: str, *, instead_of: str = "") -> Plant:
    def plant(world: World, content: bytes) -> None:
        (world.base / name).write_bytes(content)
        if instead_of:
            (world.base / instead_of).unlink()

    return plant


def index_to(shard: str) -> Plant:
    """Weights in parts, one of which is `shard`."""

    def plant(world: World, content: bytes) -> None:
        from safetensors import safe_open

        with safe_open(str(world.base / "model.safetensors"), "pt") as stored:
            names = list(stored.keys())
        (world.base / "model.safetensors").rename(world.base / "model-00001-of-00002.safetensors")
        (world.base / shard).parent.mkdir(parents=True, exist_ok=True)
        (world.base / shard).write_bytes(content)
        shards = {**dict.fromkeys(names, "model-00001-of-00002.safetensors"), names[0]: shard}
        index = {"metadata": {"total_size": 1}, "weight_map": shards}
        (world.base / "model.safetensors.index.json").write_text(json.dumps(index))

    return plant


def config_names(weights: str) -> Plant:
    def plant(world: World, content: bytes) -> None:
        (world.base / weights).write_bytes(content)
        config = json.loads((world.base / "config.json").read_text())
        (world.base / "config.json").write_text(json.dumps(config | {"transformers_weights": weights}))

    return plant


def adapter_in_the_base(world: World, content: bytes) -> None:
    shutil.copyfile(world.adapter / "adapter_config.json", world.base / "adapter_config.json")
    (world.base / "adapter_model.bin").write_bytes(content)


def in_adapter(name: str, *, instead_of: str = "", sealed: bool = False) -> Plant:
    def plant(world: World, content: bytes) -> None:
        if instead_of:
            (world.adapter / instead_of).unlink(missing_ok=True)
        (world.adapter / name).parent.mkdir(parents=True, exist_ok=True)
        (world.adapter / name).write_bytes(content)
        if sealed:
            world.reseal()

    return plant


REFUSED_IN_TRAINING: dict[str, Plant] = {
    "weights as pytorch_model.bin": in_base("pytorch_model.bin", instead_of="model.safetensors"),
    "weights as pytorch_model.pt": in_base("pytorch_model.pt", instead_of="model.safetensors"),
    "a pickle called model.safetensors": in_base("model.safetensors"),
    "an index that names a .bin": index_to("pytorch_model-00002-of-00002.bin"),
    "an index that leads out of the folder": index_to("../elsewhere.safetensors"),
    "an index that names a pickle": index_to("model-00002-of-00002.safetensors"),
    "a config that names other weights": config_names("evil.safetensors"),
    "a pickle called config.json": in_base("config.json"),
    "a pickle called tokenizer.json": in_base("tokenizer.json"),
    "a pickle called tokenizer_config.json": in_base("tokenizer_config.json"),
    "an adapter in the base's folder": adapter_in_the_base,
}
PASSED_OVER_IN_TRAINING = (
    "pytorch_model.bin", "training_args.bin", "optimizer.pt", "scheduler.pt", "rng_state.pth", "vocab.pkl",
    "modeling_gpt2.py", "tf_model.h5",
)  # fmt: skip
"""A clone of a hub repository has some of these beside its safetensors."""
REFUSED_WITH_AN_ADAPTER: dict[str, Plant] = {
    "adapter_model.bin alone": in_adapter("adapter_model.bin", instead_of="adapter_model.safetensors", sealed=True),
    "adapter_model.bin beside": in_adapter("adapter_model.bin", sealed=True),
    "training_args.bin beside": in_adapter("training_args.bin", sealed=True),
    "optimizer.pt beside": in_adapter("optimizer.pt", sealed=True),
    "a .pkl beside": in_adapter("scores.pkl", sealed=True),
    "a pickle called adapter_model.safetensors": in_adapter("adapter_model.safetensors", sealed=True),
    "a pickle called adapter_config.json": in_adapter("adapter_config.json", sealed=True),
    "a pickle called tokenizer.json": in_adapter("tokenizer.json", sealed=True),
    "a pickle called manifest.json": in_adapter("manifest.json"),
}


@pytest.mark.parametrize("kind", ["pickle", "torch"])
@pytest.mark.parametrize("slot", REFUSED_IN_TRAINING)
def test_train_refuses_it(slot: str, kind: str, world: World, canary: Path, tmp_path: Path) -> None:
    REFUSED_IN_TRAINING[slot](world, payloads(canary, tmp_path)[kind])
    assert refused(world.train).exit_code == 4
    assert not canary.exists()
    assert not world.out.exists()


def test_train_passes_over_what_it_does_not_read(world: World, canary: Path, tmp_path: Path) -> None:
    content = payloads(canary, tmp_path)["torch"]
    for name in PASSED_OVER_IN_TRAINING:
        in_base(name)(world, content)
    world.train()
    assert not canary.exists()


@pytest.mark.parametrize("command", COMMANDS_ON_ADAPTERS)
@pytest.mark.parametrize("slot", REFUSED_WITH_AN_ADAPTER)
def test_commands_on_an_adapter_refuse_it(slot: str, command: str, world: World, canary: Path, tmp_path: Path) -> None:
    for content in payloads(canary, tmp_path).values():
        REFUSED_WITH_AN_ADAPTER[slot](world, content)
        assert refused(getattr(world, command)).exit_code == 4
        assert not canary.exists()


@pytest.mark.parametrize("kind", ["pickle", "torch"])
@pytest.mark.parametrize("slot", REFUSED_IN_TRAINING)
def test_a_tokenizer_of_its_own_is_looked_at_as_a_base_is(
    slot: str, kind: str, world: World, canary: Path, tmp_path: Path
) -> None:
    """Named under model.tokenizer; what concerns weights alone is not read there."""
    from peft_instruct.model.tokenizer import load_tokenizer

    REFUSED_IN_TRAINING[slot](world, payloads(canary, tmp_path)[kind])
    if "tokenizer" in slot:
        assert refused(lambda: load_tokenizer(world.base, "model.tokenizer")).exit_code == 4
    elif slot != "a pickle called config.json":
        load_tokenizer(world.base, "model.tokenizer")
    assert not canary.exists()


@pytest.mark.parametrize("suffix", [".pkl", ".pt", ".bin", ".npy", ".json", ".jsonl", ".csv", ".parquet", ".arrow", ""])
@pytest.mark.parametrize("where", ["data.train", "data.validation", "data.test"])
def test_rows_that_are_a_pickle_are_refused(
    suffix: str, where: str, world: World, canary: Path, tmp_path: Path
) -> None:
    for content in payloads(canary, tmp_path).values():
        planted = tmp_path / f"evil{suffix}"
        planted.write_bytes(content)
        assert refused(lambda: world.train(f"{where}={planted}")).exit_code == 3  # noqa: B023
        assert not canary.exists()


def test_prompts_recipes_and_result_files_that_are_pickles_are_refused(
    world: World, canary: Path, tmp_path: Path
) -> None:
    from peft_instruct.cli import cli

    for content in payloads(canary, tmp_path).values():
        evil = tmp_path / "evil.json"
        evil.write_bytes(content)
        for arguments in (
            ["generate", str(world.adapter), "--file", str(evil), "--out", str(tmp_path / "answers.jsonl")],
            ["evaluate", str(world.adapter), "--data", str(evil)],
            ["bench", "compare", str(evil)],
            ["recipe", "show", str(evil)],
            ["recipe", "explain", str(evil)],
            ["train", str(evil)],
        ):
            result = CliRunner().invoke(cli, arguments)
            assert isinstance(result.exception, PeftInstructError), (arguments, result.exception)
            assert not canary.exists()


def test_a_parquet_column_that_claims_to_be_a_pickle_of_python_is_plain_data(canary: Path, tmp_path: Path) -> None:
    """pyarrow before 14.0.1 unpickled this metadata (CVE-2023-47248)."""
    import pyarrow as arrow
    import pyarrow.parquet as parquet

    metadata = {
        b"ARROW:extension:name": b"arrow.py_extension_type",
        b"ARROW:extension:metadata": pickle.dumps(Touch(canary)),
    }
    schema = arrow.schema([
        arrow.field("instruction", arrow.string(), metadata=metadata),
        arrow.field("output", arrow.string()),
    ])  # fmt: skip
    parquet.write_table(arrow.table([["a"], ["b"]], schema=schema), tmp_path / "rows.parquet")
    with suppress(DatasetError):
        read_rows(str(tmp_path / "rows.parquet"))
    assert not canary.exists()
