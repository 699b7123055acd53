"""A tokenizer that would train on nonsense in silence is refused."""

from __future__ import annotations

import contextlib
import json
import shutil
from pathlib import Path

import pytest
from tiny import END_OF_TEXT, VOCABULARY, write_tiny_tokenizer

from peft_instruct.errors import ModelError
from peft_instruct.model.tokenizer import check_fits, load_tokenizer


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_tiny_tokenizer(tmp_path)
    return tmp_path


def _change(folder: Path, file: str, **values: object) -> None:
    path = folder / file
    content = json.loads(path.read_text()) | values
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))


def _refusal(folder: Path) -> str:
    with pytest.raises(ModelError) as caught:
        load_tokenizer(folder)
    message = str(caught.value)
    assert message.startswith("model.base: ")
    assert "\n" not in message
    return message


def test_pad_is_the_stop_token_where_there_is_none(folder: Path) -> None:
    tokenizer = load_tokenizer(folder)
    assert tokenizer.pad_token_id == tokenizer.eos_token_id == VOCABULARY - 1
    assert len(tokenizer) == VOCABULARY, "no token was added"


def test_a_pad_token_of_its_own_is_kept(folder: Path) -> None:
    _change(folder, "tokenizer_config.json", pad_token="!")
    assert load_tokenizer(folder).pad_token == "!"


def test_gpt2_without_tokenizer_files_is_refused_and_not_loaded_with_one_token(tmp_path: Path) -> None:
    """transformers 5.23 makes a GPT-2 tokenizer of `<|endoftext|>` alone of such a folder."""
    from transformers import AutoTokenizer, GPT2Config

    GPT2Config().save_pretrained(str(tmp_path))
    trap = AutoTokenizer.from_pretrained(str(tmp_path))
    assert trap("Hello world")["input_ids"] == [], "the trap is still there"
    message = _refusal(tmp_path)
    assert f"knows {len(trap)} tokens" in message
    assert "vocab.json and merges.txt" in message


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    assert "tokenizer" in _refusal(tmp_path)


def test_a_damaged_tokenizer_file_is_refused(folder: Path) -> None:
    (folder / "tokenizer.json").write_text('{"version": "1.0"')
    _refusal(folder)


def test_a_tokenizer_that_loses_text_is_refused(folder: Path) -> None:
    """Lower-casing, as an uncased BERT does."""
    _change(folder, "tokenizer.json", normalizer={"type": "Lowercase"})
    assert "does not give text back" in _refusal(folder)


def test_a_tokenizer_without_a_stop_token_is_refused(folder: Path) -> None:
    _change(folder, "tokenizer_config.json", eos_token=None, bos_token=None, pad_token="!")
    assert "no end-of-text token" in _refusal(folder)


def test_code_of_the_folder_is_not_run(folder: Path) -> None:
    (folder / "evil.py").write_text("raise SystemExit('ran')\n")
    _change(folder, "tokenizer_config.json", auto_map={"AutoTokenizer": ["evil.Evil", None]}, tokenizer_class="Evil")
    # Whether it can be read without the code is the library's business.
    with contextlib.suppress(ModelError):
        load_tokenizer(folder)


def test_a_tokenizer_of_more_tokens_than_the_model_has_is_refused(folder: Path) -> None:
    tokenizer = load_tokenizer(folder)
    check_fits(tokenizer, VOCABULARY)
    check_fits(tokenizer, VOCABULARY + 100)
    with pytest.raises(ModelError, match=f"largest id is {VOCABULARY - 1}, the model's vocabulary has 400 rows"):
        check_fits(tokenizer, 400)


def test_gpt2s_own_files_make_gpt2s_own_tokenizer(gpt2_tokenizer: object, shared_data: Path) -> None:
    assert len(gpt2_tokenizer) == 50257  # type: ignore[arg-type]
    assert gpt2_tokenizer.eos_token_id == gpt2_tokenizer.pad_token_id == 50256  # type: ignore[attr-defined]
    assert gpt2_tokenizer(END_OF_TEXT, split_special_tokens=True)["input_ids"] != [50256]  # type: ignore[operator]


def test_one_file_of_the_two_is_not_enough(tmp_path: Path, shared_data: Path) -> None:
    shutil.copyfile(shared_data / "gpt2" / "vocab.json", tmp_path / "vocab.json")
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "GPT2Tokenizer"}')
    _refusal(tmp_path)
