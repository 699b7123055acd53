"""`data kinds`: the catalogue of `data check`."""

from __future__ import annotations

from peft_instruct.commands.recipes import Table
from peft_instruct.data.checks.catalogue import CATALOGUE


def data_kinds() -> Table:
    """Code, severity, meaning, fix, and what `--fix` does, of every kind."""
    columns = ("kind", "severity", "meaning", "fix", "--fix")
    return Table(
        columns,
        tuple((kind.code, kind.severity, kind.meaning, kind.fix, kind.remedy) for kind in CATALOGUE.values()),
    )
