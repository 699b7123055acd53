"""Reads the word tables and the phrasings that lie beside this module."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from peft_instruct.starter.world.station import Question

FOLDER = Path(__file__).parent
ABSENT = "-"


@cache
def table(name: str) -> tuple[tuple[str, ...], ...]:
    """The rows of `lexicon/<name>.tsv`, each a tuple of its tab-separated cells."""
    lines = (FOLDER / "lexicon" / f"{name}.tsv").read_text(encoding="utf-8").splitlines()
    return tuple(tuple(cell.strip() for cell in line.split("\t")) for line in lines if line.strip())


@cache
def words(name: str) -> tuple[str, ...]:
    """The first cells of a table."""
    return tuple(cells[0] for cells in table(name))


def alternatives(cell: str) -> tuple[str, ...]:
    """The comma-separated answers in a cell; none for a dash."""
    return () if cell == ABSENT else tuple(part.strip() for part in cell.split(","))


def question(line: str) -> Question:
    """Parses `instruction | input >> output`; input and output may be left out."""
    asked, _, output = line.partition(" >> ")
    instruction, _, given = asked.partition(" | ")
    return Question(instruction.strip(), given.strip(), output.strip() or "{answer}")


@cache
def listed(name: str) -> tuple[str, ...]:
    """The named list of `lexicon/lists.tsv`."""
    return next(alternatives(members) for key, members in table("lists") if key == name)


@cache
def phrasings() -> dict[str, dict[str, tuple[str, ...]]]:
    """Skill name -> section (statements, questions, unseen) -> lines, from all of `phrasings/*.txt`."""
    skills: dict[str, dict[str, tuple[str, ...]]] = {}
    for path in sorted((FOLDER / "phrasings").glob("*.txt")):
        sections: dict[str, list[str]] = {}
        name = section = ""
        for line in path.read_text(encoding="utf-8").splitlines():
            if line.startswith("== "):
                name = line[3:].strip()
                sections = {"statements": [], "questions": [], "unseen": []}
            elif line.startswith("- "):
                section = line[2:].strip()
            elif line.strip():
                sections[section].append(line.strip())
            if name:
                skills[name] = {key: tuple(lines) for key, lines in sections.items()}
    return skills
