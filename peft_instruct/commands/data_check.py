"""`data check`: every problem of the rows at its place, and a cleaned copy where that is wanted."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path
from typing import Any

from peft_instruct.commands.data_target import is_rows, recipe_of
from peft_instruct.commands.hub_ids import hub_ids_of
from peft_instruct.data.checks.catalogue import CATALOGUE, Finding
from peft_instruct.data.checks.check import CheckedFile, check_files, read_file
from peft_instruct.data.checks.cleaning import Change, clean_file
from peft_instruct.data.sources import COMPRESSED, FILE_KINDS, files_of, is_hub_id
from peft_instruct.data.writing import write_rows
from peft_instruct.environment import prepare_environment
from peft_instruct.errors import DatasetError, RecipeError
from peft_instruct.recipe import Recipe
from peft_instruct.recipe.data_section import Source
from peft_instruct.report.safe_text import one_line

Say = Callable[[str], None]
SEVERITIES = ("error", "warning", "note")
PLACES_SHOWN = 5
SHOWN_WIDTH = 120
_ENDINGS = re.compile(f"(?:{'|'.join(map(re.escape, (*FILE_KINDS, *COMPRESSED)))})+$", re.IGNORECASE)


@dataclass(frozen=True)
class CleanedFile:
    """What `--fix` wrote for one file."""

    source: str
    cleaned: Path
    changes: Path
    num_rows: int
    num_left_out: int
    num_cleaned: int


@dataclass(frozen=True)
class CheckResult:
    """Every finding, by place.

    Attributes:
        counts: rows of each file, those that cannot be read included.
        refusal: why `train` refuses the rows of the recipe beside what was found; empty where it does not.
        shows_all: whether the text names every place.
    """

    counts: dict[str, int]
    findings: tuple[Finding, ...]
    cleaned: tuple[CleanedFile, ...]
    lengths_checked: bool
    refusal: str
    shows_all: bool

    @property
    def has_errors(self) -> bool:
        return bool(self.refusal) or any(finding.kind.severity == "error" for finding in self.findings)

    def record(self) -> dict[str, Any]:
        codes = Counter(finding.code for finding in self.findings)
        return {
            "rows": self.counts,
            "lengths_checked": self.lengths_checked,
            "refusal": self.refusal,
            "kinds": {code: {"count": count, **asdict(CATALOGUE[code])} for code, count in sorted(codes.items())},
            "findings": [
                {**asdict(finding), "severity": finding.kind.severity, "fix": finding.kind.fix}
                for finding in self.findings
            ],
            "cleaned": [
                {**asdict(file), "cleaned": str(file.cleaned), "changes": str(file.changes)} for file in self.cleaned
            ],
        }

    def text(self) -> str:
        lines = [f"{source}: {count:,} rows" for source, count in self.counts.items()]
        by_code: dict[str, list[Finding]] = {}
        for finding in self.findings:
            by_code.setdefault(finding.code, []).append(finding)
        order = list(CATALOGUE)
        for code in sorted(by_code, key=lambda code: (SEVERITIES.index(CATALOGUE[code].severity), order.index(code))):
            lines += ["", *self._kind_lines(code, by_code[code])]
        severities: Counter[str] = Counter(finding.kind.severity for finding in self.findings)
        told = ", ".join(f"{severities[severity]:,} {severity}s" for severity in SEVERITIES)
        lines += ["", f"{told} in {sum(self.counts.values()):,} rows"]
        if self.refusal:
            lines.append(f"lengths were not checked: `train` refuses the rows. {self.refusal}")
        elif not self.lengths_checked:
            lines.append("lengths were not checked: that takes a recipe, whose rows can all be read and are not joined")
        for file in self.cleaned:
            lines.append(
                f"{file.cleaned}: {file.num_rows:,} rows, {file.num_left_out:,} left out, {file.num_cleaned:,} texts "
                f"cleaned; each in {file.changes}"
            )
        return "\n".join(lines)

    def _kind_lines(self, code: str, findings: list[Finding]) -> list[str]:
        kind = CATALOGUE[code]
        shown = findings if self.shows_all else findings[:PLACES_SHOWN]
        left_out = " Left out by --fix." if kind.remedy == "drop" and "--fix" not in kind.fix else ""
        lines = [f"{kind.severity}  {code}: {len(findings):,}. {kind.meaning}. {kind.fix}.{left_out}"]
        for finding in shown:
            part = f" {finding.part}" if finding.part else ""
            lines.append(f"  {finding.origin}{part}: {one_line(finding.detail, SHOWN_WIDTH)}")
        rest = len(findings) - len(shown)
        return [*lines, f"  … and {rest:,} more (--all)"] if rest else lines


def data_check(
    target: str,
    overrides: Sequence[str] = (),
    *,
    against: Sequence[str] = (),
    ignore: Sequence[str] = (),
    fix: bool = False,
    out: Path | None = None,
    shows_all: bool = False,
) -> CheckResult:
    """Find every problem of a recipe's rows, or of a file's.

    Args:
        against: files of evaluation rows that no training row may be among, besides the recipe's own.
        ignore: codes that are not told.
        fix: write a cleaned copy and a log of every change for each training file.
        out: the folder for them; beside each file by default, where the files are named one by one.

    Raises:
        PeftInstructError: nothing could be read, or a file that `fix` would write is there already.
    """
    if out is not None and not fix:
        raise RecipeError("data check: --out goes with --fix, which writes there. Add it, or leave --out away.")
    unknown = [code for code in ignore if code not in CATALOGUE]
    if unknown:
        raise RecipeError(f"--ignore {unknown[0]}: no such kind. `peft-instruct data kinds` lists them.")
    recipe = recipe_of(target, overrides)
    # Rows alone have no model to fetch, but may be on the hub themselves.
    named = filter(is_hub_id, recipe.data.all_names()) if is_rows(target) else hub_ids_of(recipe)
    prepare_environment([*named, *filter(is_hub_id, against)])
    if fix and out is None:
        _refuse_among_others(recipe.data.sources())
    train = _files(recipe.data.sources(), recipe)
    others = [*filter(None, (recipe.data.validation, recipe.data.test)), *against]
    held_out = _files([Source(source=name) for name in others], recipe)
    findings = check_files(train, held_out, ignore)
    too_long, refusal = None, ""
    if not is_rows(target):
        from peft_instruct.commands.data_lengths import overlong

        try:
            too_long = overlong(recipe, findings)
        except DatasetError as error:
            refusal = str(error)
    findings = [finding for finding in [*findings, *(too_long or ())] if finding.code not in ignore]
    cleaned = _cleaned(train, findings, out, ignore) if fix else ()
    return CheckResult(
        {file.source: len(file.rows) + len(file.broken) for file in (*train, *held_out)},
        tuple(findings),
        cleaned,
        too_long is not None,
        refusal,
        shows_all,
    )


def _refuse_among_others(sources: Sequence[Source]) -> None:
    """
    Raises:
        DatasetError: a folder or a pattern is a source.
    """
    for source in sources:
        if files_of(source.source) not in ([], [source.source]):
            raise DatasetError(
                f"{source.source}: several files. Name a folder for the cleaned rows with --out: beside the files they "
                "would be read with them the next time."
            )


def _files(sources: Sequence[Source], recipe: Recipe) -> list[CheckedFile]:
    section = recipe.data
    return [
        read_file(
            file,
            source.format or section.format,
            source.columns or section.columns,
            source.revision or section.revision,
        )
        for source in sources
        for file in files_of(source.source) or [source.source]
    ]


def _cleaned(
    files: Sequence[CheckedFile], findings: Sequence[Finding], out: Path | None, ignore: Sequence[str]
) -> tuple[CleanedFile, ...]:
    """Write the cleaned rows and the log of each file, once it is known that all of them can be.

    Raises:
        DatasetError: one of them is there already, a source is no file and no folder is named, or one could not be
            read to its end.
    """
    targets: list[tuple[Path, Path]] = []
    for file in files:
        source = Path(file.source)
        if file.unread:
            raise DatasetError(
                f"{file.unread}: nothing behind this place could be read, and a cleaned copy would lack it. Mend it "
                "there first."
            )
        if out is None and not source.is_file():
            raise DatasetError(f"{file.source}: is no file here. Name a folder for the cleaned rows with --out.")
        targets.append(_free_pair(source.parent if out is None else out, source.name, targets))
    for path in (path for pair in targets for path in pair):
        if path.exists():
            raise DatasetError(f"{path}: is there already. Remove it, or name another folder with --out.")
    return tuple(_clean(file, findings, pair, ignore) for file, pair in zip(files, targets, strict=True))


def _free_pair(folder: Path, name: str, taken: Sequence[tuple[Path, Path]]) -> tuple[Path, Path]:
    """Where a file's cleaned rows and its changes go; several of one name are numbered."""
    stem = _ENDINGS.sub("", name) or "rows"
    for number in count(1):
        each = stem if number == 1 else f"{stem}-{number}"
        pair = folder / f"{each}.cleaned.jsonl", folder / f"{each}.changes.jsonl"
        if pair not in taken:
            break
    return pair


def _clean(
    file: CheckedFile, findings: Sequence[Finding], paths: tuple[Path, Path], ignore: Sequence[str]
) -> CleanedFile:
    origins = {row.origin for row in file.rows}
    own = [finding for finding in findings if finding.origin in origins]
    cleaned = clean_file(file, own, ignore)
    paths[0].parent.mkdir(parents=True, exist_ok=True)
    write_rows(paths[0], cleaned.rows)
    write_rows(paths[1], [asdict(change) for change in cleaned.changes])
    return CleanedFile(file.source, *paths, len(cleaned.rows), *_tally(cleaned.changes))


def _tally(changes: Sequence[Change]) -> tuple[int, int]:
    num_left_out = sum(change.action == "left out" for change in changes)
    return num_left_out, len(changes) - num_left_out
