"""A merged model equals base + adapter as a fresh process reads it, or there is no merged model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from listeners import silent

from peft_instruct.adapter import merge as merging
from peft_instruct.adapter.folder import load_tuned, open_adapter
from peft_instruct.adapter.proofs import Continuation, compare, greedy, probe_inputs, probe_logits
from peft_instruct.commands.merge import merge
from peft_instruct.commands.train import train
from peft_instruct.environment import HubState
from peft_instruct.errors import AdapterError
from peft_instruct.model.adapters import has_adapter
from peft_instruct.model.device import choose_compute

OFFLINE = HubState(False)
QUICK = ("training.max_steps=6", "evaluation.rows=0", "samples.count=0")


@pytest.mark.parametrize("switch", ["method.rslora=true", "method.dora=true", "method.targets=attention"])
def test_the_merged_model_equals_base_and_adapter(tiny_recipe: Path, tmp_path: Path, switch: str) -> None:
    """fp32 on both sides: only the order of additions differs, so 1e-5; the proof is repeated here from the folders."""
    adapter = train(str(tiny_recipe), [*QUICK, switch], out=tmp_path / "adapter", say=silent).folder
    merged = merge(str(adapter), say=silent).report
    compute = choose_compute("cpu", "fp32")
    tuned, whole = (load_tuned(open_adapter(Path(f)), compute, OFFLINE) for f in (adapter, merged.folder))
    inputs = probe_inputs(tuned.tokenizer, tuned.template, 64)
    logits = [probe_logits(t.model, inputs, torch.device("cpu")) for t in (tuned, whole)]
    with tuned.untuned() as base:
        moved = compare(probe_logits(base, inputs, torch.device("cpu")), logits[0])
    assert compare(*logits).largest_logit_difference <= 1e-5
    assert moved.largest_logit_difference > 1e-2
    assert merged.equal_greedy_text
    in_memory = tuned.merged().model
    assert compare(logits[0], probe_logits(in_memory, inputs, torch.device("cpu"))).largest_logit_difference <= 1e-5
    assert not has_adapter(in_memory) and not any("lora" in name for name, _ in in_memory.named_modules())


def test_plain_transformers_reads_the_merged_folder_and_prompts_it_as_it_was_trained(
    tiny_adapter_folder: Path, tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    out = tmp_path / "merged"
    merge(str(tiny_adapter_folder), out=out, say=silent)
    tokenizer = AutoTokenizer.from_pretrained(str(out))
    AutoModelForCausalLM.from_pretrained(str(out))
    manifest = open_adapter(out).manifest
    asked = 'Say "{input}" – twice.'
    rendered = tokenizer.apply_chat_template([{"role": "user", "content": asked}], tokenize=False)
    assert rendered == manifest.prompt_template().prompt(asked)
    assert manifest.kind == "merged"
    assert (
        json.loads((out / "generation_config.json").read_text())["max_new_tokens"] == manifest.generation.max_new_tokens
    )
    assert not [path for path in out.rglob("*") if path.suffix in (".bin", ".pt", ".pkl")]


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
def test_a_narrower_type_is_cast_last_and_its_distance_is_said(
    tiny_adapter_folder: Path, tmp_path: Path, dtype: str
) -> None:
    report = merge(str(tiny_adapter_folder), out=tmp_path / "merged", dtype=dtype, say=silent).report
    assert report.difference.largest_logit_difference > 0
    assert report.difference.within(report.tolerance)


def test_a_weight_changed_between_writing_and_reading_leaves_nothing_behind(
    tiny_adapter_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = merging._write

    def tampered(tuned: Any, folder: Path, dtype: str) -> None:
        written(tuned, folder, dtype)
        from safetensors.torch import load_file, save_file

        tensors = load_file(str(folder / "model.safetensors"))
        tensors["transformer.h.0.attn.c_attn.weight"][0, 0] += 0.5
        save_file(tensors, str(folder / "model.safetensors"), metadata={"format": "pt"})
        merging._write_provisional(tuned.adapter, folder)

    monkeypatch.setattr(merging, "_write", tampered)
    out = tmp_path / "merged"
    with pytest.raises(AdapterError, match="the merged model is not base \\+ adapter"):
        merge(str(tiny_adapter_folder), out=out, say=silent)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_exists_is_not_touched(tiny_adapter_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "kept.txt").write_text("mine")
    with pytest.raises(AdapterError, match="exists already"):
        merge(str(tiny_adapter_folder), out=tmp_path, say=silent)
    assert (tmp_path / "kept.txt").read_text() == "mine"


def test_a_whole_model_is_not_merged(tiny_adapter_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "merged"
    merge(str(tiny_adapter_folder), out=out, say=silent)
    with pytest.raises(AdapterError, match="holds a whole model already"):
        merge(str(out), out=tmp_path / "again", say=silent)


def test_a_qlora_adapter_merges_into_the_original_base_and_says_how_far_that_is(
    tiny_recipe: Path, tmp_path: Path
) -> None:
    """Trains, evaluates mid-run and merges in nf4; merging into the 4-bit weights would quantise again."""
    overrides = [*QUICK, "model.quantization=nf4", "training.precision=bf16", "training.evaluate_every=3"]
    adapter = train(str(tiny_recipe), overrides, out=tmp_path / "qlora", say=silent).folder
    result = merge(str(adapter), say=silent)
    assert result.report.difference.within(1e-5)
    assert result.report.from_quantized is not None
    # nf4 rounds each weight to one of 16 levels: the two bases cannot agree to rounding.
    assert (
        result.report.from_quantized.largest_logit_difference > 100 * result.report.difference.largest_logit_difference
    )
    assert "not the quantised one it was trained on" in result.text()


@pytest.mark.parametrize(
    ("other", "rounding", "expected"),
    [
        ([5, 6, 7], 0.0, True),
        ([5, 8, 1], 0.01, True),  # the two best are 0.02 apart there
        ([5, 8, 1], 0.009, False),
        ([4, 6, 7], 0.1, False),
        ([5, 6], 1.0, False),
    ],
)
def test_texts_may_part_only_where_two_tokens_are_as_good(other: list[int], rounding: float, expected: bool) -> None:
    assert Continuation([5, 6, 7], [3.0, 0.02, 4.0]).is_continued_by(other, rounding) is expected


def test_greedy_continuations_are_the_best_token_after_another(tiny_adapter_folder: Path) -> None:
    tuned = load_tuned(open_adapter(tiny_adapter_folder), choose_compute("cpu", "fp32"), HubState(False))
    prompt = probe_inputs(tuned.tokenizer, tuned.template, 64)[0]
    cpu, pad = torch.device("cpu"), tuned.base.model.config.pad_token_id
    found = greedy(tuned.model, [prompt], cpu, pad)[0]
    logits_TV = probe_logits(tuned.model, [prompt + found.ids], cpu)[0][len(prompt) - 1 : -1]
    best_T2 = logits_TV.topk(2).values
    assert found.ids == logits_TV.argmax(-1).tolist()
    assert found.gaps == pytest.approx((best_T2[:, 0] - best_T2[:, 1]).tolist(), abs=1e-3)
