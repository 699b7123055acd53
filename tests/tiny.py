"""A base, rows and a recipe small enough to train inside a test, made from nothing but a seed and the text below."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

END_OF_TEXT = "<|endoftext|>"
VOCABULARY = 512
POSITIONS = 256
SEED = 20

_OPPOSITES = {
    "hot": "cold", "big": "small", "fast": "slow", "high": "low", "wet": "dry", "old": "new", "dark": "light",
    "hard": "soft", "near": "far", "full": "empty", "rich": "poor", "loud": "quiet", "early": "late",
    "strong": "weak", "clean": "dirty", "open": "closed",
}  # fmt: skip
_COLOURS = {
    "grass": "green", "snow": "white", "coal": "black", "the sky": "blue", "a lemon": "yellow", "blood": "red",
    "a carrot": "orange", "a plum": "purple", "chocolate": "brown", "an elephant": "grey", "milk": "white",
    "a frog": "green", "the sea": "blue", "a rose": "red", "sand": "yellow", "a crow": "black",
}  # fmt: skip
_PLURALS = ("cat", "tree", "river", "stone", "cloud", "lamp", "door", "road", "bird", "ship", "song", "king", "hand",
            "book", "field", "coin")  # fmt: skip


def tiny_rows() -> list[dict[str, str]]:
    """64 rows of four kinds, half of them with an input."""
    rows = [
        {
            "instruction": f"What is the opposite of {word}?",
            "input": "",
            "output": f"The opposite of {word} is {other}.",
        }
        for word, other in _OPPOSITES.items()
    ]
    rows += [
        {"instruction": "What colour is it?", "input": thing, "output": colour.capitalize() + "."}
        for thing, colour in _COLOURS.items()
    ]
    rows += [{"instruction": "Give the plural.", "input": noun, "output": f"{noun}s"} for noun in _PLURALS]
    rows += [
        {"instruction": f"Add {left} and {right}.", "input": "", "output": str(left + right)}
        for left, right in ((number, (number * 7) % 10) for number in range(1, 17))
    ]
    return rows


def write_tiny_rows(path: Path) -> Path:
    path.write_text(json.dumps(tiny_rows(), indent=1) + "\n", encoding="utf-8")
    return path


def write_tiny_tokenizer(folder: Path, more_text: Sequence[str] = ()) -> None:
    """tokenizer.json and tokenizer_config.json of a byte-level BPE of 512 entries, `<|endoftext|>` the last.

    Args:
        more_text: what else the merges are learned from.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    from peft_instruct.data.templates import ALPACA

    text = [ALPACA.prompt(row["instruction"], row["input"]) + row["output"] for row in tiny_rows()]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - 1,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator([*text, *more_text], trainer)
    tokenizer.add_special_tokens([END_OF_TEXT])
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=END_OF_TEXT,
        eos_token=END_OF_TEXT,
        model_max_length=POSITIONS,
        clean_up_tokenization_spaces=False,
    ).save_pretrained(str(folder))


def write_tiny_base(folder: Path, *, seed: int = SEED) -> Path:
    """A saved GPT-2 of 2 layers, 64 wide, 4 heads, with its tokenizer."""
    import torch
    from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel

    folder.mkdir(parents=True, exist_ok=True)
    write_tiny_tokenizer(folder)
    num_tokens = len(AutoTokenizer.from_pretrained(str(folder)))
    config = GPT2Config(
        vocab_size=num_tokens,
        n_positions=POSITIONS,
        n_embd=64,
        n_layer=2,
        n_head=4,
        bos_token_id=num_tokens - 1,
        eos_token_id=num_tokens - 1,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = GPT2LMHeadModel(config)
    with torch.no_grad():
        for weights in model.parameters():
            # GPT-2's own scale (0.02) makes every logit of so narrow a model nearly equal: argmax would be rounding.
            if weights.ndim == 2:
                weights.mul_(6.0)
    model.save_pretrained(str(folder))
    return folder


def write_tiny_recipe(path: Path, base: Path, rows: Path) -> Path:
    """LoRA of rank 4 for 12 steps on the CPU in fp32; enough to move every logit."""
    path.write_text(
        f"""\
# The tiny base learns 64 rows by LoRA.
name: tiny-lora
model:
  base: {json.dumps(str(base))}
  dropout: 0.0
method:
  kind: lora
  rank: 4
  alpha: 8
data:
  train: {json.dumps(str(rows))}
  validation_fraction: 0.125
  max_length: 160
training:
  max_steps: 12
  batch_size: 8
  learning_rate: 0.01
  device: cpu
  precision: fp32
  log_every: 4
samples:
  count: 1
  every: end
  max_new_tokens: 8
generation:
  max_new_tokens: 16
evaluation:
  rows: 4
  max_new_tokens: 8
""",
        encoding="utf-8",
    )
    return path


def write_checkpoint_files(folder: Path, step: int) -> None:
    """What a checkpoint of a whole model holds at least, with nothing learned in it."""
    from dataclasses import asdict

    from transformers import TrainerState

    from peft_instruct.training.state_file import write_state

    folder.mkdir(parents=True)
    write_state({}, folder / "state.safetensors")
    write_state({}, folder / "model.safetensors")
    state = json.dumps(asdict(TrainerState(global_step=step, train_batch_size=1)))
    (folder / "trainer_state.json").write_text(state, encoding="utf-8")
    (folder / "metrics.jsonl").write_text('{"step": 0}\n', encoding="utf-8")
    (folder / "config.json").write_text("{}", encoding="utf-8")


def write_whole_model(adapter: Path, folder: Path) -> Path:
    """The adapter merged into a model folder, without the proofs (and the process of its own) of `merge`."""
    from peft_instruct.adapter.folder import load_tuned, open_adapter, write_model
    from peft_instruct.adapter.manifest import stamp_files, write_manifest
    from peft_instruct.environment import HubState
    from peft_instruct.model.device import choose_compute

    opened = open_adapter(adapter)
    tuned = load_tuned(opened, choose_compute("cpu", "fp32"), HubState(False, "a test"))
    write_model(tuned.model.merge_and_unload(), tuned.tokenizer, folder)
    manifest = opened.manifest.model_copy(update={"kind": "merged", "files": stamp_files(folder)})
    write_manifest(folder, manifest)
    return folder
