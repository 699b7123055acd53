"""`data worst`: the training rows that a run's ledger makes suspect, with what they say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from peft_instruct.data.prepare import read_instruction_data
from peft_instruct.data.types import PromptCompletion
from peft_instruct.environment import prepare_environment
from peft_instruct.errors import DatasetError, first_line
from peft_instruct.evaluation.ledger import LedgerEntry, Suspects, read_ledger, suspects
from peft_instruct.recipe import Recipe, load_recipe
from peft_instruct.recipe.shipped import find_adapter
from peft_instruct.report.safe_text import in_short

LEAST_LEARNED = 0.2
"""Share of the median loss that training has to have taken away for the lists to be about the rows."""
MOST_MISLABELLED = 0.2
"""Share of the rows that may be wrong; more of them are another kind of row than the rest, which is not learned yet."""
LISTS = {
    "mislabelled": "look mislabelled: their loss stands out, and another token is at least a hundred times as likely",
    "worse": "got worse",
    "unlearned": "were never learned: their loss fell by less than a quarter of the median fall",
}


@dataclass(frozen=True)
class WorstResult:
    """The suspects among the training rows.

    Attributes:
        rows: by origin, as they are read again; empty where they no longer are what was trained on.
        note: why there are no rows.
        num_shown: most rows of each list in the text; the record has all.
    """

    adapter: str
    entries: Sequence[LedgerEntry]
    suspects: Suspects
    rows: Mapping[str, PromptCompletion]
    note: str
    num_shown: int

    def record(self) -> dict[str, Any]:
        return {
            "adapter": self.adapter,
            "num_rows": len(self.entries),
            "note": self.note,
            **{name: [self._entry(entry) for entry in getattr(self.suspects, name)] for name in LISTS},
        }

    def _entry(self, entry: LedgerEntry) -> dict[str, Any]:
        row = self.rows.get(entry.origin)
        return {**asdict(entry), "asked": row.asked if row else None, "completion": row.completion if row else None}

    def text(self) -> str:
        before, after = (median(getattr(e, name) for e in self.entries) for name in ("loss_before", "loss_after"))
        lines = [
            f"{self.adapter}: {len(self.entries)} training rows, median loss {before:.3f} before, {after:.3f} after "
            "(nats/token)"
        ]
        if self.note:
            lines.append(self.note)
        if before - after < LEAST_LEARNED * before:
            lines.append("the run has learned little: what stands out below is what the base finds unlikely")
        if len(self.suspects.mislabelled) > MOST_MISLABELLED * len(self.entries):
            share = len(self.suspects.mislabelled) / len(self.entries)
            lines.append(
                f"{share:.0%} of the rows stand out: more likely another kind of row than the rest, not learned yet, "
                "than wrong. Train longer, or look at the kinds apart"
            )
        for name, claim in LISTS.items():
            found: tuple[LedgerEntry, ...] = getattr(self.suspects, name)
            lines += ["", f"{len(found)} rows {claim}"]
            for entry in found[: self.num_shown]:
                lines += self._lines(entry)
            if len(found) > self.num_shown:
                lines.append(f"  … and {len(found) - self.num_shown} more (--rows {len(found)})")
        return "\n".join(lines)

    def _lines(self, entry: LedgerEntry) -> list[str]:
        figures = f"{entry.loss_before:.3f} -> {entry.loss_after:.3f}"
        times = f"{entry.against:,.0f}" if entry.against < 10_000 else f"{entry.against:.0e}"
        against = f", another token is {times} times as likely" if entry.margin else ""
        lines = [f"  {in_short(entry.origin)}  {figures}{against}"]
        row = self.rows.get(entry.origin)
        if row is not None:
            lines += [
                f"    asked       {in_short(row.asked or row.prompt)}",
                f"    completion  {in_short(row.completion)}",
            ]
        return lines


def data_worst(adapter_name: str, *, num_shown: int = 10) -> WorstResult:
    """The suspects of an adapter's ledger, with their rows where the data is still that of the training.

    Raises:
        AdapterError: no such adapter, a damaged one, or one without a ledger.
    """
    path = find_adapter(adapter_name)
    entries = read_ledger(path)
    rows, note = _rows_of(path)
    return WorstResult(adapter_name, entries, suspects(entries), rows, note, num_shown)


def _rows_of(path: Path) -> tuple[dict[str, PromptCompletion], str]:
    """The training rows by origin, or why they cannot be shown."""
    prepare_environment([])
    from peft_instruct.adapter.folder import open_adapter

    manifest = open_adapter(path).manifest
    recipe: Recipe = load_recipe(str(path / "recipe.yaml"))
    try:
        data = read_instruction_data(recipe.data, recipe.training.seed, manifest.prompt_template())
    except DatasetError as error:
        return {}, f"the rows cannot be shown ({first_line(error)})"
    if data.fingerprint != manifest.data_fingerprint:
        return {}, "the rows cannot be shown: the data is not that of the training any more"
    return {row.origin: row for row in data.train}, ""
