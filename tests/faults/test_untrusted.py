"""Files of someone else, planted wherever a command reads one: none of them runs, and each is refused or passed over.

The payloads are real: loaded as its kind of file is usually loaded, each leaves the canary behind.
"""

from __future__ import annotations

import json
import os
import pickle
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from peft_instruct.adapter.folder import open_adapter
from peft_instruct.adapter.manifest import AdapterManifest, stamp_files, write_manifest
from peft_instruct.commands.evaluate import evaluate
from peft_instruct.commands.generate import generate
from peft_instruct.commands.merge import merge
from peft_instruct.commands.train import train
from peft_instruct.data.sources import read_rows
from peft_instruct.errors import DatasetError, PeftInstructError, Stopped
from peft_instruct.training.checkpoints import commit, verify

QUICK = (
    "training.max_steps=2",
    "training.warmup=0",
    "evaluation.rows=0",
    "samples.count=0",
    "training.evaluate_every=never",
)


class Touch:
    """Unpickled, it makes a file; which is what a pickle of someone else may do, and anything else too."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> Any:
        return os.system, (f'touch "{self.canary}"',)


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    return tmp_path / "canary"


def silent(line: str) -> None:
    pass


@pytest.fixture(autouse=True)
def quiet_transformers() -> Iterator[None]:
    """Damaged folders make transformers talk."""
    from transformers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity(logging.CRITICAL)
    yield
    logging.set_verbosity(before)


def payloads(canary: Path, tmp_path: Path) -> dict[str, bytes]:
    """A bare pickle, and one as torch.save packs it."""
    packed = tmp_path / "packed.pt"
    torch.save({"weight": Touch(canary)}, packed)
    return {"pickle": pickle.dumps(Touch(canary)), "torch": packed.read_bytes()}


def test_the_payloads_are_real(canary: Path, tmp_path: Path) -> None:
    for kind, content in payloads(canary, tmp_path).items():
        assert not canary.exists()
        (tmp_path / "x.pt").write_bytes(content)
        if kind == "pickle":
            pickle.loads(content)
        else:
            torch.load(tmp_path / "x.pt", weights_only=False)
        canary.unlink()


@dataclass(frozen=True)
class World:
    """Copies of everything that a command reads, to plant files in."""

    recipe: Path
    base: Path
    rows: Path
    adapter: Path
    out: Path

    def train(self, *overrides: str) -> Any:
        places = (f"model.base={self.base}", f"data.train={self.rows}")
        return train(str(self.recipe), [*QUICK, *places, *overrides], out=self.out, say=silent)

    def generate(self) -> Any:
        return generate(str(self.adapter), "Add 3 and 4.", max_new_tokens=2, device="cpu", say=silent)

    def evaluate(self) -> Any:
        return evaluate(str(self.adapter), rows=0, device="cpu", untuned=False, say=silent)

    def merge(self) -> Any:
        return merge(str(self.adapter), out=self.out, say=silent)

    def reseal(self) -> None:
        """A manifest that fits the files, as one who knows the format would hand it over."""
        manifest = AdapterManifest.model_validate_json((self.adapter / "manifest.json").read_text(encoding="utf-8"))
        write_manifest(self.adapter, manifest.model_copy(update={"files": stamp_files(self.adapter)}))


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


def refused(act: Callable[[], Any]) -> PeftInstructError:
    with pytest.raises(PeftInstructError) as caught:
        act()
    assert caught.value.exit_code in (2, 3, 4)
    return caught.value


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


BESIDE_A_CHECKPOINT = (
    "adapter_model.bin", "pytorch_model.bin", "optimizer.pt", "scheduler.pt", "rng_state.pth", "scaler.pt",
    "training_args.bin", "state.pkl",
)  # fmt: skip
"""What transformers and peft read from a checkpoint, besides what ours hold."""


@pytest.fixture(scope="module")
def stopped(tiny_recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The working folder of a run that was stopped, with checkpoints 1 and 2; to be copied."""
    out = tmp_path_factory.mktemp("stopped") / "a"

    def say(line: str) -> None:
        if line.startswith("step 2/"):
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Stopped):
        train(str(tiny_recipe), OF_CHECKPOINTS, out=out, say=say)
    return out.with_name("a.run")


OF_CHECKPOINTS = (*QUICK[1:], "training.max_steps=4", "training.save_every=1", "training.log_every=1")


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


