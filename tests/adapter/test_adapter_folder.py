"""A folder is an adapter only when it is whole, unchanged, and on the base that it was trained on."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import write_tiny_base

from peft_instruct.adapter.folder import Adapter, load_tuned, open_adapter, write_weights
from peft_instruct.adapter.manifest import MANIFEST, AdapterManifest, stamp_files, write_manifest
from peft_instruct.adapter.proofs import compare, probe_inputs, probe_logits, prove_reload
from peft_instruct.environment import HubState
from peft_instruct.errors import AdapterError, ModelError, PeftInstructError
from peft_instruct.model.base import load_base
from peft_instruct.model.device import choose_compute
from peft_instruct.model.location import locate
from peft_instruct.recipe.model_section import ModelSection

OFFLINE = HubState(False)
WEIGHTS = "adapter_model.safetensors"


@pytest.fixture
def copied(tiny_adapter_folder: Path, tmp_path: Path) -> Path:
    """A copy to be changed; the base stays where the relative path of the manifest finds it."""
    folder = tiny_adapter_folder.parent / f"copy-{tmp_path.name}"
    shutil.copytree(tiny_adapter_folder, folder)
    return folder


def reseal(folder: Path, **changes: Any) -> None:
    """A manifest that fits the files again, as one who knows the format could write it."""
    manifest = AdapterManifest.model_validate_json((folder / MANIFEST).read_text(encoding="utf-8"))
    write_manifest(folder, manifest.model_copy(update={"files": stamp_files(folder), **changes}))


def test_the_folder_holds_what_the_readme_promises_and_no_pickle(tiny_adapter_folder: Path) -> None:
    names = {path.name for path in tiny_adapter_folder.iterdir()}
    assert names == {
        WEIGHTS, "adapter_config.json", MANIFEST, "recipe.yaml", "README.md", "metrics.jsonl", "report.html",
        "loss.svg",
    }  # fmt: skip


def test_no_file_names_a_path_of_this_machine(tiny_adapter_folder: Path, tiny_base_folder: Path) -> None:
    """The recipe of the test names its base and rows by absolute paths, which is the hard case."""
    for path in tiny_adapter_folder.iterdir():
        text = path.read_bytes().decode("utf-8", errors="ignore")
        # `../../tmp/…` is a way from here, not a place.
        assert not re.search(rf"(?<![.\w]){re.escape(str(tiny_base_folder.parent))}", text), path.name


def test_a_finished_folder_opens_and_answers_as_it_did_in_training(tiny_adapter_folder: Path) -> None:
    tuned = load_tuned(open_adapter(tiny_adapter_folder), choose_compute("cpu", "fp32"), OFFLINE)
    assert tuned.adapter.manifest.proofs["reloaded_equals_trained"]["largest_logit_difference"] <= 1e-5
    assert tuned.adapter.manifest.proofs["trained_differs_from_base"]["largest_logit_difference"] > 0.1


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_a_read_back_computes_as_the_training_did(
    tiny_adapter_folder: Path, tiny_base_folder: Path, attention: Any
) -> None:
    """Its proof is a difference of logits, which another attention rounds otherwise."""
    like = ModelSection(base=str(tiny_base_folder), attention=attention, kernels="plain")
    tuned = load_tuned(open_adapter(tiny_adapter_folder), choose_compute("cpu", "fp32"), OFFLINE, like=like)
    assert tuned.base.model.config._attn_implementation == attention


def test_a_disabled_adapter_is_the_base_bit_for_bit(tiny_adapter_folder: Path, tiny_base_folder: Path) -> None:
    compute = choose_compute("cpu", "fp32")
    tuned = load_tuned(open_adapter(tiny_adapter_folder), compute, OFFLINE)
    inputs = probe_inputs(tuned.tokenizer, tuned.template, 64)
    section = ModelSection(base=str(tiny_base_folder))
    plain = load_base(section, locate(section.base, "main", OFFLINE), compute).model
    with tuned.untuned() as model:
        untuned = probe_logits(model, inputs, torch.device("cpu"))
    expected = probe_logits(plain, inputs, torch.device("cpu"))
    assert all(a.equal(b) for a, b in zip(untuned, expected, strict=True))


@pytest.mark.parametrize("name", [WEIGHTS, "adapter_config.json", "recipe.yaml"])
def test_a_changed_file_is_named(copied: Path, name: str) -> None:
    content = bytearray((copied / name).read_bytes())
    content[-1] ^= 1
    (copied / name).write_bytes(content)
    with pytest.raises(AdapterError, match=f"{name}: its content was changed"):
        open_adapter(copied)


def test_every_missing_and_truncated_file_is_named_at_once(copied: Path) -> None:
    (copied / "recipe.yaml").unlink()
    (copied / WEIGHTS).write_bytes(b"short")
    with pytest.raises(AdapterError) as caught:
        open_adapter(copied)
    assert "2 problems" in str(caught.value)
    assert "recipe.yaml: missing" in str(caught.value)
    assert f"{WEIGHTS}: 5 bytes. expected" in str(caught.value)


def test_a_folder_without_a_manifest_is_not_an_adapter(copied: Path) -> None:
    (copied / MANIFEST).unlink()
    with pytest.raises(AdapterError, match="not a finished adapter"):
        open_adapter(copied)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"format_version": 1}', "\x00"])
def test_a_damaged_manifest_is_told_in_one_line(copied: Path, content: str) -> None:
    (copied / MANIFEST).write_text(content, encoding="utf-8")
    with pytest.raises(AdapterError, match="damaged"):
        open_adapter(copied)


def test_a_pickle_beside_the_weights_is_refused(copied: Path) -> None:
    (copied / "adapter_model.bin").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    with pytest.raises(AdapterError, match=r"adapter_model\.bin: a pickle"):
        open_adapter(copied)


def test_an_adapter_for_another_base_of_the_same_shape_is_refused(copied: Path, tmp_path: Path) -> None:
    other = write_tiny_base(tmp_path / "other", seed=99)
    with pytest.raises(AdapterError, match="trained on tiny-gpt2 with weights"):
        load_tuned(open_adapter(copied), choose_compute("cpu", "fp32"), OFFLINE, base=str(other))


def test_other_golden_ids_are_refused(copied: Path) -> None:
    manifest = open_adapter(copied).manifest
    golden = [
        manifest.golden[0].model_copy(update={"prompt": [*manifest.golden[0].prompt[:-1], 3]}),
        *manifest.golden[1:],
    ]
    reseal(copied, golden=golden)
    with pytest.raises(AdapterError, match=r"gives other ids than in training \(golden example 1, token \d+\)"):
        load_tuned(open_adapter(copied), choose_compute("cpu", "fp32"), OFFLINE)


def test_a_tensor_without_a_place_in_the_model_is_refused(copied: Path) -> None:
    """PEFT 0.21 drops it without a word."""
    tensors = load_file(str(copied / WEIGHTS))
    name = next(iter(tensors))
    tensors[name.replace(".h.0.", ".h.9.")] = tensors[name].clone()
    save_file(tensors, str(copied / WEIGHTS))
    reseal(copied)
    with pytest.raises(AdapterError, match="1 tensors do not match the base"):
        load_tuned(open_adapter(copied), choose_compute("cpu", "fp32"), OFFLINE)


def test_an_adapter_that_is_not_finite_is_never_written(tiny_adapter_folder: Path, tmp_path: Path) -> None:
    tuned = load_tuned(open_adapter(tiny_adapter_folder), choose_compute("cpu", "fp32"), OFFLINE)
    weights = next(p for name, p in tuned.model.named_parameters() if "lora_B" in name)
    weights.requires_grad_(True)
    with torch.no_grad():
        weights[0, 0] = float("nan")
    with pytest.raises(AdapterError, match="not finite"):
        write_weights(tuned.model, tuned.tokenizer, tmp_path / "out", "base")
    assert not (tmp_path / "out").exists()


def test_a_folder_as_base_is_no_model_of_the_hub(tiny_adapter_folder: Path) -> None:
    """Another tool would look its name up there, and `gpt2` is one."""
    config = json.loads((tiny_adapter_folder / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] is None
    assert "a folder of its maker" in (tiny_adapter_folder / "README.md").read_text()


def test_a_base_that_has_moved_is_told_with_the_way_out(tiny_adapter_folder: Path, tmp_path: Path) -> None:
    moved = Path(shutil.copytree(tiny_adapter_folder, tmp_path / "far" / "away" / "adapter"))
    with pytest.raises(ModelError, match=r"is not there.*name the place with --base"):
        load_tuned(open_adapter(moved), choose_compute("cpu", "fp32"), OFFLINE)


def test_an_inert_adapter_is_an_error() -> None:
    base = [torch.randn(5, 7)]
    with pytest.raises(AdapterError, match="the adapter is inert"):
        prove_reload(base, [base[0].clone()], [base[0].clone()], "adapters/x")


def test_a_file_that_is_not_what_was_trained_is_an_error() -> None:
    base, trained = [torch.zeros(5, 7)], [torch.ones(5, 7)]
    with pytest.raises(AdapterError, match="what was written is not what was trained"):
        prove_reload(base, trained, [trained[0] + 1e-3], "adapters/x")


def test_no_tolerance_covers_nan() -> None:
    with pytest.raises(AdapterError, match="not finite"):
        compare([torch.ones(2, 2)], [torch.full((2, 2), float("nan"))])


def test_training_at_rate_zero_leaves_no_adapter(tiny_recipe: Path, tmp_path: Path) -> None:
    """End to end: an adapter that learned nothing ends the run with exit code 4 and without a manifest."""
    from peft_instruct.commands.train import train

    out = tmp_path / "inert"
    with pytest.raises(PeftInstructError, match="inert") as caught:
        train(
            str(tiny_recipe), ["training.learning_rate=1e-30", "training.max_steps=2"], out=out, say=lambda line: None
        )
    assert caught.value.exit_code == 4
    assert not (out / MANIFEST).exists()


def test_the_card_has_front_matter_and_scores(tiny_adapter_folder: Path) -> None:
    text = (tiny_adapter_folder / "README.md").read_text(encoding="utf-8")
    front = text.split("---")[1]
    assert "library_name: peft" in front
    assert "base_model" not in front  # a folder's name is no model id, and the hub refuses it
    assert "| perplexity |" in text


def test_metrics_are_one_json_object_a_line(tiny_adapter_folder: Path) -> None:
    lines = (tiny_adapter_folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    records = [json.loads(line) for line in lines]
    assert any("validation_loss" in record for record in records)
    assert any("samples" in record for record in records)
    assert [record["step"] for record in records] == sorted(record["step"] for record in records)


def test_adapters_are_found_through_the_manifest_alone(tiny_adapter_folder: Path) -> None:
    assert Adapter(tiny_adapter_folder, open_adapter(tiny_adapter_folder).manifest).holds_model is False
