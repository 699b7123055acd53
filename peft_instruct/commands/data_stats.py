"""`data stats`: how long the rows are, what the length limit cuts, and what they are about."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from peft_instruct.commands.data_target import recipe_of
from peft_instruct.commands.out_file import check_not_read
from peft_instruct.data.scripts import count_scripts
from peft_instruct.data.statistics import (
    bucketed_fill,
    histogram,
    packed_fill,
    percentiles,
    shuffled_fill,
    top_prefixes,
)
from peft_instruct.data.table import TokenTable
from peft_instruct.data.types import LengthReport, PromptCompletion
from peft_instruct.recipe import Recipe

BAR = 40
LEAST_SCRIPT_SHARE = 0.0005
OTHERWISE = {
    "drop": "training leaves them out",
    "error": "training refuses them",
    "packing": "all are joined and cut into rows of that length",
}
"""What becomes of rows that are too long and not truncated."""


@dataclass(frozen=True)
class DataStats:
    """Figures of all rows, before they are split.

    Attributes:
        lengths: of `row`, `prompt` and `completion` (stop token included), percentile -> tokens.
        histogram: (first, last, rows) of lengths of whole rows in tokens.
        over: rows longer than `max_length`; `prompt_cut` and `completion_cut` are those of them that are cut so.
        fill: real tokens of all positions of a batch, by the way of batching.
        scripts: share of letters.
        prefixes: how prompts begin, and how many.
        overlong: as `data.overlong`, or `packing`.
        notes: how the rows were read, and which were left out.
    """

    target: str
    tokenizer: str
    num_rows: int
    num_tokens: int
    completion_share: float
    lengths: dict[str, dict[str, int]]
    histogram: list[tuple[int, int, int]]
    max_length: int
    over: int
    prompt_cut: int
    completion_cut: int
    batch_size: int
    fill: dict[str, float]
    scripts: dict[str, float]
    prefixes: list[tuple[str, int]]
    overlong: str
    notes: tuple[str, ...]

    def record(self) -> dict[str, Any]:
        return asdict(self)

    def text(self) -> str:
        names = list(self.lengths["row"])
        most = max(count for _, _, count in self.histogram)
        lines = [
            f"{self.target}: {self.num_rows:,} rows, {self.num_tokens:,} tokens of {self.tokenizer}, "
            f"{self.completion_share:.1%} of them completions",
            "",
            f"{'tokens':<11}" + "".join(f"{name:>8}" for name in names),
            *(
                f"{part:<11}" + "".join(f"{counts[name]:>8,}" for name in names)
                for part, counts in self.lengths.items()
            ),
            "",
            *(f"{first:>6}–{last:<6} {'█' * -(-BAR * n // most):<{BAR}} {n:,}" for first, last, n in self.histogram),
            "",
            f"max_length {self.max_length}: {self.over:,} rows are longer ({self.over / self.num_rows:.1%}); "
            + self._what_becomes_of_them(),
            f"fill at batch_size {self.batch_size}: "
            + ", ".join(f"{name} {share:.1%}" for name, share in self.fill.items()),
            "scripts: " + ", ".join(f"{name} {share:.1%}" for name, share in self.scripts.items()),
            "prompts begin with: " + ", ".join(f"{text!r} {count:,}" for text, count in self.prefixes),
            "",
            *self.notes,
        ]
        return "\n".join(lines)

    def _what_becomes_of_them(self) -> str:
        if self.overlong != "truncate":
            return OTHERWISE[self.overlong]
        return f"{self.prompt_cut:,} lose a part of the prompt, {self.completion_cut:,} of the completion and its stop"


def data_stats(target: str, overrides: Sequence[str] = (), *, svg: Path | None = None) -> DataStats:
    """Figures of the rows of a recipe or a file, tokenised as `train` does.

    Args:
        svg: also write the histogram there.

    Raises:
        PeftInstructError: the rows, the recipe or the tokenizer cannot be read.
    """
    from peft_instruct.commands.data_lengths import rows_and_tokenizer
    from peft_instruct.data.limits import fit
    from peft_instruct.data.tokens import encode

    recipe = recipe_of(target, overrides)
    section = recipe.data
    if svg is not None:
        check_not_read(svg, [target, *section.all_names()], "--svg")
    data, tokenizer = rows_and_tokenizer(recipe)
    rows = [*data.train, *data.validation, *data.test]
    encoded = encode(rows, tokenizer)
    whole, _ = fit(encoded, max_length=sys.maxsize)
    _, report = fit(encoded, max_length=section.max_length)
    stats = _stats(target, recipe, rows, whole, report, data.notes)
    if svg is not None:
        from peft_instruct.report.plots import histogram_svg

        svg.write_text(histogram_svg(stats.histogram, section.max_length), encoding="utf-8")
    return stats


def _stats(
    target: str,
    recipe: Recipe,
    rows: list[PromptCompletion],
    tokens: TokenTable,
    report: LengthReport,
    notes: tuple[str, ...],
) -> DataStats:
    max_length, batch_size = recipe.data.max_length, recipe.training.batch_size
    learned = np.add.reduceat(tokens.learned, tokens.offsets[:-1], dtype=np.int64).tolist()
    lengths = tokens.lengths.tolist()
    cut = [min(length, max_length) for length in lengths]
    scripts: Counter[str] = Counter()
    for row in rows:
        scripts += count_scripts(f"{row.asked or row.prompt}{row.completion}")
    return DataStats(
        target=target,
        tokenizer=recipe.model.base,
        num_rows=len(rows),
        num_tokens=sum(lengths),
        completion_share=sum(learned) / sum(lengths),
        lengths={
            "row": percentiles(lengths),
            "prompt": percentiles([length - n for length, n in zip(lengths, learned, strict=True)]),
            "completion": percentiles(learned),
        },
        histogram=histogram(lengths),
        max_length=max_length,
        overlong="packing" if recipe.data.packing else recipe.data.overlong,
        over=sum(length > max_length for length in lengths),
        prompt_cut=len(report.truncated),
        completion_cut=len(report.stopless),
        batch_size=batch_size,
        fill={
            "shuffled": shuffled_fill(cut, batch_size),
            "bucketed by length": bucketed_fill(cut, batch_size),
            "packed": packed_fill(cut, max_length),
        },
        scripts={
            name: count / scripts.total()
            for name, count in scripts.most_common()
            if count >= LEAST_SCRIPT_SHARE * scripts.total()
        },
        prefixes=top_prefixes(row.asked or row.prompt or row.completion for row in rows),
        notes=notes,
    )
