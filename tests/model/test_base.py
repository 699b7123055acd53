"""Bases that cannot be trusted are refused before they are loaded; those that can have one identity."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from families import decided_model, tiny_configs
from tiny import POSITIONS, VOCABULARY

from peft_instruct.environment import HubState
from peft_instruct.errors import ModelError, RecipeError
from peft_instruct.model.base import answering, check_lengths, load_base
from peft_instruct.model.device import choose_compute
from peft_instruct.model.location import Location, is_hub_model, locate, read_config, weight_files, weight_fingerprint
from peft_instruct.recipe.model_section import Architecture, ModelSection

NO_HUB = HubState(False, "not asked")
CPU = choose_compute("cpu", "fp32")

pytestmark = pytest.mark.usefixtures("quiet_transformers")


@pytest.fixture
def folder(tiny_base_folder: Path, tmp_path: Path) -> Path:
    """A copy of the tiny base that a test may damage."""
    return Path(shutil.copytree(tiny_base_folder, tmp_path / "base"))


def _load(folder: Path, **section: Any) -> Any:
    location = locate(str(folder), "main", NO_HUB)
    return load_base(ModelSection(base=str(folder), **section), location, CPU)


def _refusal(folder: Path, **section: Any) -> str:
    with pytest.raises(ModelError) as caught:
        _load(folder, **section)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def _change_config(folder: Path, **values: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_a_base_is_loaded_in_fp32_with_one_stop_and_pad_token_everywhere(folder: Path) -> None:
    base = _load(folder)
    assert {parameter.dtype for parameter in base.model.parameters()} == {torch.float32}
    assert (base.model_type, base.positions, base.quantization) == ("gpt2", POSITIONS, "none")
    stop = base.tokenizer.eos_token_id
    for config in (base.model.config, base.model.generation_config):
        assert config.pad_token_id == config.eos_token_id == stop


def test_a_bases_own_generation_settings_are_left_behind(folder: Path, tmp_path: Path) -> None:
    own = {"temperature": 0.9, "top_p": 0.6, "no_repeat_ngram_size": 2, "forced_eos_token_id": 3, "bos_token_id": 1}
    (folder / "generation_config.json").write_text(json.dumps(own))
    model = _load(folder).model
    assert model.generation_config.to_diff_dict().keys() <= {
        "bos_token_id", "eos_token_id", "pad_token_id", "transformers_version"
    }  # fmt: skip
    assert model.generation_config.bos_token_id == 1
    model.save_pretrained(tmp_path / "saved")  # refuses a temperature without do_sample


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_weights_stored_in_half_precision_are_trained_in_fp32(folder: Path, dtype: torch.dtype) -> None:
    from transformers import AutoModelForCausalLM

    AutoModelForCausalLM.from_pretrained(str(folder), dtype=torch.float32).to(dtype).save_pretrained(str(folder))
    assert {parameter.dtype for parameter in _load(folder).model.parameters()} == {torch.float32}


@pytest.mark.parametrize("key", ["auto_map", "_attn_implementation_internal"])
def test_a_config_that_would_run_code_is_refused(folder: Path, key: str) -> None:
    _change_config(folder, **{key: {"AutoModelForCausalLM": "evil.Model"}})
    (folder / "evil.py").write_text("raise SystemExit('ran')\n")
    assert f"has {key!r}: it would run code of its own. Refused." in _refusal(folder)


@pytest.mark.parametrize("content", ["", "[]", "{", '{"vocab_size": 3}', '{"model_type": 3}'])
def test_a_config_that_is_none_is_refused(folder: Path, content: str) -> None:
    (folder / "config.json").write_text(content)
    assert "config.json of" in _refusal(folder)


def test_an_unknown_architecture_is_refused(folder: Path) -> None:
    _change_config(folder, model_type="nobodys")
    assert "cannot be loaded" in _refusal(folder)


def test_pickled_weights_are_not_read(folder: Path) -> None:
    from safetensors.torch import load_file

    torch.save(load_file(str(folder / "model.safetensors")), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    message = _refusal(folder)
    assert "no .safetensors" in message
    assert "pytorch_model.bin: pickles can run code and are not read" in message


def test_no_weights_are_not_filled_with_random_numbers(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    assert "no weights found" in _refusal(folder)


def test_weights_that_lack_a_tensor_are_not_filled_with_random_numbers(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(str(folder / "model.safetensors"))
    del weights["transformer.h.1.mlp.c_fc.weight"]
    save_file(weights, str(folder / "model.safetensors"), metadata={"format": "pt"})
    assert "are not whole (missing ['transformer.h.1.mlp.c_fc.weight']" in _refusal(folder)


@pytest.mark.parametrize("is_tied", [True, False])
def test_a_head_of_its_own_must_be_there(folder: Path, is_tied: bool) -> None:
    """A folder saved without one (of embeddings, of a reward model) would be trained on a random head."""
    config = tiny_configs(width=32, positions=POSITIONS, vocabulary=VOCABULARY)["llama"]
    config.tie_word_embeddings = is_tied
    config.bos_token_id = config.eos_token_id = VOCABULARY - 1
    decided_model(config).model.save_pretrained(str(folder))
    if is_tied:
        assert _load(folder).model_type == "llama"
    else:
        assert "are not whole (missing ['lm_head.weight']" in _refusal(folder)


def test_weights_of_another_shape_are_refused(folder: Path) -> None:
    _change_config(folder, n_embd=32)
    assert "model.base" in _refusal(folder)


def test_weights_cut_short_are_refused(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    assert "cannot be loaded" in _refusal(folder)


def test_a_tokenizer_of_another_vocabulary_is_refused(folder: Path, tmp_path: Path) -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    GPT2LMHeadModel(GPT2Config(vocab_size=300, n_positions=8, n_embd=8, n_layer=1, n_head=1)).save_pretrained(
        str(folder)
    )
    assert f"largest id is {VOCABULARY - 1}, the model's vocabulary has 300 rows" in _refusal(folder)


def test_a_max_length_beyond_the_positions_is_told_before_anything_is_loaded(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    location = Location("tiny", folder)
    assert check_lengths(location, POSITIONS, None) == POSITIONS
    with pytest.raises(RecipeError) as caught:
        check_lengths(location, POSITIONS + 1, None)
    told = f"data.max_length: {POSITIONS + 1} is more than the {POSITIONS} positions of tiny. "
    assert str(caught.value) == told + f"Set it to {POSITIONS} or less."
    assert check_lengths(location, 600, Architecture(positions=600)) == 600


def test_random_weights_are_the_seeds(folder: Path) -> None:
    location = locate(str(folder), "main", NO_HUB)
    shape = Architecture(layers=1, width=32, heads=2, positions=64)
    section = ModelSection(base=str(folder), init="random", architecture=shape)
    one, same, other = (load_base(section, location, CPU, seed=seed) for seed in (3, 3, 4))
    assert (one.positions, one.model.config.n_embd, one.model.config.vocab_size) == (64, 32, VOCABULARY)
    weights = [dict(base.model.named_parameters()) for base in (one, same, other)]
    name = "transformer.h.0.attn.c_attn.weight"
    assert torch.equal(weights[0][name], weights[1][name])
    assert not torch.equal(weights[0][name], weights[2][name])


def test_random_weights_without_a_shape_have_the_bases(folder: Path) -> None:
    base = _load(folder, init="random")
    trained = _load(folder)
    assert [p.shape for p in base.model.parameters()] == [p.shape for p in trained.model.parameters()]
    assert not torch.equal(base.model.transformer.wte.weight, trained.model.transformer.wte.weight)


def test_dropout_is_the_configs_or_the_recipes(folder: Path) -> None:
    assert {m.p for m in _load(folder).model.modules() if isinstance(m, torch.nn.Dropout)} == {0.1}
    base = _load(folder, dropout=0.25)
    assert {m.p for m in base.model.modules() if isinstance(m, torch.nn.Dropout)} == {0.25}
    assert base.model.config.attn_pdrop == 0.25


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_the_attention_of_the_recipe_is_the_models(folder: Path, attention: str) -> None:
    assert _load(folder, attention=attention).model.config._attn_implementation == attention


@pytest.mark.parametrize("was_training", [True, False])
def test_answering_goes_back_to_the_mode_before_even_after_an_error(folder: Path, was_training: bool) -> None:
    model = _load(folder).model
    model.train(was_training)
    with pytest.raises(KeyError), answering(model):
        assert not model.training and not torch.is_grad_enabled()
        raise KeyError
    assert model.training is was_training and torch.is_grad_enabled()


def test_a_folder_is_found_before_the_hub(folder: Path) -> None:
    assert locate(str(folder), "main", NO_HUB) == Location(str(folder), folder)


def test_a_folder_that_is_no_model_is_told_as_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty folder called gpt2 would shadow the hub id."""
    monkeypatch.chdir(tmp_path)
    Path("gpt2").mkdir()
    with pytest.raises(ModelError, match=r"the folder 'gpt2' holds no config\.json.* rename the folder"):
        locate("gpt2", "main", NO_HUB)


