"""The adapter folder: weights written without a pickle, opened with every check, put onto its base."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from peft import PeftConfig, PeftModel, get_peft_model_state_dict
from safetensors import SafetensorError, safe_open
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from peft_instruct.adapter.config import check_adapter_config
from peft_instruct.adapter.manifest import AdapterManifest, check_base, check_golden, read_manifest
from peft_instruct.data.templates import Template
from peft_instruct.environment import HubState
from peft_instruct.errors import AdapterError, ModelError, first_line, is_out_of_memory
from peft_instruct.model.adapters import tensors_not_finite
from peft_instruct.model.base import Base, load_base
from peft_instruct.model.device import Compute
from peft_instruct.model.families import is_conv1d_family
from peft_instruct.model.location import STARTER, Location, locate
from peft_instruct.recipe.model_section import ModelSection

ADAPTER_WEIGHTS = "adapter_model.safetensors"
ADAPTER_CONFIG = "adapter_config.json"


@dataclass(frozen=True)
class Adapter:
    """A finished folder: a LoRA adapter, a fully trained model, or a merged one."""

    path: Path
    manifest: AdapterManifest

    @property
    def holds_model(self) -> bool:
        return self.manifest.kind != "lora"


@dataclass(frozen=True)
class Tuned:
    """An adapter on its base, ready to answer."""

    adapter: Adapter
    base: Base
    model: torch.nn.Module

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        return self.base.tokenizer

    @property
    def template(self) -> Template:
        return self.adapter.manifest.prompt_template()

    @contextmanager
    def untuned(self) -> Iterator[torch.nn.Module]:
        """The base as it was before training; a LoRA adapter only."""
        if not isinstance(self.model, PeftModel):
            raise AdapterError(f"{self.adapter.path}: holds a whole model; load its base with load_untuned.")
        with self.model.disable_adapter():
            yield self.model

    def merged(self) -> Tuned:
        """The same with the update added to the base's weights in memory, so that a token costs what it costs the base.

        The base of `self` is spent by it. A quantised base stays as it is: added there, the update would be rounded.
        """
        if not isinstance(self.model, PeftModel) or self.base.quantization != "none":
            return self
        return replace(self, model=self.model.merge_and_unload())


def write_weights(
    model: torch.nn.Module, tokenizer: PreTrainedTokenizerBase, folder: Path, base_id: str | None
) -> None:
    """Write what was trained: the adapter's matrices, or the whole model with its tokenizer.

    Args:
        base_id: what other tools load the base by; None where it is a folder of this machine.

    Raises:
        AdapterError: a value is not finite; nothing is written then.
    """
    bad = tensors_not_finite(model)
    if bad:
        raise AdapterError(f"{folder}: {len(bad)} trained tensors are not finite (first {bad[0]}). The run diverged.")
    folder.mkdir(parents=True, exist_ok=True)
    if isinstance(model, PeftModel):
        # Explicit: "auto" asks the hub whether the vocabulary was resized (peft 0.21, utils/save_and_load.py:291).
        model.save_pretrained(str(folder), safe_serialization=True, save_embedding_layers=False)
        _let_others_read(folder)
        config_path = folder / ADAPTER_CONFIG
        config = json.loads(config_path.read_text(encoding="utf-8"))
        config["base_model_name_or_path"] = base_id
        config_path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    else:
        write_model(model, tokenizer, folder)


def write_model(model: Any, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """A standalone model folder: weights, configs, tokenizer; nothing in it points at this machine."""
    model.save_pretrained(str(folder), safe_serialization=True)
    tokenizer.save_pretrained(str(folder))
    _let_others_read(folder)
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config.pop("_name_or_path", None)
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _let_others_read(folder: Path) -> None:
    """safetensors 0.8 writes through a temporary file that its owner alone may read; the umask decides instead."""
    umask = os.umask(0)
    os.umask(umask)
    for path in folder.glob("*.safetensors"):
        path.chmod(0o666 & ~umask)


def open_adapter(path: Path) -> Adapter:
    """A folder whose files are all there and unchanged.

    Raises:
        AdapterError: see `read_manifest`; or it says that it was trained for something else than it holds.
    """
    return Adapter(path, read_manifest(path))


def base_location(adapter: Adapter, hub: HubState, base: str | None = None) -> Location:
    """Where the adapter's base is: as the manifest says, or as `--base` says.

    Raises:
        ModelError: not there.
        AdapterError: its weights are not those of training.
    """
    identity = adapter.manifest.base
    if base is None and identity.relative_path:
        base = str(adapter.path / identity.relative_path)
    try:
        location = locate(base or identity.id, identity.revision or "main", hub, place=str(adapter.path))
    except ModelError as error:
        raise ModelError(f"{error} Where it has moved, name the place with --base.") from error
    check_base(identity, location, str(adapter.path))
    return location


def load_tuned(
    adapter: Adapter,
    compute: Compute,
    hub: HubState,
    *,
    base: str | None = None,
    quantization: str | None = None,
    like: ModelSection | None = None,
) -> Tuned:
    """The adapter on a freshly loaded base, refused where the two do not fit.

    Args:
        base: a base in place of the one that the manifest names (its weights must be the same).
        quantization: another than in training; `none` puts a QLoRA adapter on the original base.
        like: with the attention and the kernels of this one, which round otherwise than others do.

    Raises:
        AdapterError, ModelError: see `base_location`, `check_golden` and `load_base`.
    """
    if adapter.holds_model:
        location = Location(str(adapter.path), adapter.path)
        section = _computing_like(ModelSection(base=str(adapter.path)), like)
        loaded = load_base(section, location, compute, stop=adapter.manifest.template.stop)
        check_golden(adapter.manifest, loaded.tokenizer, str(adapter.path))
        return Tuned(adapter, loaded, loaded.model)
    location = base_location(adapter, hub, base)
    section = _computing_like(_model_section(adapter, location, quantization), like)
    stop = adapter.manifest.template.stop
    loaded = load_base(section, location, compute, tokenizer_location=_own_tokenizer(adapter), stop=stop)
    check_golden(adapter.manifest, loaded.tokenizer, str(adapter.path))
    return Tuned(adapter, loaded, _attach(loaded.model, adapter))


def load_untuned(adapter: Adapter, compute: Compute, hub: HubState, base: str | None = None) -> Base:
    """The base of a fully trained or merged model, to compare it with.

    Raises:
        AdapterError: it was made from random weights, so there is nothing to compare with.
    """
    if not adapter.manifest.base.fingerprint:
        raise AdapterError(f"{adapter.path}: trained from random weights, so it has no base to compare with.")
    location = base_location(adapter, hub, base)
    section = _model_section(adapter, location, "none")
    stop = adapter.manifest.template.stop
    return load_base(section, location, compute, tokenizer_location=_own_tokenizer(adapter), stop=stop)


def _own_tokenizer(adapter: Adapter) -> Location | None:
    """The tokenizer in the folder itself: of a whole model, or of an adapter trained with another than its base's."""
    return Location(str(adapter.path), adapter.path) if (adapter.path / "tokenizer.json").is_file() else None


