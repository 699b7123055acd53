"""Base + adapter -> one standalone model, proven equal by a process that has seen neither."""

from __future__ import annotations

import json
import shutil
import tempfile
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from safetensors.torch import load_file

from peft_instruct.adapter.card import card
from peft_instruct.adapter.folder import Adapter, Tuned, load_tuned, write_model
from peft_instruct.adapter.manifest import BaseIdentity, stamp_files, write_manifest
from peft_instruct.adapter.probe import probe_in_fresh_process
from peft_instruct.adapter.proofs import (
    NUM_GREEDY_TOKENS,
    Continuation,
    Difference,
    compare,
    greedy,
    probe_inputs,
    probe_logits,
)
from peft_instruct.data.tokens import start_ids
from peft_instruct.environment import HubState, seen_from
from peft_instruct.errors import AdapterError
from peft_instruct.model.device import DTYPES, Compute, environment_stamp

TOLERANCES = {
    # Rounding of fp32: both sides add the same products in another order.
    "fp32": 1e-5,
    # The cast of the weights themselves moves logits, whatever the adapter: the merge arithmetic stays fp32.
    "bf16": 2e-2,
    "fp16": 2e-3,
}
"""Largest |Δlogit| between base + adapter and the merged model, relative to the largest |logit|."""


@dataclass(frozen=True)
class MergeReport:
    """What was written and how far it is from base + adapter.

    Attributes:
        difference: base + adapter in fp32 against the folder as a fresh process reads it.
        equal_greedy_text: whether both continue every probe prompt with the same tokens.
        from_quantized: the same against the quantised base + adapter of training; QLoRA only.
    """

    folder: str
    dtype: str
    num_bytes: int
    difference: Difference
    tolerance: float
    equal_greedy_text: bool
    from_quantized: Difference | None = None

    def record(self) -> dict[str, Any]:
        return asdict(self)


