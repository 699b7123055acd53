"""Keys, names and tags that libraries act on: code of one's own, files elsewhere, sizes without weights behind them."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from listeners import silent
from planting import World, refused

from peft_instruct.adapter.folder import open_adapter
from peft_instruct.adapter.manifest import write_manifest
from peft_instruct.commands.train import train

pytestmark = pytest.mark.usefixtures("quiet_transformers")

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
