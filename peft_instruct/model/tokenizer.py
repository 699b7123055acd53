"""The base's tokenizer, refused where it would train on nonsense in silence."""

from __future__ import annotations

from pathlib import Path

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from peft_instruct.data.chat_templates import own_template
from peft_instruct.data.template import Template
from peft_instruct.data.tokens import special_tokens
from peft_instruct.errors import ModelError, first_line
from peft_instruct.model.screening import tokenizer_problems

PROBE = 'Name 3 colours: red, "green" & blue.\n\n### Response:\nIt’s 100 % – naïve café, 東京 🙂\n'
SMALLEST_VOCABULARY = 256


def load_tokenizer(folder: Path, place: str = "model.base", stop: str = "") -> PreTrainedTokenizerBase:
    """The tokenizer of a folder, with pad = eos where it has no pad token.

    Args:
        stop: the special token that is to end a completion, where the tokenizer has it; its eos token from then on,
            in every use and in every export.

    Raises:
        ModelError: no tokenizer files, an empty vocabulary (transformers 5.23 makes a 1-token GPT-2 tokenizer of a
            folder without files: tokenization_gpt2.py, `vocab or {}`), text that does not come back, or no
            end-of-text token.
    """
    refused = tokenizer_problems(folder)
    if refused:
        raise ModelError.of(f"{place}: {folder.name}", [f"{problem}. Refused." for problem in refused])
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(folder), trust_remote_code=False)
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RuntimeError) as error:
        raise ModelError(f"{place}: no usable tokenizer in {folder.name} ({first_line(error)}).") from error
    if len(tokenizer) < SMALLEST_VOCABULARY:
        raise ModelError(
            f"{place}: the tokenizer in {folder.name} knows {len(tokenizer)} tokens. expected tokenizer.json, or "
            "vocab.json and merges.txt, beside config.json. Copy them there, or name a tokenizer under model.tokenizer."
        )
    ids = tokenizer(PROBE, add_special_tokens=False)["input_ids"]
    back = tokenizer.decode(ids, clean_up_tokenization_spaces=False)
    if back.strip() != PROBE.strip():
        raise ModelError(f"{place}: the tokenizer in {folder.name} does not give text back ({back[:60]!r}).")
    if tokenizer.eos_token_id is None:
        raise ModelError(f"{place}: the tokenizer in {folder.name} has no end-of-text token, so nothing could stop.")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    if stop in special_tokens(tokenizer):
        tokenizer.eos_token = stop
    return tokenizer


def template_in(folder: Path, named: object, place: str = "model.base") -> Template | None:
    """The chat template of the tokenizer in a folder, where the recipe names that one.

    Raises:
        ModelError: as `load_tokenizer` does.
        RecipeError: as `own_template` does.
    """
    return own_template(load_tokenizer(folder, place)) if named == "tokenizer" else None


def check_fits(tokenizer: PreTrainedTokenizerBase, vocabulary_size: int, place: str = "model.base") -> None:
    """Refuse a tokenizer whose ids the embedding does not have.

    Raises:
        ModelError: an id at or beyond the model's vocabulary.
    """
    largest = max(tokenizer.get_vocab().values())
    if largest >= vocabulary_size:
        raise ModelError(
            f"{place}: the tokenizer's largest id is {largest}, the model's vocabulary has {vocabulary_size} rows. "
            "They do not belong together: name the model's own tokenizer under model.tokenizer, or remove that key."
        )
