"""The starter, made again from nothing: text -> tokenizer -> base -> bf16 weights, instructions and a result file.

    python benchmarks/rebuild_starter.py --work DIR             the whole run; --install puts it into the package
    python benchmarks/rebuild_starter.py --work DIR --tenth     a tenth of the text, to see that it works

The seed decides every byte of the text, the tokenizer and the order of rows.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from dataclasses import asdict
from datetime import datetime, timezone
from itertools import islice
from pathlib import Path
from typing import Any

from peft_instruct.commands.train import train
from peft_instruct.environment import prepare_environment
from peft_instruct.starter.world import documents, rows
from peft_instruct.starter.world.__main__ import write_corpus

REPOSITORY = Path(__file__).resolve().parent.parent
STARTER = REPOSITORY / "peft_instruct" / "starter"
RESULT = REPOSITORY / "benchmarks" / "results" / "starter_base.json"
SEED = 0
NUM_DOCUMENTS = 370_000
TOKENIZER_DOCUMENTS = 20_000
VOCABULARY = 2560
POSITIONS = 256
END_OF_TEXT = "<|endoftext|>"
SPLITS = ("train", "validation", "test", "test_unseen_phrasings")


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def write_tokenizer(folder: Path) -> None:
    """A byte-level BPE of its own, `<|endoftext|>` its only special token, and the config that lends it to a recipe."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import GPT2Config, PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(islice(documents(SEED + 1, "train"), TOKENIZER_DOCUMENTS), trainer)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=END_OF_TEXT,
        eos_token=END_OF_TEXT,
        model_max_length=POSITIONS,
        clean_up_tokenization_spaces=False,
    ).save_pretrained(str(folder))
    GPT2Config(vocab_size=tokenizer.get_vocab_size(), n_positions=POSITIONS).save_pretrained(str(folder))


def write_instructions(folder: Path) -> None:
    """The instruction rows in the columns that the toolkit reads: `accepted` answers, and the skill as `group`."""
    folder.mkdir(parents=True, exist_ok=True)
    for split in SPLITS:
        with (folder / f"{split}.jsonl").open("w", encoding="utf-8", newline="\n") as out:
            for row in rows(split, SEED):
                values = asdict(row)
                record = {key: values[key] for key in ("instruction", "input", "output")}
                record |= {"accepted": list(row.answers), "group": row.skill}
                out.write(json.dumps(record, ensure_ascii=False) + "\n")


def write_bf16(trained: Path, folder: Path) -> None:
    """The base as it ships: weights in bf16, config, tokenizer; nothing of the run."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    shutil.rmtree(folder, ignore_errors=True)
    model = AutoModelForCausalLM.from_pretrained(str(trained), dtype=torch.float32).to(torch.bfloat16)
    model.save_pretrained(str(folder))
    AutoTokenizer.from_pretrained(str(trained)).save_pretrained(str(folder))
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config.pop("_name_or_path", None)
    (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    (folder / "model.safetensors").chmod(0o644)


def rebuild(work: Path, num_documents: int) -> dict[str, Any]:
    """Train the base in `work`; returns the record of the result file."""
    work.mkdir(parents=True, exist_ok=True)
    write_corpus(work, SEED, num_documents)
    write_tokenizer(work / "tokenizer")
    write_instructions(work / "instructions")
    result = train(
        str(REPOSITORY / "recipes" / "starter_base.yaml"),
        [
            f"model.base={work / 'tokenizer'}",
            f"data.train={work / 'corpus_train.jsonl'}",
            f"data.validation={work / 'corpus_validation.jsonl'}",
        ],
        out=work / "starter-base",
        if_exists="replace",
        say=say,
    )
    write_bf16(result.folder, work / "base")
    manifest = json.loads((result.folder / "manifest.json").read_text(encoding="utf-8"))
    return {
        "made_by": "python benchmarks/rebuild_starter.py",
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "seed": SEED,
        "num_documents": num_documents,
        "num_steps": result.num_steps,
        "train_seconds": result.train_seconds,
        "held_out": {name: tuned for name, (_, tuned) in result.scores.items()},
        "held_out_rows": result.scored_on,
        "weight_bytes": (work / "base" / "model.safetensors").stat().st_size,
        "peak_memory_bytes": result.peak_memory_bytes,
        "environment": manifest["environment"],
    }


def install(work: Path, record: dict[str, Any]) -> None:
    """Put what was made into the package and its record among the results."""
    for name in ("base", "instructions"):
        shutil.rmtree(STARTER / name, ignore_errors=True)
        shutil.copytree(work / name, STARTER / name)
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="where the text, the run and the result go")
    parser.add_argument("--tenth", action="store_true", help="a tenth of the text")
    parser.add_argument("--install", action="store_true", help="replace the starter in the package")
    options = parser.parse_args()
    prepare_environment([])
    record = rebuild(options.work, NUM_DOCUMENTS // 10 if options.tenth else NUM_DOCUMENTS)
    print(json.dumps(record, indent=2))
    if options.install:
        install(options.work, record)


if __name__ == "__main__":
    main()
