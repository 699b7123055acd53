"""Where plain products beat torch's fused attention on the CPU, forward and backward, by length.

    python benchmarks/attention_lengths.py          writes benchmarks/results/attention_lengths.json

`LONGEST_PLAIN` of peft_instruct/model/kernels.py is read off it.
"""

from __future__ import annotations

import json
import statistics
import time
from datetime import datetime, timezone
from pathlib import Path

import torch

from peft_instruct.model import kernels
from peft_instruct.model.device import choose_compute, environment_stamp

RESULT = Path(__file__).resolve().parent / "results" / "attention_lengths.json"
BATCH, HEADS, WIDTH = 8, 12, 64
LENGTHS = (64, 96, 128, 160, 192, 224, 256, 384, 512)
ROUNDS = 9


def seconds(limit: int, inputs: list[torch.Tensor], mask: torch.Tensor) -> float:
    kernels.LONGEST_PLAIN = {inputs[0].dtype: limit}
    began = time.perf_counter()
    output, _ = kernels.attention_for_length(torch.nn.Module(), *inputs, mask)
    output.sum().backward()
    return time.perf_counter() - began


def main() -> None:
    torch.manual_seed(0)
    lines = []
    for dtype in (torch.bfloat16, torch.float32):
        for length in LENGTHS:
            inputs = [torch.randn(BATCH, HEADS, length, WIDTH, dtype=dtype, requires_grad=True) for _ in range(3)]
            mask = torch.ones(length, length, dtype=torch.bool).tril().expand(BATCH, 1, length, length)
            found: dict[str, list[float]] = {"fused": [], "plain": []}
            for number in range(ROUNDS + 2):
                for name, limit in (("fused", 0), ("plain", length)):
                    spent = seconds(limit, inputs, mask)
                    if number >= 2:
                        found[name].append(spent)
            ratios = [fused / plain for fused, plain in zip(found["fused"], found["plain"], strict=True)]
            medians = {name: round(1000 * statistics.median(values), 2) for name, values in found.items()}
            lines.append(
                {"dtype": str(dtype).removeprefix("torch."), "length": length, "milliseconds": medians,
                 "fused_by_plain": round(statistics.median(ratios), 2)}
            )  # fmt: skip
            print(lines[-1])
    record = {
        "made_by": "python benchmarks/attention_lengths.py",
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "batch": BATCH, "heads": HEADS, "width_of_a_head": WIDTH, "rounds": ROUNDS,
        "environment": environment_stamp(choose_compute("cpu")),
        "lines": lines,
    }  # fmt: skip
    RESULT.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
