"""Whole models go on, and hand over their best, by the names that they have and not those of their file."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from families import decided_model, tiny_configs
from listeners import silent, stop_when
from safetensors.torch import load_file
from test_resume import SMALL, metrics_of

from peft_instruct.commands.train import train
from peft_instruct.errors import Stopped


@pytest.fixture
def pythia_like(tiny_base_folder: Path, tmp_path: Path) -> str:
    """A GPT-NeoX whose file calls its head `embed_out` and whose model calls it `lm_head`; not tied."""
    folder = tmp_path / "pythia"
    shutil.copytree(tiny_base_folder, folder, ignore=shutil.ignore_patterns("*.safetensors", "*config.json"))
    shutil.copy(tiny_base_folder / "tokenizer_config.json", folder)
    vocabulary = json.loads((tiny_base_folder / "config.json").read_text())["vocab_size"]
    config = tiny_configs(width=32, positions=128, vocabulary=vocabulary)["gpt_neox"]
    config.bos_token_id = config.eos_token_id = vocabulary - 1
    decided_model(config).save_pretrained(str(folder))
    assert "embed_out.weight" in load_file(folder / "model.safetensors")
    return str(folder)


FULL = (*SMALL[:-1], "method={kind: full}", "training.schedule=constant", "data.max_length=128", "samples.every=end")


def test_a_whole_model_goes_on_with_the_head_that_it_had(tiny_recipe: Path, pythia_like: str, tmp_path: Path) -> None:
    asked = [*FULL, f"model.base={pythia_like}", "training.save_every=2"]
    expected = train(str(tiny_recipe), asked, out=tmp_path / "whole", say=silent).folder
    with pytest.raises(Stopped):
        train(str(tiny_recipe), asked, out=tmp_path / "a", say=stop_when("step 3/"))
    train(str(tiny_recipe), asked, out=tmp_path / "a", say=silent)
    assert (tmp_path / "a" / "model.safetensors").read_bytes() == (expected / "model.safetensors").read_bytes()


def test_the_best_of_a_whole_model_is_handed_over_with_its_head(
    tiny_recipe: Path, pythia_like: str, tmp_path: Path
) -> None:
    """At this rate the second step is worse than the first, at which the other run ends."""
    asked = [*FULL, f"model.base={pythia_like}", "training.learning_rate=0.5", "training.evaluate_every=1"]
    best = train(str(tiny_recipe), [*asked, "training.max_steps=3", "training.keep_best=true"], out=tmp_path / "a",
                 say=silent).folder  # fmt: skip
    first = train(str(tiny_recipe), [*asked, "training.max_steps=1"], out=tmp_path / "b", say=silent).folder
    losses = [line["validation_loss"] for line in metrics_of(best) if "validation_loss" in line]
    assert min(losses) == losses[0]
    assert (best / "model.safetensors").read_bytes() == (first / "model.safetensors").read_bytes()