@pytest.mark.parametrize("name", ["./nothing", "/nothing/at/all", "a/b/c", "../x"])
def test_a_path_that_is_not_there_is_not_asked_of_the_hub(name: str) -> None:
    assert not is_hub_model(name)
    with pytest.raises(ModelError, match="is not there"):
        locate(name, "main", NO_HUB)


def test_the_fingerprint_is_the_weights_and_nothing_else(folder: Path, tmp_path: Path) -> None:
    before = weight_fingerprint(Location("a", folder))
    _change_config(folder, note="changed")
    moved = Path(shutil.copytree(folder, tmp_path / "elsewhere"))
    assert weight_fingerprint(Location("b", moved)) == before
    with (moved / "model.safetensors").open("r+b") as weights:
        weights.seek(-1, 2)
        last = weights.read(1)
        weights.seek(-1, 2)
        weights.write(bytes([last[0] ^ 1]))
    assert weight_fingerprint(Location("b", moved)) != before


def test_the_weights_of_an_adapter_are_not_those_of_a_base(folder: Path) -> None:
    (folder / "adapter_model.safetensors").write_bytes(b"")
    assert [path.name for path in weight_files(Location("a", folder))] == ["model.safetensors"]


def test_a_config_is_read_as_it_stands(folder: Path) -> None:
    assert read_config(Location("a", folder))["n_positions"] == POSITIONS
