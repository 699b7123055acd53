"""The figures of a row follow from steps, counts and the device's rate by arithmetic that can be checked by hand."""

from __future__ import annotations

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from peft_instruct.bench.flops import Matrices, TokenCounts
from peft_instruct.bench.matrix_rate import measure_matrix_rate
from peft_instruct.bench.measurement import summarize
from peft_instruct.bench.records import MatrixRate, Measurement, Memory
from peft_instruct.bench.stopwatch import Step
from peft_instruct.bench.witness import Witness
from peft_instruct.model.adapters import Trainable

# 100 weights, 6 FLOPs each: 600 a token and nothing else.
MATRICES = Matrices(blocks=100, head=0, adapter=0, layers=0, attention_width=0)


def step(seconds: float, num_tokens: int, num_completion_tokens: int) -> Step:
    return Step(seconds, TokenCounts(num_tokens, num_completion_tokens, num_positions=200, num_pairs=0))


def summary(steps: list[Step], num_warmup: int) -> Measurement:
    model = GPT2LMHeadModel(GPT2Config(vocab_size=32, n_positions=8, n_embd=16, n_layer=1, n_head=2))
    return summarize(
        steps, num_warmup,
        trainable=Trainable(model, (), 7, 70),
        matrices=MATRICES,
        memory=Memory(peak_bytes=20, baseline_bytes=10, how="made up"),
        matrix_rate=MatrixRate(flops_per_second=1e6, dtype="fp32", size=8),
        witness=Witness(model),
    )  # fmt: skip


def test_warm_up_is_left_out_and_the_rest_is_median_and_spread() -> None:
    found = summary([step(100.0, 1, 1), step(1.0, 100, 50), step(2.0, 100, 50), step(0.5, 100, 50)], num_warmup=1)
    assert (found.num_warmup, found.num_steps) == (1, 3)
    assert (found.tokens_per_second.smallest, found.tokens_per_second.median, found.tokens_per_second.largest) == (
        50.0,
        100.0,
        200.0,
    )
    assert found.completion_tokens_per_second.median == 50.0
    assert found.step_seconds.median == 1.0
    assert (found.tokens_per_step, found.fill_fraction) == (100.0, 0.5)
    assert found.flops_per_token == 600.0
    # 600 FLOPs a token, 100 tokens a second, of a million FLOP/s.
    assert found.model_flops_per_second.median == 60_000.0
    assert found.share_of_matrix_rate == 0.06


@pytest.mark.parametrize("steps", [[step(1.0, 100, 50)], [step(1.0, 100, 50), step(1.0, 100, 0)]])
def test_figures_of_nothing_are_not_made(steps: list[Step]) -> None:
    with pytest.raises(ValueError, match="leave nothing to measure"):
        summary(steps, num_warmup=1)


def test_the_matrix_rate_is_that_of_the_device_in_the_type_that_was_asked_for() -> None:
    found = measure_matrix_rate("cpu", "bf16", size=64)
    assert (found.dtype, found.size) == ("bf16", 64)
    assert found.flops_per_second > 0


def test_the_matrix_rate_is_two_flops_per_multiplication_by_the_median_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock is scripted: two warm-up products and seven timed ones, of which four take a second or less."""
    seconds = [50.0, 50.0, 9.0, 9.0, 9.0, 1.0, 1.0, 1.0, 0.5]
    readings = iter([reading for duration in seconds for reading in (0.0, duration)])
    monkeypatch.setattr("time.perf_counter", lambda: next(readings))
    found = measure_matrix_rate("cpu", "fp32", size=16)
    monkeypatch.undo()
    assert found.flops_per_second == 2 * 16**3
    assert torch.get_default_dtype() == torch.float32
