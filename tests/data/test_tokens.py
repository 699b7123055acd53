"""The mask contract: what is trained is the completion and one stop token, whatever the text."""

from __future__ import annotations

import copy
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st
from tiny import END_OF_TEXT, VOCABULARY, tiny_rows, write_tiny_tokenizer

from peft_instruct.data import tokens as tokens_module
from peft_instruct.data.packing import pack
from peft_instruct.data.templates import ALPACA, PLAIN
from peft_instruct.data.tokens import prompt_ids, tokenize
from peft_instruct.data.types import IGNORED_LABEL, Prompt, PromptCompletion, Span, Tokens
from peft_instruct.data.units import Units, is_cut_before_spaces, text_ids
from peft_instruct.errors import DatasetError

MORE_THAN_ENOUGH = 10_000


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    from peft_instruct.model.tokenizer import load_tokenizer

    folder = tmp_path_factory.mktemp("tokenizer")
    write_tiny_tokenizer(folder)
    return load_tokenizer(folder)


def _one(tokenizer: Any, prompt: str, completion: str) -> Tokens:
    ((tokens,), _) = tokenize([PromptCompletion(prompt, completion, "here")], tokenizer, max_length=MORE_THAN_ENOUGH)
    return tokens


def _decode(tokenizer: Any, ids: Any) -> str:
    return str(tokenizer.decode(list(ids), clean_up_tokenization_spaces=False))


ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
NASTY = st.sampled_from(
    [END_OF_TEXT, " ", "\n", "\n\n", "\r\n", "### Response:\n", "{input}", "\u200b", "\x00", "🙂", "é", "é"]
)
TEXT = st.lists(st.one_of(ANY_TEXT, NASTY), max_size=4).map("".join)


@settings(max_examples=300, deadline=None, phases=(Phase.explicit, Phase.generate, Phase.shrink))
@given(prompt=TEXT, completion=TEXT)
@example(prompt=f"Say {END_OF_TEXT}", completion=f"{END_OF_TEXT}{END_OF_TEXT}")
@example(prompt="a:", completion='"quoted"')
@example(prompt="a\n", completion="\n\nb")
@example(prompt="a ", completion="b")
@example(prompt="", completion="")
def test_the_completion_and_one_stop_token_are_trained_and_nothing_else(
    tokenizer: Any, prompt: str, completion: str
) -> None:
    tokens = _one(tokenizer, prompt, completion)
    stop = tokenizer.eos_token_id
    trained = [label for label in tokens.labels if label != IGNORED_LABEL]
    assert trained[-1] == stop and trained.count(stop) == 1, "exactly one supervised stop token, at the end"
    assert tokens.input_ids.count(stop) == 1, "text that spells the stop token is text"
    assert _decode(tokenizer, trained[:-1]) == completion
    assert _decode(tokenizer, tokens.input_ids) == prompt + completion + END_OF_TEXT
    assert tokens.labels[: tokens.prompt_length] == (IGNORED_LABEL,) * tokens.prompt_length
    assert tokens.labels[tokens.prompt_length :] == tokens.input_ids[tokens.prompt_length :]


