"""Three ways of attention on the CPU, forward and backward, by length: torch's fused one, plain products, joined rows.

    python benchmarks/attention_lengths.py          writes benchmarks/results/attention_lengths.json

`LONGEST_PLAIN` of peft_instruct/model/kernels.py is read off it, and what joined rows gain.
"""

from __future__ import annotations

import json
import statistics
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch

from peft_instruct.model import kernels
from peft_instruct.model.device import choose_compute, environment_stamp
from peft_instruct.model.joined_rows import JoinedRows, Kind, join_rows

RESULT = Path(__file__).resolve().parent / "results" / "attention_lengths.json"
BATCH, HEADS, WIDTH = 8, 12, 64
LENGTHS = (64, 96, 128, 160, 192, 224, 256, 384, 512)
ROUNDS = 9


def seconds(limit: int, inputs: list[torch.Tensor], mask: torch.Tensor, rows: JoinedRows | None) -> float:
    """Plain products up to `limit` keys; with `rows` the inputs are one sequence of them."""
    kernels.LONGEST_PLAIN = {inputs[0].dtype: limit}
    began = time.perf_counter()
    query, key, value = inputs
    output, _ = kernels.attention_for_length(torch.nn.Module(), query, key, value, mask, joined_rows=rows)
    output.sum().backward()
    return time.perf_counter() - began


def main() -> None:
    torch.manual_seed(0)
    lines: list[dict[str, Any]] = []
    for dtype in (torch.bfloat16, torch.float32):
        for length in LENGTHS:
            inputs = [torch.randn(BATCH, HEADS, length, WIDTH, dtype=dtype, requires_grad=True) for _ in range(3)]
            mask = torch.ones(length, length, dtype=torch.bool).tril().expand(BATCH, 1, length, length)
            ids = torch.ones(BATCH, length, dtype=torch.int64)
            rows = join_rows(ids, ids, [Kind(tuple(range(BATCH)), 0)], dtype)
            shape = (1, rows.ids.shape[1], HEADS, WIDTH)
            joined = [torch.randn(shape, dtype=dtype).transpose(1, 2).requires_grad_() for _ in range(3)]
            ways: dict[str, tuple[int, list[torch.Tensor], torch.Tensor, JoinedRows | None]] = {
                "fused": (0, inputs, mask, None),
                "plain": (length, inputs, mask, None),
                "joined": (0, joined, mask, rows),
            }
            found: dict[str, list[float]] = {name: [] for name in ways}
            for number in range(ROUNDS + 2):
                for name, given in ways.items():
                    spent = seconds(*given)
                    if number >= 2:
                        found[name].append(spent)
            lines.append({"dtype": str(dtype).removeprefix("torch."), "length": length})
            lines[-1]["milliseconds"] = {name: round(1000 * statistics.median(each), 2) for name, each in found.items()}
            for name in ("plain", "joined"):
                ratios = [fused / other for fused, other in zip(found["fused"], found[name], strict=True)]
                lines[-1][f"fused_by_{name}"] = round(statistics.median(ratios), 2)
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
