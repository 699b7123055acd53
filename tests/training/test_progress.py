"""metrics.jsonl: a line is a line, whatever stands in it."""

from __future__ import annotations

from pathlib import Path

from peft_instruct.training.progress import MetricsWriter, last_sampled, read_metrics


def test_a_run_that_goes_on_knows_the_samples_that_it_has_taken(tmp_path: Path) -> None:
    writer = MetricsWriter(tmp_path / "metrics.jsonl")
    assert last_sampled(writer.path) == -1
    for line in ({"step": 2, "samples": {}}, {"step": 4, "samples": {"a": "\u2028"}}, {"step": 6, "loss": 1.0}):
        writer.append(line)
    assert last_sampled(writer.path) == 4


def test_what_is_appended_reads_back(tmp_path: Path) -> None:
    """The report of a run reads it; a sample may hold the line breaks of Unicode."""
    samples = {"two\u2028lines\x85\x0b\x1c of\r\n Unicode": "\u2029"}
    writer = MetricsWriter(tmp_path / "metrics.jsonl")
    writer.append({"step": 1, "loss": float("nan")})
    writer.append({"step": 2, "samples": samples})
    first, second = ({k: v for k, v in line.items() if k != "seconds"} for line in read_metrics(writer.path))
    assert first == {"step": 1, "loss": None}
    assert second == {"step": 2, "samples": samples}