def test_how_many_rows_are_tokenised_at_once_plays_no_part(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [
        PromptCompletion(ALPACA.prompt(row["instruction"], row["input"]), row["output"], f"row {number}")
        for number, row in enumerate(tiny_rows())
    ]
    whole, report = tokenize(rows, tokenizer, max_length=48)
    assert report.truncated and len(whole) == len(rows)
    monkeypatch.setattr(tokens_module, "ROWS_AT_ONCE", 5)
    parts, same = tokenize(rows, tokenizer, max_length=48)
    assert list(parts) == list(whole) and same == report


def test_words_are_forgotten_before_they_are_too_many(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [PromptCompletion(f"Say {number}.", f"{number} it is", "here") for number in range(40)]
    assert is_cut_before_spaces(tokenizer)
    whole, _ = tokenize(rows, tokenizer, max_length=MORE_THAN_ENOUGH)
    held = []
    numbers = Units.numbers

    def watched(units: Any, *arguments: Any) -> Any:
        found = numbers(units, *arguments)
        held.append(len(units))
        return found

    monkeypatch.setattr(tokens_module, "ROWS_AT_ONCE", 5)
    monkeypatch.setattr(tokens_module, "MOST_KNOWN", 20)
    monkeypatch.setattr(Units, "numbers", watched)
    parts, _ = tokenize(rows, tokenizer, max_length=MORE_THAN_ENOUGH)
    assert list(parts) == list(whole)
    # Each batch brings 10 words of its own and 4 units that all have.
    assert 20 < max(held) <= 34


@settings(max_examples=100, deadline=None, phases=(Phase.explicit, Phase.generate, Phase.shrink))
@given(prompt=TEXT, completion=TEXT)
def test_the_prompt_of_training_is_the_prompt_of_generation(tokenizer: Any, prompt: str, completion: str) -> None:
    tokens = _one(tokenizer, prompt, completion)
    assert list(tokens.input_ids[: tokens.prompt_length]) == prompt_ids(tokenizer, [prompt])[0]


@settings(max_examples=50, deadline=None, phases=(Phase.explicit, Phase.generate, Phase.shrink))
@given(texts=st.lists(TEXT, max_size=5))
def test_texts_have_the_same_ids_together_and_alone(tokenizer: Any, texts: list[str]) -> None:
    assert text_ids(tokenizer, texts) == [text_ids(tokenizer, [text])[0] for text in texts]


def test_a_tokenizer_that_begins_texts_begins_the_prompt_once(tokenizer: Any, tmp_path: Path) -> None:
    """As Llama's does: the beginning-of-text token stands before the prompt, and not before the completion."""
    from tokenizers import processors
    from transformers import AutoTokenizer

    write_tiny_tokenizer(tmp_path)
    beginning = AutoTokenizer.from_pretrained(str(tmp_path))
    stop = beginning.eos_token_id
    beginning._tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{END_OF_TEXT} $A", pair=f"{END_OF_TEXT} $A $B", special_tokens=[(END_OF_TEXT, stop)]
    )
    assert beginning("x")["input_ids"][0] == stop
    plain, begun = _one(tokenizer, "Say hi.\n", "Hi."), _one(beginning, "Say hi.\n", "Hi.")
    assert begun.input_ids == (stop, *plain.input_ids)
    assert begun.labels == (IGNORED_LABEL, *plain.labels)
    row = PromptCompletion("Say hi, and say it twice.\n", "Hi.", "here")
    ((cut,), report) = tokenize([row], beginning, max_length=len(begun.input_ids))
    assert report.truncated == ["here"]
    assert cut.input_ids == (stop, *_one(tokenizer, row.prompt, row.completion).input_ids[1 - len(begun.input_ids) :])


def _row(prompt_tokens: int, completion_tokens: int, origin: str = "here") -> PromptCompletion:
    """Texts of so many tokens in the tokenizer of letters below."""
    return PromptCompletion("p" * prompt_tokens, "c" * completion_tokens, origin)


class Letters:
    """A tokenizer of one token a letter, so that lengths are plain; 0 stops."""

    eos_token_id = 0
    bos_token_id = None

    def __call__(self, text: str | list[str], **_: Any) -> dict[str, Any]:
        if isinstance(text, str):
            return {"input_ids": [ord(letter) for letter in text]}
        return {"input_ids": [[ord(letter) for letter in one] for one in text]}


LETTERS = Letters()


@pytest.mark.parametrize(
    ("prompt", "completion", "kept_prompt", "kept_completion", "truncated", "stopless"),
    [
        (4, 3, 4, 4, False, False),  # 8 tokens with the stop token: fits exactly
        (5, 3, 4, 4, True, False),  # one too many: the prompt loses its first token
        (20, 3, 4, 4, True, False),
        (3, 20, 2, 6, True, True),  # a quarter of the prompt stays, the completion loses its stop token
        (1, 7, 1, 7, False, True),  # the prompt is a quarter or less: the completion alone is cut
        (1, 20, 1, 7, False, True),
        (20, 20, 2, 6, True, True),
        (0, 20, 0, 8, False, True),
        (20, 0, 7, 1, True, False),  # an empty completion keeps its stop token
    ],
)
def test_an_overlong_row_is_cut_from_the_left_of_its_prompt_and_counted(
    prompt: int, completion: int, kept_prompt: int, kept_completion: int, truncated: bool, stopless: bool
) -> None:
    ((tokens,), report) = tokenize([_row(prompt, completion)], LETTERS, max_length=8)
    assert tokens.prompt_length == kept_prompt
    assert len(tokens.input_ids) == kept_prompt + kept_completion
    assert (tokens.input_ids[-1] == 0) is not stopless
    assert report.truncated == (["here"] if truncated else [])
    assert report.stopless == (["here"] if stopless else [])
    assert report.longest == prompt + completion + 1
    assert report.num_tokens == len(tokens.input_ids)
    assert report.num_completion_tokens == kept_completion


def test_the_end_of_a_prompt_survives_truncation() -> None:
    row = PromptCompletion("abcdefgh", "xy", "here")
    ((tokens,), _) = tokenize([row], LETTERS, max_length=8)
    assert "".join(map(chr, tokens.input_ids[: tokens.prompt_length])) == "defgh"


@settings(max_examples=200, deadline=None)
@given(
    lengths=st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), min_size=1, max_size=6),
    max_length=st.integers(4, 48),
)
def test_no_row_is_lost_or_longer_than_the_limit_without_being_named(
    lengths: list[tuple[int, int]], max_length: int
) -> None:
    rows = [_row(prompt, completion, f"row {number}") for number, (prompt, completion) in enumerate(lengths)]
    kept, report = tokenize(rows, LETTERS, max_length=max_length)
    assert [tokens.origin for tokens in kept] == [row.origin for row in rows]
    for tokens, (prompt, completion) in zip(kept, lengths, strict=True):
        assert len(tokens.input_ids) == min(prompt + completion + 1, max_length)
        assert len(tokens.labels) == len(tokens.input_ids)
        assert any(label != IGNORED_LABEL for label in tokens.labels), "every kept row teaches something"
        assert (tokens.prompt_length < prompt) == (tokens.origin in report.truncated)
        assert (tokens.labels[-1] != 0) == (tokens.origin in report.stopless)
    dropped, dropping = [], []
    if any(p + c + 1 <= max_length for p, c in lengths):
        dropped, report = tokenize(rows, LETTERS, max_length=max_length, overlong="drop")
        dropping = report.dropped
        assert sorted([tokens.origin for tokens in dropped] + dropping) == sorted(row.origin for row in rows)
        assert all(tokens.labels[-1] == 0 for tokens in dropped), "every kept row has its stop token"


