"""A base ready to learn or to answer: weights, tokenizer, device, and the identity that an adapter is tied to."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    GenerationConfig,
    GPT2Config,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    set_seed,
)

from peft_instruct.errors import ModelError, RecipeError, UnavailableError, first_line
from peft_instruct.model.device import DTYPES, Compute
from peft_instruct.model.dropout import set_dropout
from peft_instruct.model.kernels import use_fast_kernels
from peft_instruct.model.location import Location, read_config, weight_files
from peft_instruct.model.tokenizer import check_fits, load_tokenizer
from peft_instruct.recipe.model_section import Architecture, ModelSection

_POSITION_KEYS = ("n_positions", "max_position_embeddings")


@dataclass(frozen=True)
class Base:
    """A model and what belongs to it.

    Attributes:
        positions: the longest sequence that the model has positions for.
        quantization: `none`, `nf4` or `int8`.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    compute: Compute
    location: Location
    model_type: str
    positions: int
    quantization: str = "none"


def check_lengths(location: Location, max_length: int, architecture: Architecture | None) -> int:
    """The model's positions, read from its config before any weight is loaded.

    Raises:
        RecipeError: `data.max_length` is beyond them (on the GPU that is an assert that ends the process).
    """
    positions = architecture.positions if architecture else _positions(read_config(location))
    if max_length > positions:
        raise RecipeError(
            f"data.max_length: {max_length} is more than the {positions} positions of {location.id}. "
            f"Set it to {positions} or less."
        )
    return positions


def load_base(
    section: ModelSection,
    location: Location,
    compute: Compute,
    *,
    tokenizer_location: Location | None = None,
    stop: str = "",
    seed: int = 0,
) -> Base:
    """Load a base for training or inference; weights in fp32 unless they are quantised.

    Args:
        tokenizer_location: where the tokenizer is when it is not the base's own.
        stop: the template's stop token; where the tokenizer has it, it is what ends a completion.
        seed: of the weights, for `init: random`.

    Raises:
        ModelError: the weights or the tokenizer are unusable.
    """
    raw = read_config(location)
    place = "model.tokenizer" if tokenizer_location else "model.base"
    tokenizer = load_tokenizer((tokenizer_location or location).folder, place, stop)
    if section.init == "random":
        model = _random_model(section, location, tokenizer, seed)
    else:
        model = _pretrained_model(section, location, compute)
    check_fits(tokenizer, model.config.get_text_config().vocab_size, place)
    # A base's own settings would act on completions, and some that are read are refused when they are written
    # (transformers 5.24, generation/configuration_utils.py:919).
    model.generation_config = GenerationConfig(bos_token_id=model.generation_config.bos_token_id)
    for config in (model.config, model.generation_config):
        config.pad_token_id = tokenizer.pad_token_id
        config.eos_token_id = tokenizer.eos_token_id
    model.config.use_cache = True
    if section.dropout is not None:
        set_dropout(model, section.dropout)
    if section.quantization == "none":
        model.to(compute.torch_device)
    if section.kernels == "fast":
        use_fast_kernels(model, attention=section.attention == "auto")
    positions = section.architecture.positions if section.architecture else _positions(raw)
    model_type = model.config.model_type
    return Base(model, tokenizer, compute, location, model_type, positions, section.quantization)


def _pretrained_model(section: ModelSection, location: Location, compute: Compute) -> PreTrainedModel:
    weight_files(location)  # refuses pickles before transformers sees them
    arguments: dict[str, Any] = {}
    if section.attention != "auto":
        arguments["attn_implementation"] = section.attention
    if section.quantization != "none":
        arguments |= _quantization_arguments(section.quantization, compute)
    try:
        model, loading = AutoModelForCausalLM.from_pretrained(
            str(location.folder),
            # Explicit: transformers 5 takes the checkpoint's dtype, and full training in fp16 weights diverges.
            dtype=torch.float32 if section.quantization == "none" else DTYPES[compute.precision],
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
            **arguments,
        )
    except ImportError as error:
        raise UnavailableError(
            f"model.quantization: {section.quantization} needs bitsandbytes ({first_line(error)}). "
            "pip install bitsandbytes, or set model.quantization: none."
        ) from error
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        raise ModelError(f"model.base: {location.id!r} cannot be loaded ({first_line(error)}).") from error
    missing = sorted(loading["missing_keys"])  # of a tied head nothing is missing
    if missing or loading["mismatched_keys"]:
        raise ModelError(
            f"model.base: the weights of {location.id!r} are not whole (missing {missing[:3]}, "
            f"mismatched {list(loading['mismatched_keys'])[:3]}); they would be filled with random numbers."
        )
    if section.quantization == "nf4":
        _keep_unpacked(model)
    return model


def _quantization_arguments(quantization: str, compute: Compute) -> dict[str, Any]:
    from transformers import BitsAndBytesConfig

    if quantization == "nf4":
        config = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=DTYPES[compute.precision],
        )
    else:
        config = BitsAndBytesConfig(load_in_8bit=True)
    return {"quantization_config": config, "device_map": {"": compute.device}}


def _keep_unpacked(model: PreTrainedModel) -> None:
    """Keep bitsandbytes from repacking 4-bit weights in the first forward of an evaluation.

    On a CPU with AVX512-BF16 it never unpacks them again: GPT-2 then crashes in training, and a model without
    biases trains nothing, in silence (bitsandbytes 0.50, nn/modules.py:613; measured).
    """
    for module in model.modules():
        if type(module).__name__ == "Linear4bit":
            module.support_avx512bf16_for_cpu = False  # type: ignore[assignment]


def _random_model(
    section: ModelSection, location: Location, tokenizer: PreTrainedTokenizerBase, seed: int
) -> PreTrainedModel:
    shape = section.architecture
    if shape is None:
        config = AutoConfig.from_pretrained(str(location.folder), trust_remote_code=False)
    else:
        config = GPT2Config(
            vocab_size=len(tokenizer),
            n_positions=shape.positions,
            n_embd=shape.width,
            n_layer=shape.layers,
            n_head=shape.heads,
            # The same function as GPT-2's gelu_new, as one kernel of torch instead of eight.
            activation_function="gelu_pytorch_tanh",
            bos_token_id=tokenizer.eos_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
    set_seed(seed)
    attention = {} if section.attention == "auto" else {"attn_implementation": section.attention}
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32, **attention)


def _positions(config: dict[str, Any]) -> int:
    found = next((config[key] for key in _POSITION_KEYS if isinstance(config.get(key), int)), None)
    if found is None:
        raise ModelError(f"model.base: config.json names no number of positions ({' or '.join(_POSITION_KEYS)}).")
    return int(found)


@contextmanager
def answering(model: torch.nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients, and back to what was before.

    In train mode with gradient checkpointing GPT-2 drops its cache, and generation forgets the context at every
    step without an error (transformers 5.23, modeling_gpt2.py:608; measured).
    """
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad(), warnings.catch_warnings():
            yield
    finally:
        model.train(was_training)
