"""Writes the corpus and the instruction files: `python -m peft_instruct.starter.world --out DIR`."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Iterable, Mapping
from itertools import islice
from pathlib import Path

from peft_instruct.starter.world.corpus import documents
from peft_instruct.starter.world.instructions import ROWS_PER_SKILL, rows

VALIDATION_DOCUMENTS = 500


def write_jsonl(path: Path, records: Iterable[Mapping[str, object]]) -> None:
    """One JSON object per line, UTF-8, newline at the end."""
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for record in records:
            file.write(json.dumps(record, ensure_ascii=False) + "\n")


def write_instructions(folder: Path, seed: int) -> None:
    """Writes the four instruction files."""
    for name in ROWS_PER_SKILL:
        write_jsonl(folder / f"{name}.jsonl", (dataclasses.asdict(row) for row in rows(name, seed)))


def write_corpus(folder: Path, seed: int, num_documents: int) -> None:
    """Writes `corpus_train.jsonl` and `corpus_validation.jsonl`."""
    for stream, count in (("train", num_documents), ("validation", VALIDATION_DOCUMENTS)):
        texts = islice(documents(seed, stream), count)
        write_jsonl(folder / f"corpus_{stream}.jsonl", ({"text": text} for text in texts))


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m peft_instruct.starter.world", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder to write to; made if it is not there")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--documents", type=int, default=100_000, help="documents in corpus_train.jsonl")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    write_corpus(options.out, options.seed, options.documents)
    write_instructions(options.out, options.seed)
    print(f"wrote {options.documents} documents and the instruction files to {options.out}", file=sys.stderr)


if __name__ == "__main__":
    main()