def test_overlong_rows_are_errors_where_the_recipe_says_so() -> None:
    rows = [_row(4, 3, "f.json:1"), _row(9, 3, "f.json:2"), _row(4, 30, "f.json:3")]
    with pytest.raises(DatasetError) as caught:
        tokenize(rows, LETTERS, max_length=8, overlong="error")
    assert str(caught.value).split("\n") == [
        "data.overlong: error: 2 problems",
        "  f.json:2: 13 tokens. expected at most max_length 8.",
        "  f.json:3: 35 tokens. expected at most max_length 8.",
    ]


def test_a_limit_that_leaves_no_row_is_an_error() -> None:
    with pytest.raises(
        DatasetError, match=r"data.max_length: 8 leaves none of the 2 rows \(the longest has 13 tokens\)"
    ):
        tokenize([_row(9, 3), _row(8, 3)], LETTERS, max_length=8, overlong="drop")


@settings(max_examples=200, deadline=None)
@given(lengths=st.lists(st.integers(0, 20), min_size=1, max_size=8), length=st.integers(1, 12))
def test_packing_loses_no_token_and_fills_every_row_but_the_last(lengths: list[int], length: int) -> None:
    texts = ["".join(chr(97 + (number * 7 + at) % 26) for at in range(size)) for number, size in enumerate(lengths)]
    rows, _ = tokenize(
        [PromptCompletion("", text, f"row {number}") for number, text in enumerate(texts)], LETTERS, max_length=100
    )
    packed = pack(rows, length)
    assert [i for tokens in packed for i in tokens.input_ids] == [i for tokens in rows for i in tokens.input_ids]
    assert all(len(tokens.input_ids) == length for tokens in packed[:-1])
    assert 1 <= len(packed[-1].input_ids) <= length
    assert all(tokens.labels == tokens.input_ids and tokens.prompt_length == 0 for tokens in packed)