def merge_adapter(
    adapter: Adapter,
    out: Path,
    compute: Compute,
    hub: HubState,
    *,
    dtype: str = "fp32",
    base: str | None = None,
) -> MergeReport:
    """Merge in fp32, write, reload in a fresh process, compare; only then give the folder its name.

    Args:
        out: a folder that is not there yet.
        dtype: of the written weights; the arithmetic is fp32 whatever it is (a merge in bf16 loses nine in ten of the
            weights that a small adapter moves).
        base: a folder in place of the base that the manifest names; its weights must be the same.

    Raises:
        AdapterError: nothing to merge, or the merged model is not the adapter's; nothing is left behind then.
    """
    if adapter.holds_model:
        raise AdapterError(f"{adapter.path}: holds a whole model already. Use it as it is.")
    quantized = _quantized_probe(adapter, compute, hub, base)
    tuned = load_tuned(adapter, compute, hub, base=base, quantization="none")
    inputs = probe_inputs(tuned.tokenizer, tuned.template, tuned.base.positions - NUM_GREEDY_TOKENS)
    reference = probe_logits(tuned.model, inputs, compute.torch_device)
    text = greedy(tuned.model, inputs, compute.torch_device, tuned.base.model.config.pad_token_id)
    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        _write(tuned, partial, dtype)
        report = _prove(partial, out, reference, text, quantized, dtype)
        _seal(adapter, tuned, partial, out, report)
        partial.rename(out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return report


def _quantized_probe(adapter: Adapter, compute: Compute, hub: HubState, base: str | None) -> list[torch.Tensor] | None:
    """Probe logits of the quantised base + adapter that was trained; None for an adapter on a plain base."""
    if adapter.manifest.base.quantization == "none":
        return None
    tuned = load_tuned(adapter, compute, hub, base=base)
    inputs = probe_inputs(tuned.tokenizer, tuned.template, tuned.base.positions - NUM_GREEDY_TOKENS)
    return probe_logits(tuned.model, inputs, compute.torch_device)


def _write(tuned: Tuned, folder: Path, dtype: str) -> None:
    assert isinstance(tuned.model, PeftModel)
    # safe_merge refuses NaN; without it NaN weights are written in silence (peft 0.21).
    try:
        merged = tuned.model.merge_and_unload(safe_merge=True)
    except ValueError as error:
        raise AdapterError(f"{tuned.adapter.path}: cannot be merged ({error}).") from error
    tokenizer = tuned.tokenizer
    tokenizer.chat_template = tuned.template.chat_template(tokenizer.bos_token if start_ids(tokenizer) else "")
    generation = merged.generation_config
    generation.max_new_tokens = tuned.adapter.manifest.generation.max_new_tokens
    merged = merged.to(DTYPES[dtype])
    folder.mkdir(parents=True)
    write_model(merged, tokenizer, folder)
    _write_provisional(tuned.adapter, folder)


def _write_provisional(adapter: Adapter, folder: Path) -> None:
    """A manifest that the fresh process can open; `_seal` writes the one that stays."""
    provisional = adapter.manifest.model_copy(update={"kind": "merged", "files": stamp_files(folder)})
    write_manifest(folder, provisional)


def _prove(
    folder: Path,
    out: Path,
    reference: list[torch.Tensor],
    text: list[Continuation],
    quantized: list[torch.Tensor] | None,
    dtype: str,
) -> MergeReport:
    with tempfile.TemporaryDirectory() as scratch:
        answers = Path(scratch) / "probe.safetensors"
        probe_in_fresh_process(folder, answers)
        stored = load_file(str(answers))
        fresh = [stored[f"probe_{number}"] for number in range(len(stored))]
        fresh_text = json.loads(answers.with_suffix(".json").read_text(encoding="utf-8"))
    difference = compare(reference, fresh)
    tolerance = TOLERANCES[dtype]
    equal_text = fresh_text == [continuation.ids for continuation in text]
    rounding = tolerance * max(1.0, difference.largest_logit)
    is_followed = all(one.is_continued_by(other, rounding) for one, other in zip(text, fresh_text, strict=True))
    if not difference.within(tolerance) or (dtype == "fp32" and not is_followed):
        raise AdapterError(
            f"{out}: the merged model is not base + adapter: max |Δlogit| {difference.largest_logit_difference:.2e} "
            f"(tolerance {tolerance:g} of {difference.largest_logit:.1f}), argmax agreement "
            f"{difference.argmax_agreement:.1%}, greedy text {'equal' if equal_text else 'differs'}. Nothing was kept."
        )
    return MergeReport(
        folder=str(out),
        dtype=dtype,
        num_bytes=sum(path.stat().st_size for path in folder.iterdir()),
        difference=difference,
        tolerance=tolerance,
        equal_greedy_text=equal_text,
        from_quantized=None if quantized is None else compare(quantized, fresh),
    )


def _seal(adapter: Adapter, tuned: Tuned, folder: Path, out: Path, report: MergeReport) -> None:
    proof = report.record()
    del proof["folder"]
    manifest = adapter.manifest.model_copy(
        update={
            "name": out.name,
            "base": _base_seen_from(out, tuned),
            "kind": "merged",
            "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "environment": environment_stamp(tuned.base.compute),
            "proofs": {**adapter.manifest.proofs, "merged_equals_adapter": proof},
        }
    )
    scores = {key: value for key, value in adapter.manifest.metrics.items() if isinstance(value, list)}
    text = card(manifest, f"The adapter {adapter.manifest.name} merged into its base.", scores)
    (folder / "README.md").write_text(text, encoding="utf-8")
    recipe = adapter.path / "recipe.yaml"
    if recipe.is_file():  # so that `evaluate` knows the held-out rows
        shutil.copyfile(recipe, folder / recipe.name)
    write_manifest(folder, manifest.model_copy(update={"files": stamp_files(folder)}))


def _base_seen_from(out: Path, tuned: Tuned) -> BaseIdentity:
    identity = tuned.adapter.manifest.base
    if not identity.relative_path:
        return identity
    return identity.model_copy(update={"relative_path": seen_from(tuned.base.location.folder.resolve(), out.resolve())})
