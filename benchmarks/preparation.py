"""Rows of a file until a trainer may begin: ours and SFTTrainer's own preparation, alternating, cold and cached.

    python benchmarks/preparation.py --base DIR --data alpaca.json

`--base` is a folder with GPT-2 124M (any weights), `--data` any Alpaca-format file: until there are `--rows`, all its
rows come again with every word exchanged for another as frequent, the rarest for new ones. So lengths, punctuation and
frequencies of words are those of real rows, and no near-duplicates are made. Every measurement is a process of its own,
with the imports before the clock. Ours reads, checks, renders, finds near-duplicates, splits and tokenises. TRL's is
its documentation's way: `load_dataset`, a `map` to prompt and completion, and the constructor, which tokenises; seconds
are given with the reading and for the constructor alone. Cold is with an empty cache folder, warm the run after it.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent
RESULT = REPOSITORY / "benchmarks" / "results" / "preparation.json"
PROGRAMS = ("ours", "trl")
LENGTH = 512
TEXTS = ("instruction", "input", "output")
WORD = re.compile(r"[A-Za-z]+")
AS_FREQUENT = 20
"""Words of neighbouring rank that are exchanged for each other."""


def ours(rows: Path, base: Path) -> dict[str, Any]:
    from peft_instruct.environment import keep_freed_memory

    keep_freed_memory()  # as every command of ours does
    from peft_instruct.data.cache import Cache
    from peft_instruct.data.prepared import Preparation
    from peft_instruct.model.tokenizer import load_tokenizer
    from peft_instruct.recipe.data_section import DataSection
    from peft_instruct.training.collator import as_dataset

    tokenizer = load_tokenizer(base)
    section = DataSection(train=str(rows), max_length=LENGTH)
    start = time.perf_counter()
    preparation = Preparation(section, 0, Cache.of_user())
    tokens, _ = preparation.rows("train", preparation.data().train, tokenizer)
    dataset = as_dataset(tokens)
    return {"seconds": time.perf_counter() - start, "num_rows": len(dataset), "num_tokens": len(tokens.ids)}


def trl(rows: Path, base: Path) -> dict[str, Any]:
    import torch
    from datasets import load_dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    from peft_instruct.data.templates import ALPACA

    model = AutoModelForCausalLM.from_pretrained(base)
    tokenizer = AutoTokenizer.from_pretrained(base)
    arguments = SFTConfig(output_dir=os.environ["HF_HOME"], max_length=LENGTH, report_to="none", use_cpu=True)
    torch.manual_seed(0)

    def pair(row: dict[str, str]) -> dict[str, str]:
        return {"prompt": str(ALPACA.prompt(row["instruction"], row["input"])), "completion": row["output"]}

    start = time.perf_counter()
    dataset = load_dataset("json", data_files=str(rows), split="train")
    dataset = dataset.filter(lambda row: bool(row["output"].strip()))
    dataset = dataset.map(pair, remove_columns=dataset.column_names)
    dataset = dataset.train_test_split(0.05, seed=0)["train"]
    read = time.perf_counter()
    trainer = SFTTrainer(model=model, args=arguments, train_dataset=dataset, processing_class=tokenizer)
    end = time.perf_counter()
    lengths = [len(ids) for ids in trainer.train_dataset["input_ids"]]
    return {
        "seconds": end - start,
        "constructor_seconds": end - read,
        "num_rows": len(lengths),
        "num_tokens": sum(lengths),
    }


def make_rows(data: Path, count: int, out: Path) -> None:
    """Rows of the file, then all of them again with other words, until there are so many."""
    rows = read_rows(data)
    words = Counter(word.lower() for row in rows for key in TEXTS for word in WORD.findall(row[key]))
    chance = random.Random(0)
    made: list[dict[str, str]] = list(rows)
    while len(made) < count:
        others = exchanged(words, chance)
        made += [{key: in_other_words(row[key], others) for key in TEXTS} for row in rows]
    out.write_text(json.dumps(made[:count]), encoding="utf-8")


def read_rows(data: Path) -> list[dict[str, str]]:
    text = data.read_text(encoding="utf-8")
    rows = [json.loads(line) for line in text.splitlines()] if data.suffix == ".jsonl" else json.loads(text)
    return [{key: row.get(key, "") for key in TEXTS} for row in rows]


def exchanged(words: Counter[str], chance: random.Random) -> dict[str, str]:
    """For every word another that is as frequent; for those that come once one that is in no other row."""
    ranked = [word for word, _ in words.most_common()]
    others: list[str] = []
    for start in range(0, len(ranked), AS_FREQUENT):
        some = ranked[start : start + AS_FREQUENT]
        others += chance.sample(some, len(some))
    pairs = zip(ranked, others, strict=True)
    return {
        word: other if words[word] > 1 else other[: len(other) // 2] + chance.choice(ranked)[-3:]
        for word, other in pairs
    }


def in_other_words(text: str, others: dict[str, str]) -> str:
    def other(found: re.Match[str]) -> str:
        word, other = found[0], others[found[0].lower()]
        return other.upper() if word.isupper() and len(word) > 1 else other.capitalize() if word[0].isupper() else other

    return WORD.sub(other, text)


def measured(program: str, rows: Path, base: Path, cache: Path) -> dict[str, Any]:
    environment = {
        **os.environ,
        "PYTHONPATH": str(REPOSITORY),
        "HF_HOME": str(cache / "hf"),
        "PEFT_INSTRUCT_CACHE": str(cache / "ours"),
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "true",
    }
    asked = [sys.executable, __file__, "--measure", program, "--base", str(base), "--data", str(rows)]
    done = subprocess.run(asked, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise SystemExit(f"{program}: {done.stderr[-2000:]}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def compare(base: Path, data: Path, count: int, num_rounds: int) -> dict[str, Any]:
    rounds = []
    with tempfile.TemporaryDirectory(prefix="preparation-") as folder:
        rows = Path(folder) / "rows.json"
        make_rows(data, count, rows)
        for number in range(num_rounds):
            round_: dict[str, Any] = {}
            for program in PROGRAMS if number % 2 == 0 else PROGRAMS[::-1]:
                cache = Path(folder) / f"{number}-{program}"
                for state in ("cold", "warm"):
                    round_[f"{program} {state}"] = found = measured(program, rows, base, cache)
                    print(f"round {number + 1}: {program} {state}: {found['seconds']:.2f} s", file=sys.stderr)
            rounds.append(round_)
    return {"num_rows": count, "rounds": rounds, **summary(rounds)}


def summary(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """Medians of the seconds, and of the ratios within a round."""
    names = list(rounds[0])

    def ratio(theirs: str, figure: str, ours: str) -> float:
        return round(statistics.median(each[theirs][figure] / each[ours]["seconds"] for each in rounds), 2)

    return {
        "median_seconds": {name: round(statistics.median(r[name]["seconds"] for r in rounds), 2) for name in names},
        "trl_by_ours_cold": ratio("trl cold", "seconds", "ours cold"),
        "trl_constructor_alone_by_ours_cold": ratio("trl cold", "constructor_seconds", "ours cold"),
        "trl_by_ours_warm": ratio("trl warm", "seconds", "ours warm"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=52_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=RESULT)
    parser.add_argument("--measure", choices=PROGRAMS, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.measure:
        print(json.dumps({"ours": ours, "trl": trl}[asked.measure](asked.data, asked.base)))
        return
    from peft_instruct.environment import library_versions
    from peft_instruct.model.device import choose_compute, environment_stamp

    result = {
        "made": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "environment": environment_stamp(choose_compute("cpu", "fp32")) | {"versions": library_versions()},
        **compare(asked.base.resolve(), asked.data, asked.rows, asked.rounds),
    }
    asked.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps({key: result[key] for key in result if key.startswith(("median", "trl_"))}, indent=1))


if __name__ == "__main__":
    main()