def test_a_packed_row_names_the_row_where_it_begins() -> None:
    rows, _ = tokenize([PromptCompletion("", text, text) for text in ("abc", "de", "f")], LETTERS, max_length=100)
    # abc. de. f. in rows of 3: abc | .de | .f.
    assert [tokens.origin for tokens in pack(rows, 3)] == ["from abc", "from abc", "from de"]
    # In rows of 4 every row begins with a document: abc. | de.f | .
    assert [tokens.origin for tokens in pack(rows, 4)] == ["from abc", "from de", "from f"]


def test_the_tiny_rows_train_only_what_they_answer(tokenizer: Any) -> None:
    """Closed form: labels that are not masked = tokens of the outputs + one stop token a row."""
    pairs = [
        PromptCompletion(template.prompt(row["instruction"], row["input"]), row["output"], "here")
        for row in tiny_rows()
        for template in (ALPACA, PLAIN)
    ]
    kept, report = tokenize(pairs, tokenizer, max_length=256)
    expected = sum(len(ids) for ids in text_ids(tokenizer, [pair.completion for pair in pairs])) + len(pairs)
    assert sum(label != IGNORED_LABEL for tokens in kept for label in tokens.labels) == expected
    assert report.num_completion_tokens == expected
    assert len(kept) == report.num_rows == 128
    assert tokenizer.eos_token_id == VOCABULARY - 1


@given(
    template=st.text(alphabet="a.: \n\t#'\x1c\x85é", max_size=12),
    instruction=st.text(alphabet="a1. \n\r\t's\x1c\x85\u2028\u3000é漢", max_size=12),
)
def test_words_tokenised_apart_have_the_ids_of_the_whole(gpt2_tokenizer: Any, template: str, instruction: str) -> None:
    """Each word is tokenised once for all rows: GPT-2's pattern always parts before these spaces and newlines."""
    assert is_cut_before_spaces(gpt2_tokenizer)
    prompt = Prompt([Span("template", template), Span("data", instruction), Span("template", f"{template}\n\nA:\n")])
    assert prompt_ids(gpt2_tokenizer, [prompt]) == text_ids(gpt2_tokenizer, [str(prompt)])


def test_no_kind_of_white_space_changes_the_ids(gpt2_tokenizer: Any) -> None:
    kinds = [chr(code) for code in range(0x10000) if unicodedata.category(chr(code)) in ("Cc", "Cf", "Zl", "Zp", "Zs")]
    around = ("a{}b", "!{}!", "a {} b", "a{} b", "a {}b", " {}", "{}\na", "a\n{}\n\n{}b", "a  {}b", "a\n\n{} b")
    texts = [text.format(kind, kind) for kind in kinds for text in around]
    assert prompt_ids(gpt2_tokenizer, texts) == text_ids(gpt2_tokenizer, texts)


def test_a_tokenizer_of_another_kind_reads_texts_whole(gpt2_tokenizer: Any) -> None:
    from tokenizers import normalizers

    assert not is_cut_before_spaces(LETTERS)
    changed = copy.deepcopy(gpt2_tokenizer)
    changed.backend_tokenizer.normalizer = normalizers.Strip()
    assert not is_cut_before_spaces(changed)