def _model_section(adapter: Adapter, location: Location, quantization: str | None) -> ModelSection:
    chosen: Any = quantization or adapter.manifest.base.quantization
    return ModelSection(base=STARTER if location.id == STARTER else str(location.folder), quantization=chosen)


def _computing_like(section: ModelSection, like: ModelSection | None) -> ModelSection:
    return section.model_copy(update={"attention": like.attention, "kernels": like.kernels}) if like else section


def _attach(model: PreTrainedModel, adapter: Adapter) -> PeftModel:
    """The adapter on a base, tensor for tensor.

    Raises:
        AdapterError: a tensor of the file has no place in the model, or the other way round (PEFT 0.21 drops the
            first kind in silence and warns of the second).
    """
    if not (adapter.path / ADAPTER_WEIGHTS).is_file():
        raise AdapterError(f"{adapter.path}: no {ADAPTER_WEIGHTS}. Only safetensors are read.")
    check_adapter_config(adapter.path / ADAPTER_CONFIG, adapter.path / ADAPTER_WEIGHTS)
    try:
        config = PeftConfig.from_pretrained(str(adapter.path))
        # A QLoRA adapter was trained on (out, in) weights; on the original base GPT-2's Conv1D stores (in, out).
        config.fan_in_fan_out = is_conv1d_family(model.config.model_type) and not getattr(model, "is_quantized", False)
        tuned = PeftModel.from_pretrained(
            model,
            str(adapter.path),
            config=config,
            is_trainable=False,
            low_cpu_mem_usage=False,
            torch_device="cpu",  # else read onto a GPU that the model may not be on (peft 0.21, peft_model.py:1471)
        )
        with safe_open(str(adapter.path / ADAPTER_WEIGHTS), "pt") as stored:
            in_file = set(stored.keys())
    except (ValueError, RuntimeError, KeyError, OSError, SafetensorError) as error:
        if is_out_of_memory(error):
            raise
        raise AdapterError(f"{adapter.path}: does not fit its base ({first_line(error)}).") from error
    in_model = set(get_peft_model_state_dict(tuned, save_embedding_layers=False))
    if in_file != in_model:
        odd = sorted(in_file ^ in_model)
        raise AdapterError(f"{adapter.path}: {len(odd)} tensors do not match the base (first {odd[0]}).")
    return tuned
