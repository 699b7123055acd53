"""adapter_config.json of someone else: read by us first, since PEFT acts on more of it than a LoRA adapter needs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from peft import LoraConfig
from safetensors import SafetensorError, safe_open

from peft_instruct.errors import AdapterError, first_line
from peft_instruct.model.screening import read_json

MOST_BYTES = 1 << 20
MOST_TARGETS = 10_000
LARGEST_NUMBER = 1e9
OPTIONAL = {
    **dict.fromkeys(("base_model_name_or_path", "revision"), "a name or null"),
    **dict.fromkeys(("fan_in_fan_out", "inference_mode", "use_dora", "use_rslora"), "true or false"),
    "peft_version": "a version",
}
TYPES = {"a name or null": (str, type(None)), "true or false": (bool,), "a version": (str,)}
SAID = frozenset({*OPTIONAL, "lora_alpha", "lora_dropout", "r", "target_modules"})
"""What an adapter of ours says. Every other key must be PEFT's default: there are keys that import modules, read files,
repeat layers, or change the base (peft 0.21: megatron_core, loftq_config, corda_config, layer_replication, pissa)."""


def check_adapter_config(path: Path, weights: Path) -> None:
    """Refuse a config that asks PEFT for more than a LoRA adapter, or for another size than the weights have.

    Raises:
        AdapterError: naming every such key.
    """
    try:
        config = read_json(path, MOST_BYTES)
        ranks = _ranks(weights)
    except (OSError, ValueError, SafetensorError) as error:
        raise AdapterError(f"{path.parent}: cannot be read ({first_line(error)}).") from error
    if not isinstance(config, dict):
        raise AdapterError(f"{path}: not a mapping of keys.")
    problems = [*_unasked(config), *_odd_sizes(config, ranks)]
    if problems:
        raise AdapterError.of(str(path), problems)


def _unasked(config: dict[str, Any]) -> list[str]:
    usual = LoraConfig(task_type="CAUSAL_LM").to_dict()
    return [
        f"{key}: is {str(value)[:60]!r}. expected {usual[key]!r}." if key in usual else f"{key}: unknown key."
        for key, value in config.items()
        if key not in SAID and value != usual.get(key, not value)
    ]


def _odd_sizes(config: dict[str, Any], ranks: set[int]) -> list[str]:
    problems = []
    if type(config.get("r")) is not int or ranks != {config["r"]}:  # 8.0 and true equal an int too
        problems.append(f"r: is {str(config.get('r'))[:60]}. expected the rank of the weights, {sorted(ranks)[:3]}.")
    targets = config.get("target_modules")
    names = targets if isinstance(targets, list) else []
    if not names or len(names) > MOST_TARGETS or not all(isinstance(name, str) for name in names):
        problems.append(f"target_modules: is {str(targets)[:60]!r}. expected a list of names.")
    numbers = {key: config.get(key) for key in ("lora_alpha", "lora_dropout")}
    problems += [
        f"{key}: is {str(value)[:60]!r}. expected a number from 0 on."
        for key, value in numbers.items()
        if not isinstance(value, int | float) or not 0 <= value <= LARGEST_NUMBER
    ]
    problems += [
        f"{key}: is {str(config[key])[:60]!r}. expected {wanted}."
        for key, wanted in OPTIONAL.items()
        if key in config and not isinstance(config[key], TYPES[wanted])
    ]
    return problems


def _ranks(weights: Path) -> set[int]:
    """The ranks of the LoRA matrices, from the file's header."""
    with safe_open(str(weights), "pt") as stored:
        names = [name for name in stored.keys() if ".lora_A." in name]  # noqa: SIM118 (no mapping: it cannot be iterated)
        return {stored.get_slice(name).get_shape()[0] for name in names}
