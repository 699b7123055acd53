"""Completions of a file of prompts: ours, and plain `model.generate` one by one and eight by eight, alternating.

    python benchmarks/generation.py --base DIR --data alpaca.json

`--base` is a folder with GPT-2 124M (any weights), `--data` an Alpaca-format file of which the first `--prompts` rows
are asked. The plain loops are the usual ones: left padding, greedy, the stop token as padding, and in file order. All
run in one process on the same weights in fp32; the texts are compared, and how many agree stands in the result file.
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

REPOSITORY = Path(__file__).resolve().parent.parent
RESULT = REPOSITORY / "benchmarks" / "results" / "generation.json"


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


def ways(base: Any, plain_model: Any, prompts: list[str], new_tokens: int) -> dict[str, Callable[[], list[str]]]:
    from peft_instruct.inference.complete import complete
    from peft_instruct.recipe.schema import GenerationSection

    def ours() -> list[str]:
        options = GenerationSection(max_new_tokens=new_tokens)
        device = base.compute.torch_device
        done = complete(base.model, base.tokenizer, prompts, options, positions=base.positions, device=device)
        return [each.completion for each in done]

    return {
        "ours": ours,
        "batches of 8": lambda: plain_loop(plain_model, base.tokenizer, prompts, new_tokens, 8),
        "one by one": lambda: plain_loop(plain_model, base.tokenizer, prompts, new_tokens, 1),
    }


def compare(asked: argparse.Namespace) -> dict[str, Any]:
    from transformers import AutoModelForCausalLM

    from peft_instruct.data.templates import ALPACA
    from peft_instruct.model.base import load_base
    from peft_instruct.model.device import choose_compute, environment_stamp
    from peft_instruct.model.location import Location
    from peft_instruct.recipe.model_section import ModelSection

    compute = choose_compute("cpu", "fp32")
    base = load_base(ModelSection(base=str(asked.base)), Location(str(asked.base), asked.base), compute)
    plain_model = AutoModelForCausalLM.from_pretrained(asked.base).eval()
    rows = json.loads(asked.data.read_text(encoding="utf-8"))[: asked.prompts]
    prompts = [str(ALPACA.prompt(row["instruction"], row.get("input", ""))) for row in rows]
    seconds: dict[str, list[float]] = {}
    texts: dict[str, list[str]] = {}
    for number in range(asked.rounds):
        for name, way in ways(base, plain_model, prompts, asked.new_tokens).items():
            start = time.perf_counter()
            texts[name] = way()
            seconds.setdefault(name, []).append(round(time.perf_counter() - start, 2))
            print(f"round {number + 1}: {name}: {seconds[name][-1]} s", file=sys.stderr)

    def ratio(theirs: str) -> float:
        return round(statistics.median(b / a for a, b in zip(seconds["ours"], seconds[theirs], strict=True)), 2)

    others = [name for name in texts if name != "ours"]
    return {
        "environment": environment_stamp(compute),
        "num_prompts": len(prompts),
        "new_tokens": asked.new_tokens,
        "seconds": seconds,
        "times_as_fast_as": {name: ratio(name) for name in others},
        "same_texts": {name: sum(a == b for a, b in zip(texts["ours"], texts[name], strict=True)) for name in others},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--prompts", type=int, default=200)
    parser.add_argument("--new-tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=RESULT)
    asked = parser.parse_args()
    result = {"made": datetime.now(timezone.utc).isoformat(timespec="seconds"), **compare(asked)}
    asked.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps({key: result[key] for key in ("seconds", "times_as_fast_as", "same_texts")}, indent=1))


if __name__ == "__main__":
    main()
