"""A model folder of someone else, looked at before any library reads it: what names code, files elsewhere or sizes that
no weights stand behind is refused. transformers acts on these keys in silence (5.23; see CVE-2026-4372).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

KIB = 1 << 10
MOST_BYTES = {
    "config.json": 256 * KIB,
    "generation_config.json": 256 * KIB,
    "tokenizer_config.json": 16 << 20,
    "special_tokens_map.json": 1 << 20,
    "added_tokens.json": 16 << 20,
    "chat_template.jinja": 256 * KIB,
    "chat_template.json": 256 * KIB,
    "model.safetensors.index.json": 16 << 20,
    "tokenizer.json": 128 << 20,
    "vocab.json": 128 << 20,
    "merges.txt": 128 << 20,
}
"""Several times the largest that is in use (tokenizer.json of 256,000 words: 33 MB)."""

MAPPINGS = ("generation_config.json", "tokenizer_config.json", "model.safetensors.index.json")
RUNS_CODE = "it would run code of its own"
READS_ELSEWHERE = "it names other weights than the folder's own"
REFUSED_KEYS = {
    "auto_map": RUNS_CODE,
    "custom_generate": RUNS_CODE,
    "custom_pipelines": RUNS_CODE,
    "_attn_implementation_internal": RUNS_CODE,
    "_experts_implementation_internal": RUNS_CODE,
    "transformers_weights": READS_ELSEWHERE,
    "base_model_name_or_path": READS_ELSEWHERE,
    "quantization_config": "its weights are quantised already, by code that is chosen here. Name the original base "
    "and set model.quantization",
}
# Kernels with a `/` in their name are a hub repository of compiled code, which transformers fetches and runs.
KERNEL_KEYS = ("_attn_implementation", "attn_implementation", "_experts_implementation", "experts_implementation")
LARGEST = {
    **dict.fromkeys(("n_layer", "num_layers", "num_hidden_layers"), 1_000),
    **dict.fromkeys(("n_head", "num_heads", "num_attention_heads", "num_key_value_heads"), 10_000),
    **dict.fromkeys(("n_embd", "hidden_size", "n_inner", "intermediate_size"), 1_000_000),
    **dict.fromkeys(("vocab_size", "n_positions", "n_ctx", "max_position_embeddings"), 100_000_000),
}


def read_json(path: Path, most_bytes: int) -> Any:
    """The value of a JSON file of someone else.

    Raises:
        ValueError: larger than `most_bytes`, not UTF-8, not JSON, or nested too deeply.
        OSError: it cannot be read.
    """
    if path.stat().st_size > most_bytes:
        raise ValueError(f"larger than {most_bytes} bytes")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def model_problems(folder: Path) -> list[str]:
    """Why a model folder is refused, its tokenizer included; empty where nothing is wrong."""
    problems = list(_file_problems(folder))
    for name in ("config.json", "generation_config.json"):
        problems += [f"{name} has {problem}" for problem in _config_problems(_values(folder / name))]
    problems += _index_problems(_values(folder / "model.safetensors.index.json"))
    if (folder / "adapter_config.json").exists():
        problems.append(
            "adapter_config.json: transformers would put that adapter onto the model in silence. Merge it, or remove it"
        )
    return [*problems, *_tokenizer_config_problems(folder)]


def tokenizer_problems(folder: Path) -> list[str]:
    """Why the tokenizer of a folder is refused."""
    return [*_file_problems(folder), *_tokenizer_config_problems(folder)]


def _file_problems(folder: Path) -> Iterator[str]:
    for name, most in MOST_BYTES.items():
        path = folder / name
        if path.exists() and not path.is_file():
            yield f"{name}: not a file"
        elif path.is_file() and path.stat().st_size > most:
            yield f"{name}: {path.stat().st_size} bytes. expected at most {most}"
        elif path.is_file() and name in MAPPINGS and not isinstance(_values(path), dict):
            yield f"{name}: not JSON, or not a mapping of keys"


def _values(path: Path) -> Any:
    """What a file says; None where it is broken, an empty mapping where it is not there."""
    try:
        return read_json(path, MOST_BYTES[path.name])
    except FileNotFoundError:
        return {}
    except (OSError, ValueError):
        return None


def _config_problems(values: Any) -> Iterator[str]:
    for key, value in _entries(values):
        if key in REFUSED_KEYS and value not in (None, {}, []):
            yield f"{key!r}: {REFUSED_KEYS[key]}"
        elif key in KERNEL_KEYS and isinstance(value, str) and not value.isidentifier():
            yield f"{key!r} {value!r}: {RUNS_CODE}"
        elif key in LARGEST and isinstance(value, int | float) and not 0 <= value <= LARGEST[key]:
            yield f"{key!r} {value}. expected at most {LARGEST[key]}"


def _index_problems(index: Any) -> list[str]:
    shards = index.get("weight_map", {}) if isinstance(index, dict) else {}
    named = set(map(str, shards.values())) if isinstance(shards, dict) else set()
    bad = sorted(name for name in named if not _is_plain(name) or not name.endswith(".safetensors"))
    return [f"model.safetensors.index.json names {name!r}: no .safetensors of this folder" for name in bad[:3]]


def _tokenizer_config_problems(folder: Path) -> Iterator[str]:
    for key, value in _entries(_values(folder / "tokenizer_config.json")):
        if key == "auto_map" and value:
            yield f"tokenizer_config.json has {key!r}: {RUNS_CODE}"
        elif key.endswith(("_file", "_files")):
            names = value if isinstance(value, list) else [value]
            outside = [name for name in names if isinstance(name, str) and not _is_plain(name)]
            if outside:
                yield f"tokenizer_config.json has {key!r} {outside[0]!r}: outside of the folder"


def _entries(values: Any) -> Iterator[tuple[str, Any]]:
    """Every key of nested mappings with its value; no recursion, the file may be deep."""
    waiting = [values]
    while waiting:
        here = waiting.pop()
        if isinstance(here, dict):
            yield from here.items()
            waiting += here.values()
        elif isinstance(here, list):
            waiting += here


def _is_plain(name: str) -> bool:
    return bool(name) and name not in (".", "..") and not any(mark in name for mark in "/\\:\x00")
