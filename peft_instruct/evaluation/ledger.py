"""The row ledger: what each training row cost the model before and after, and which rows that makes suspect.

It holds places and figures, no text of the rows: an adapter folder is handed over.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from pydantic import TypeAdapter, ValidationError

from peft_instruct.data.types import Tokens
from peft_instruct.errors import AdapterError, first_line, problems_of

if TYPE_CHECKING:  # it imports torch
    from peft_instruct.model.scoring import RowScores

LEDGER = "ledger.jsonl"
LEAST_RISE = 0.05
"""Nats per token by which the loss of a row that got worse has risen."""
LEAST_FALL = 0.25
"""Share of the median fall below which a row counts as never learned."""
OUTLIER = 3.5
"""Modified z-score (Iglewicz and Hoaglin 1993) from which the loss after training stands out."""
AGAINST = 100
"""Times that another token is as likely as the row's own where the model contradicts a row."""


@dataclass(frozen=True)
class LedgerEntry:
    """One training row.

    Attributes:
        loss_before, loss_after: mean negative log-likelihood per completion token, in nats.
        token_accuracy: share of its completion tokens that are the trained model's first choice.
        margin: log-odds of the row's token to the trained model's first choice, the least of the row, in nats.
    """

    origin: str
    num_tokens: int
    loss_before: float
    loss_after: float
    token_accuracy: float
    margin: float

    @property
    def fall(self) -> float:
        return self.loss_before - self.loss_after

    @property
    def against(self) -> float:
        """Times that another token is as likely as the row's own, where that is most; 1 where it is the likeliest."""
        return math.exp(min(-self.margin, 700.0))


_ENTRY = TypeAdapter(LedgerEntry)


@dataclass(frozen=True)
class Suspects:
    """Rows to look at, the worst first; a row may stand in several lists.

    Attributes:
        mislabelled: the loss after training stands out from the other rows', and somewhere in the row another token is
            a hundred times as likely as its own: the model contradicts it, where a hard row leaves it in doubt.
        worse: the loss has risen.
        unlearned: the loss has fallen by less than a quarter of the median fall.
    """

    mislabelled: tuple[LedgerEntry, ...]
    worse: tuple[LedgerEntry, ...]
    unlearned: tuple[LedgerEntry, ...]


def distinct(rows: Sequence[Tokens]) -> list[Tokens]:
    """Each row once: the rows of a source with a weight come several times."""
    return list({(row.origin, tuple(row.input_ids)): row for row in rows}.values())


def ledger_of(rows: Sequence[Tokens], before: Sequence[RowScores], after: Sequence[RowScores]) -> list[LedgerEntry]:
    """The entries of rows that were scored by the base and by what was trained, in the same order.

    A row of one token, which packing may leave at the end, predicts nothing and has none.
    """
    return [
        LedgerEntry(
            origin=row.origin,
            num_tokens=then.num_tokens,
            loss_before=round(first.loss, 6),
            loss_after=round(then.loss, 6),
            token_accuracy=round(then.token_accuracy, 6),
            margin=round(then.margin, 6),
        )
        for row, first, then in zip(rows, before, after, strict=True)
        if then.num_tokens
    ]


def write_ledger(folder: Path, entries: Sequence[LedgerEntry]) -> None:
    """One JSON line per row, in the order of training rows."""
    with (folder / LEDGER).open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(json.dumps(asdict(entry), ensure_ascii=False) + "\n" for entry in entries)


def read_ledger(folder: Path) -> list[LedgerEntry]:
    """The entries that a run has written.

    Raises:
        AdapterError: the run wrote none, or the file is not what it wrote.
    """
    path = folder / LEDGER
    if not path.is_file():
        raise AdapterError(
            f"{folder}: no {LEDGER}: its run kept none, or it is a merged folder. Train with --ledger (or "
            "training.ledger: true in the recipe)."
        )
    try:
        lines = path.read_text(encoding="utf-8").split("\n")  # an origin may hold U+2028, which splitlines takes too
        return [_ENTRY.validate_json(line, strict=True) for line in lines if line]
    except ValidationError as error:
        raise AdapterError(f"{path}: not a ledger ({problems_of(error)[0]}) Train again with --ledger.") from error
    except (OSError, ValueError) as error:
        raise AdapterError(f"{path}: not a ledger ({first_line(error)}). Train again with --ledger.") from error


def suspects(entries: Sequence[LedgerEntry]) -> Suspects:
    """The rows of a ledger that got worse, that were never learned, or that look mislabelled."""
    if not entries:
        return Suspects((), (), ())
    typical_fall = median(entry.fall for entry in entries)
    middle = median(entry.loss_after for entry in entries)
    # 1.4826 times the median absolute deviation estimates the standard deviation of a normal distribution.
    spread = 1.4826 * median(abs(entry.loss_after - middle) for entry in entries)
    stands_out = [entry for entry in entries if entry.loss_after - middle > OUTLIER * spread]
    worse = [entry for entry in entries if entry.fall < -LEAST_RISE]
    unlearned = [entry for entry in entries if -LEAST_RISE <= entry.fall < LEAST_FALL * typical_fall]
    return Suspects(
        mislabelled=tuple(
            sorted((entry for entry in stands_out if entry.against >= AGAINST), key=lambda entry: entry.margin)
        ),
        worse=tuple(sorted(worse, key=lambda entry: entry.fall)),
        unlearned=_costliest_first(unlearned),
    )


def _costliest_first(entries: Iterable[LedgerEntry]) -> tuple[LedgerEntry, ...]:
    return tuple(sorted(entries, key=lambda entry: -entry.loss_after))