CODE_KEYS = {
    "auto_map": {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"},
    "_attn_implementation_internal": "someone/kernels",
    "_experts_implementation_internal": "someone/kernels",
    "_attn_implementation": "someone/kernels",
    "attn_implementation": "someone/kernels@main:flash",
    "custom_generate": "someone/generate",
    "transformers_weights": "../../evil.safetensors",
    "quantization_config": {"quant_method": "gptq", "bits": 4},
    "n_layer": 10**7,
    "vocab_size": 10**12,
    "n_positions": -1,
}


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("key", CODE_KEYS)
def test_a_config_that_names_code_files_or_sizes_is_refused_before_a_library_reads_it(
    key: str, nested: bool, world: World, canary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = json.loads((world.base / "config.json").read_text())
    entry = {"text_config": {key: CODE_KEYS[key]}} if nested else {key: CODE_KEYS[key]}
    (world.base / "config.json").write_text(json.dumps(config | entry))
    for name in ("evil.py", "configuration_evil.py"):
        (world.base / name).write_text(f"open({str(canary)!r}, 'w')\n")

    def read(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("transformers read it")

    monkeypatch.setattr("transformers.AutoConfig.from_pretrained", read)
    monkeypatch.setattr("transformers.AutoModelForCausalLM.from_pretrained", read)
    error = refused(world.train)
    assert f"{key!r}" in str(error) and "Refused." in str(error)
    assert not canary.exists()


def test_everything_that_is_wrong_with_a_base_is_told_at_once(world: World) -> None:
    config = json.loads((world.base / "config.json").read_text())
    (world.base / "config.json").write_text(json.dumps(config | {"auto_map": {"a": "b.c"}, "n_layer": 10**9}))
    (world.base / "tokenizer_config.json").write_text(json.dumps({"auto_map": ["x.Y", None], "vocab_file": "/etc/x"}))
    error = str(refused(world.train))
    assert "4 problems" in error
    for told in (
        "has 'auto_map': it would run",
        "'n_layer' 1000000000",
        "tokenizer_config.json has 'auto_map'",
        "/etc/x",
    ):
        assert told in error


@pytest.mark.parametrize("slot", ["base", "tokenizer"])
def test_a_tokenizer_that_brings_code_is_refused(slot: str, world: World, canary: Path, tiny_base_folder: Path) -> None:
    path = world.base / "tokenizer_config.json"
    entry = {"auto_map": {"AutoTokenizer": ["evil.Tokenizer", None]}, "tokenizer_class": "Tokenizer"}
    path.write_text(json.dumps(json.loads(path.read_text()) | entry))
    (world.base / "evil.py").write_text(f"open({str(canary)!r}, 'w')\n")
    overrides = [f"model.tokenizer={world.base}", f"model.base={tiny_base_folder}"] if slot == "tokenizer" else []
    assert "'auto_map': it would run code of its own" in str(refused(lambda: world.train(*overrides)))
    assert not canary.exists()


ADAPTER_KEYS = {
    "peft_type": "PROMPT_TUNING",
    "auto_mapping": {"base_model_class": "X", "parent_library": "evil"},
    "megatron_core": "evil",
    "megatron_config": {"a": 1},
    "layer_replication": [[0, 1]] * 1000,
    "init_lora_weights": "pissa",
    "corda_config": {"cache_file": "evil.pt"},
    "loftq_config": {"loftq_bits": 4},
    "modules_to_save": ["wte"],
    "target_modules": "(a+)+$",
    "r": 10**7,
    "lora_alpha": "1",
    "something_new": 1,
    "trainable_token_indices": [1],
}


@pytest.mark.parametrize("key", ADAPTER_KEYS)
def test_an_adapter_config_that_asks_for_more_than_lora_is_refused(
    key: str, world: World, canary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (world.adapter.parent / "evil.py").write_text(f"open({str(canary)!r}, 'w')\n")
    monkeypatch.syspath_prepend(str(world.adapter.parent))
    path = world.adapter / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: ADAPTER_KEYS[key]}))
    world.reseal()
    began = time.process_time()
    assert f"{key}: " in str(refused(world.generate))
    assert time.process_time() - began < 5
    assert not canary.exists()
    assert "evil" not in sys.modules


@pytest.mark.parametrize(
    "name", ["../x", "/tmp/x", "a/b", "..", ".hidden", "a" * 65, "CON", "nul.txt", "x.", "a b", "é", "-x"]
)
def test_a_run_is_named_by_a_plain_word(name: str, world: World) -> None:
    assert refused(lambda: train(str(world.recipe), [f"name='{name}'"], say=silent)).exit_code == 2


@pytest.mark.parametrize("name", ["../../outside.txt", "/etc/hostname", "link"])
def test_a_manifest_that_names_files_outside_of_its_folder_is_refused(name: str, world: World) -> None:
    (world.adapter / "link").symlink_to("/etc/hostname")
    manifest = open_adapter(world.adapter).manifest
    stamps = {**manifest.files, name: next(iter(manifest.files.values()))}
    write_manifest(world.adapter, manifest.model_copy(update={"files": stamps}))
    assert f"{name}: outside the folder" in str(refused(world.generate))


def test_remote_code_is_not_a_key_of_a_recipe(world: World) -> None:
    for key in ("model.trust_remote_code", "trust_remote_code", "data.trust_remote_code", "training.trust_remote_code"):
        assert "unknown key" in str(refused(lambda: world.train(f"{key}=true")))  # noqa: B023


def test_a_tag_of_yaml_makes_no_object(world: World, canary: Path, tmp_path: Path) -> None:
    import yaml

    call = f"!!python/object/apply:os.system ['touch {canary}']"
    yaml.unsafe_load(call)
    canary.unlink()
    recipe = tmp_path / "r.yaml"
    for text in (f"name: {call}", f"{call}", f"model: {{base: {call}}}", "!!python/name:os.system : 1"):
        recipe.write_text(f"{text}\n")
        assert refused(lambda: train(str(recipe), say=silent)).exit_code == 2
    assert refused(lambda: world.train(f"description={call}")).exit_code == 2
    assert not canary.exists()


# ---- sizes


def file_of(path: Path, header: bytes, size: int) -> None:
    """A file of `size` bytes that takes no room on the disk."""
    with path.open("wb") as stream:
        stream.write(header)
        stream.truncate(size)


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json", "tokenizer.json", "generation_config.json"])
def test_a_file_of_a_gigabyte_is_not_read(name: str, world: World) -> None:
    file_of(world.base / name, b"{", 1 << 30)
    began = time.process_time()
    refused(world.train)
    assert time.process_time() - began < 2


def test_a_manifest_of_a_gigabyte_is_not_read(world: World) -> None:
    file_of(world.adapter / "manifest.json", b"{", 1 << 30)
    began = time.process_time()
    refused(world.generate)
    assert time.process_time() - began < 2


@pytest.mark.parametrize(
    "content", ["", "[]", "3", "{}", "null", '{"version": "1.0", "model": {"type": "BPE"}}', "\x00", "{"]
)
@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json", "generation_config.json", "config.json"])
def test_json_that_is_something_else_is_no_traceback(name: str, content: str, world: World) -> None:
    from peft_instruct.environment import HubState
    from peft_instruct.model.base import load_base
    from peft_instruct.model.device import choose_compute
    from peft_instruct.model.location import locate
    from peft_instruct.recipe.model_section import ModelSection

    (world.base / name).write_text(content)
    try:
        location = locate(str(world.base), "main", HubState(False))
        load_base(ModelSection(base=str(world.base)), location, choose_compute("cpu", "fp32"))
    except PeftInstructError as error:
        assert error.exit_code == 4


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json", "manifest.json", "adapter_config.json"])
def test_a_json_of_30000_levels_is_refused(name: str, world: World) -> None:
    text = '{"a":' * 30_000 + "1" + "}" * 30_000
    is_adapters = name in ("manifest.json", "adapter_config.json")
    ((world.adapter if is_adapters else world.base) / name).write_text(text)
    if name == "adapter_config.json":
        world.reseal()
    refused(world.generate if is_adapters else world.train)


HEADERS = {
    "a header of 2^63 bytes": (2**63).to_bytes(8, "little"),
    "a header longer than the file": (1 << 20).to_bytes(8, "little") + b"{}",
    "a header of 200 MB": (200 << 20).to_bytes(8, "little") + b"{",
    "a tensor beyond the end": len(
        h := b'{"a":{"dtype":"F32","shape":[9],"data_offsets":[0,36]}}'
    ).to_bytes(8, "little") + h,
    "a shape that overflows": len(
        s := b'{"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]}}'
    ).to_bytes(8, "little") + s,
}  # fmt: skip


@pytest.mark.parametrize("header", HEADERS)
def test_a_safetensors_header_that_lies_is_refused(header: str, world: World) -> None:
    file_of(world.base / "model.safetensors", HEADERS[header], (201 << 20) if "200 MB" in header else 100)
    began = time.process_time()
    assert refused(world.train).exit_code == 4
    assert time.process_time() - began < 3
    (world.adapter / "adapter_model.safetensors").write_bytes(HEADERS[header])
    world.reseal()
    assert refused(world.generate).exit_code == 4


@pytest.mark.parametrize("how", ["one repeated text", "one long text"])
def test_a_parquet_that_unfolds_without_end_is_refused(how: str, tmp_path: Path) -> None:
    import pyarrow as arrow
    import pyarrow.parquet as parquet

    path = tmp_path / "bomb.parquet"
    if how == "one repeated text":
        texts = arrow.DictionaryArray.from_arrays(arrow.array([0] * 2_000, arrow.int32()), arrow.array(["x" * 100_000]))
    else:
        texts = arrow.array(["x" * (65 << 20)])
    parquet.write_table(arrow.table({"text": texts}), path, compression="zstd")
    assert path.stat().st_size < 1 << 20
    began = time.process_time()
    with pytest.raises(DatasetError, match="unfold to more than"):
        read_rows(str(path))
    assert time.process_time() - began < 2


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="a device without an end is of Unix")
def test_rows_from_a_device_or_a_pipe_are_refused(tmp_path: Path) -> None:
    (tmp_path / "rows.json").symlink_to("/dev/zero")
    os.mkfifo(tmp_path / "pipe.json")
    for name in ("rows.json", "pipe.json"):
        with pytest.raises(DatasetError, match="a device or a pipe"):
            read_rows(str(tmp_path / name))
