"""Completions of a file of prompts: ours, and plain `model.generate` one by one and eight by eight, alternating.

    python benchmarks/generation.py --base DIR --data alpaca.json
    python benchmarks/generation.py --render        the README's lines from the result file, between the marks below

`--base` is a folder with GPT-2 124M (any weights), `--data` an Alpaca-format file of which the first `--prompts` rows
are asked. The plain loops are the usual ones: left padding, greedy, the stop token as padding, sdpa attention, and in
file order. All run in one process on the same weights in fp32, without an adapter (a merged one costs nothing), after
a short warm-up; the texts are compared, and how many agree stands in the result file. One by one is slow and taken
once (`--slow-rounds`); it is divided by ours of the same round. It takes about a quarter of an hour on two cores.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import readme_table

RESULT = readme_table.RESULTS / "generation.json"
OURS, BY_EIGHT, ONE_BY_ONE = "ours", "batches of 8", "one by one"


def plain_loop(model: Any, tokenizer: Any, prompts: list[str], new_tokens: int, batch_size: int) -> list[str]:
    """As transformers' documentation generates a batch."""
    import torch

    texts = []
    for start in range(0, len(prompts), batch_size):
        batch = tokenizer(prompts[start : start + batch_size], return_tensors="pt", padding=True, padding_side="left")
        with torch.no_grad():
            out = model.generate(
                **batch, max_new_tokens=new_tokens, do_sample=False, pad_token_id=tokenizer.eos_token_id
            )
        new = out[:, batch["input_ids"].shape[1] :]
        texts += tokenizer.batch_decode(new, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return texts


def ways(base: Any, plain_model: Any, new_tokens: int) -> dict[str, Callable[[list[str]], list[str]]]:
    from peft_instruct.inference.complete import complete
    from peft_instruct.recipe.schema import GenerationSection

    def ours(prompts: list[str]) -> list[str]:
        options = GenerationSection(max_new_tokens=new_tokens)
        device = base.compute.torch_device
        done = complete(base.model, base.tokenizer, prompts, options, positions=base.positions, device=device)
        return [each.completion for each in done]

    return {
        OURS: ours,
        BY_EIGHT: lambda prompts: plain_loop(plain_model, base.tokenizer, prompts, new_tokens, 8),
        ONE_BY_ONE: lambda prompts: plain_loop(plain_model, base.tokenizer, prompts, new_tokens, 1),
    }


def compare(asked: argparse.Namespace) -> dict[str, Any]:
    import torch
    from transformers import AutoModelForCausalLM

    from peft_instruct.data.templates import ALPACA
    from peft_instruct.model.base import load_base
    from peft_instruct.model.device import choose_compute, environment_stamp
    from peft_instruct.model.location import Location
    from peft_instruct.recipe.model_section import ModelSection

    compute = choose_compute("cpu", "fp32")
    base = load_base(ModelSection(base=str(asked.base)), Location(str(asked.base), asked.base), compute)
    plain_model = AutoModelForCausalLM.from_pretrained(asked.base, dtype=torch.float32).eval()
    rows = json.loads(asked.data.read_text(encoding="utf-8"))[: asked.prompts]
    prompts = [str(ALPACA.prompt(row["instruction"], row.get("input", ""))) for row in rows]
    seconds: dict[str, list[float]] = {}
    texts: dict[str, list[str]] = {}
    asking = ways(base, plain_model, asked.new_tokens)
    for way in asking.values():
        way(prompts[:2])
    for number in range(asked.rounds):
        for name, way in asking.items():
            if name == ONE_BY_ONE and number >= asked.slow_rounds:
                continue
            start = time.perf_counter()
            texts[name] = way(prompts)
            seconds.setdefault(name, []).append(round(time.perf_counter() - start, 2))
            print(f"round {number + 1}: {name}: {seconds[name][-1]} s", file=sys.stderr)
    others = [name for name in texts if name != OURS]
    return {
        "environment": environment_stamp(compute),
        "num_prompts": len(prompts),
        "new_tokens": asked.new_tokens,
        "seconds": seconds,
        # Fewer rounds of a slow one: each beside ours of its round.
        "times_as_fast_as": {
            name: round(statistics.median(b / a for a, b in zip(seconds[OURS], seconds[name], strict=False)), 2)
            for name in others
        },
        "same_texts": {name: sum(a == b for a, b in zip(texts[OURS], texts[name], strict=True)) for name in others},
    }


def block() -> str:
    """The README's lines between their marks, from the result file."""
    if not RESULT.is_file():
        return readme_table.marked("generation", __file__, "Generation is not measured yet.")
    found = json.loads(RESULT.read_text(encoding="utf-8"))
    count, faster, same = found["num_prompts"], found["times_as_fast_as"], found["same_texts"]
    machine = found["environment"]
    alike = " and ".join(str(same[name]) for name in (BY_EIGHT, ONE_BY_ONE))
    text = (
        f"{count} prompts of a file, {found['new_tokens']} new tokens each, take "
        f"{statistics.median(found['seconds'][OURS]):.0f} s: {faster[ONE_BY_ONE]:.1f} times as fast as a plain "
        f"`model.generate` loop,\n{faster[BY_EIGHT]:.1f} times as fast as one in batches of 8 in file order "
        f"(GPT-2 124M, greedy, {machine['precision']}; {alike} of {count} texts the\nsame as ours; "
        f"{machine['device_name']}, {found['made'][:10]}, `benchmarks/results/generation.json`)."
    )
    return readme_table.marked("generation", __file__, text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", type=Path)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--prompts", type=int, default=200)
    parser.add_argument("--new-tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--slow-rounds", type=int, default=1, help="rounds of one by one")
    parser.add_argument("--out", type=Path, default=RESULT)
    parser.add_argument("--render", action="store_true", help="write the README's lines from the result file")
    asked = parser.parse_args()
    if asked.render:
        readme_table.write(block())
        return
    if not (asked.base and asked.data):
        parser.error("--base and --data are needed to measure")
    result = {"made": datetime.now(timezone.utc).isoformat(timespec="seconds"), **compare(asked)}
    asked.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps({key: result[key] for key in ("seconds", "times_as_fast_as", "same_texts")}, indent=1))


if __name__ == "__main__":
    main()
