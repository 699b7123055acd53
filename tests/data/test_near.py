"""Near-duplicates: held against an exact search that shares no code with it."""

from __future__ import annotations

import json
import math
import random
import re
import tracemalloc
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from peft_instruct.data import rarest
from peft_instruct.data.near import NearDuplicates, NearPair, Spelled, groups_of, normal_form, similarity
from peft_instruct.data.near import near_duplicates as near_duplicates_of
from peft_instruct.data.prepare import read_source
from peft_instruct.data.rarest import NEAR
from peft_instruct.data.splits import split_rows
from peft_instruct.data.types import PromptCompletion
from peft_instruct.errors import DatasetError
from peft_instruct.recipe.data_section import DataSection
from peft_instruct.recipe.shipped import PACKAGE


def exact_pairs(texts: Sequence[str], least: float) -> Iterator[tuple[int, int]]:
    """Every pair of Jaccard similarity of `least` or more, by prefix filtering over an inverted index.

    Two sets of similarity t share one of their |x| - ceil(t |x|) + 1 rarest features (Chaudhuri, Ganti and Kaushik
    2006), so only those are indexed; what they bring together is compared in full.
    """
    sets = []
    for text in texts:
        words = re.findall(r"\w+", text.lower())
        sets.append({(word,) for word in words} | set(pairwise(words)))
    counts = Counter(feature for one in sets for feature in one)
    index: dict[Any, list[int]] = defaultdict(list)
    for place, one in enumerate(sets):
        rarest = sorted(one, key=lambda feature: (counts[feature], feature))
        prefix = rarest[: len(one) - math.ceil(least * len(one)) + 1]
        for other in {other for feature in prefix for other in index[feature]}:
            if len(one & sets[other]) >= least * len(one | sets[other]):
                yield other, place
        for feature in prefix:
            index[feature].append(place)


def near_duplicates(texts: Sequence[str]) -> NearDuplicates:
    return near_duplicates_of(Spelled.of(texts))


def planted_rows() -> list[PromptCompletion]:
    """5,000 rows: the starter's, which share their phrasings, and 884 of them again with one word changed."""
    lines = (PACKAGE / "starter" / "instructions" / "train.jsonl").read_text(encoding="utf-8").splitlines()
    records = [json.loads(line) for line in lines][:4116]
    chance = random.Random(5)
    for original in chance.sample(records, 5000 - len(records)):
        words = original["instruction"].split()
        words[chance.randrange(len(words))] = "kindly"
        records.append({**original, "instruction": " ".join(words)})
    return [
        PromptCompletion(asked, record["output"], f"rows.jsonl:{line}", asked)
        for line, record in enumerate(records, start=1)
        for asked in [f"{record['instruction']}\n{record.get('input', '')}".strip()]
    ]


@pytest.fixture(scope="module")
def rows() -> list[PromptCompletion]:
    return planted_rows()


@pytest.fixture(scope="module")
def pairs(rows: list[PromptCompletion]) -> list[tuple[int, int]]:
    return list(exact_pairs([f"{row.asked}\n{row.completion}" for row in rows], NEAR))


def test_every_exact_pair_is_in_one_group(rows: list[PromptCompletion], pairs: list[tuple[int, int]]) -> None:
    found = near_duplicates([f"{row.asked}\n{row.completion}" for row in rows])
    groups = groups_of(len(rows), found.pairs)
    assert len(pairs) > 800
    assert [pair for pair in pairs if groups[pair[0]] != groups[pair[1]]] == []
    # What links a group is a pair itself: no group is larger than the exact pairs make it.
    assert {(pair.first, pair.second) for pair in found.pairs} <= set(pairs)


@given(st.lists(st.lists(st.sampled_from("abcdefg"), max_size=14).map(" ".join), max_size=14))
def test_groups_of_any_texts_are_those_of_the_exact_pairs(texts: list[str]) -> None:
    found = near_duplicates(texts)
    exact = [NearPair(*pair, NEAR) for pair in exact_pairs(texts, NEAR)]
    blank = [place for place, text in enumerate(texts) if not text]
    exact += [NearPair(blank[0], place, 1.0) for place in blank[1:]]
    assert groups_of(len(texts), found.pairs) == groups_of(len(texts), exact)
    assert [texts.index(text) for text in texts] == Spelled.of(texts).firsts().tolist()


def test_of_very_many_look_alikes_some_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [f"one two three four five six seven eight nine ten of {number}" for number in range(40)]
    assert near_duplicates(texts).num_capped == 0
    monkeypatch.setattr(rarest, "MOST_COMPARED", 5)
    capped = near_duplicates(texts)
    assert capped.num_capped == 34
    assert set(groups_of(40, capped.pairs)) == {0}


@settings(deadline=None)  # the first text imports pyarrow
@given(st.lists(st.lists(st.sampled_from("abcdx"), min_size=1, max_size=7).map(" ".join), max_size=9, unique=True))
# One of the features that the first and the last share comes too often; the others find them.
@example(["a c d d d", "l l m n", "a c n m k e", "a i d b k k", "j j a j m n j l", "f a e", "a c d d x"])
# Every feature comes too often: nothing is found.
@example(["b b b c a", "c b c", "b a c a c", "a b b b", "b b c a c"])
def test_a_text_whose_look_alikes_are_not_all_found_is_counted(texts: list[str]) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(rarest, "MOST_COMPARED", 1)
        found = near_duplicates(texts)
    groups = groups_of(len(texts), found.pairs)
    missed = {second for first, second in exact_pairs(texts, NEAR) if groups[first] != groups[second]}
    assert len(missed) <= found.num_capped


def test_features_that_come_often_are_looked_up_where_too_few_others_are() -> None:
    texts = ["a c d d d", "l l m n", "a c n m k e", "a i d b k k", "j j a j m n j l", "f a e", "a c d d x"]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(rarest, "MOST_COMPARED", 1)
        found = near_duplicates(texts)
    assert [(pair.first, pair.second) for pair in found.pairs] == [(0, 6)]
    assert found.num_capped == 0


def test_features_too_common_for_their_place_in_the_key_are_as_common_as_it_tells(
    rows: list[PromptCompletion], monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [f"{row.asked}\n{row.completion}" for row in rows[-900:]]
    expected = groups_of(len(texts), near_duplicates(texts).pairs)
    assert len(set(expected)) < len(texts)
    # What comes twice is beyond the last step.
    monkeypatch.setattr(rarest, "_COUNT_STEPS", 2000)
    assert groups_of(len(texts), near_duplicates(texts).pairs) == expected


def test_texts_of_one_long_beginning_are_not_all_held_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    num_texts, num_words = 120, 101
    words = np.tile(np.arange(num_words), (num_texts, 1))
    words[:, -1] += np.arange(num_texts)
    features = rarest.Features.of(words.ravel(), num_words * np.arange(num_texts + 1))

    def found() -> tuple[list[tuple[int, list[int], bool]], int]:
        tracemalloc.start()
        candidates = list(rarest.Lookup.of(features).candidates())
        _, num_bytes = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return candidates, num_bytes

    # 62 of the 64 rarest features of each text are those of all earlier ones; 8 bytes for each.
    of_all = 8 * 62 * num_texts * (num_texts - 1) // 2
    candidates, num_bytes = found()
    assert [len(earlier) for _, earlier, _ in candidates] == list(range(1, num_texts))
    assert num_bytes > of_all
    monkeypatch.setattr(rarest, "_AT_ONCE", 1 << 12)
    in_parts, num_bytes = found()
    assert in_parts == candidates and num_bytes < of_all


def test_signs_alone_are_compared_as_they_stand() -> None:
    spelled = Spelled.of(["?! ..", "", "?!..", " ?!  .. ", "\n", "a?!", "A"])
    assert spelled.firsts().tolist() == [0, 1, 2, 0, 1, 5, 5]
    (pair,) = near_duplicates(["a b c", "? ! . ; : -", "? ! . ; : - ?"]).pairs
    assert (pair.first, pair.second) == (1, 2)


TEXTS = st.lists(st.text(st.sampled_from("aBß .\0\n東é🙂\ud83d?"), max_size=9), max_size=6)


@given(TEXTS)
@example(["one\0two", "\0", "", " \0 a"])
def test_words_are_those_of_the_normal_forms_whatever_parts_them(texts: list[str]) -> None:
    """Numbered by the first of those that are the same, of all texts."""
    numbers: dict[str, int] = {}
    expected = [normal_form(text).split() for text in texts]
    spelled = Spelled.of(texts)
    found = [spelled.words[a:b].tolist() for a, b in zip(spelled.starts, spelled.ends, strict=True)]
    same = {text: place for place, text in reversed(list(enumerate(map(tuple, expected))))}
    assert spelled.firsts().tolist() == [same[tuple(words)] for words in expected]
    for words, own in zip(expected, found, strict=True):
        assert len(words) == len(own)
        assert all(numbers.setdefault(word, number) == number for word, number in zip(words, own, strict=True))
    assert len(set(numbers.values())) == len(numbers)


def test_parts_of_rows_are_spelled_once() -> None:
    asked, answers = ["One two?", "", "three", "ONE two"], ["Four, five.", "six", "?!", "!"]
    whole = Spelled.of([f"{ask} {answer}" for ask, answer in zip(asked, answers, strict=True)])
    parts = Spelled.of([text for pair in zip(asked, answers, strict=True) for text in pair])
    in_twos, alone = parts.in_twos(), parts.every_other()

    def words(spelled: Spelled) -> list[int]:
        return (spelled.ends - spelled.starts).tolist()

    assert words(whole) == [4, 1, 1, 2]
    # Signs alone are words of a part, too.
    assert words(in_twos) == [4, 1, 2, 3] and words(alone) == [2, 0, 1, 2]
    assert alone.firsts().tolist() == Spelled.of(asked).firsts().tolist() == [0, 1, 2, 0]


def test_no_near_duplicate_is_on_two_sides(rows: list[PromptCompletion], pairs: list[tuple[int, int]]) -> None:
    def num_parted(by: str) -> int:
        split = split_rows(rows, 250, 250, seed=0, by=by)
        assert (len(split.validation), len(split.test)) == (250, 250)
        side = {row.origin: name for name in ("train", "validation", "test") for row in getattr(split, name)}
        assert len(side) == len(rows)
        return sum(side[rows[first].origin] != side[rows[second].origin] for first, second in pairs)

    assert num_parted("rows") > 50
    assert num_parted("groups") == 0


def test_the_note_tells_what_would_have_leaked(rows: list[PromptCompletion], pairs: list[tuple[int, int]]) -> None:
    split = split_rows(rows, 250, 250, seed=0, by="groups")
    told = re.search(r"would have leaked (\d+) rows", split.notes[0])
    assert told
    by_rows = split_rows(rows, 250, 250, seed=0, by="rows")
    train = {row.origin for row in by_rows.train}
    held_out = {row.origin for row in (*by_rows.validation, *by_rows.test)}
    origins = [{rows[first].origin, rows[second].origin} for first, second in pairs]
    leaking = set().union(*(pair & held_out for pair in origins if pair & train and pair & held_out))
    # Groups also join what is linked over a third row, and rows of one prompt.
    assert len(leaking) <= int(told[1]) <= 1.5 * len(leaking)


def different(count: int, source: str = "rows.jsonl") -> list[PromptCompletion]:
    words = [f"{chr(97 + number % 26)}{number}" for number in range(6 * count)]
    return [
        PromptCompletion(
            " ".join(words[6 * n : 6 * n + 4]), " ".join(words[6 * n + 4 : 6 * n + 6]), f"{source}:{n + 1}"
        )
        for n in range(count)
    ]


def test_rows_without_doubles_are_split_as_by_rows() -> None:
    rows = different(100)
    groups, plain = (split_rows(rows, 10, 20, seed=3, by=by) for by in ("groups", "rows"))
    assert (groups.train, groups.validation, groups.test) == (plain.train, plain.validation, plain.test)
    shuffled = list(rows)
    random.Random(3).shuffle(shuffled)
    assert (plain.train, plain.validation, plain.test) == (shuffled[:70], shuffled[70:80], shuffled[80:])


def test_each_source_gives_its_share() -> None:
    rows = different(400, "large.jsonl")
    rows += [
        PromptCompletion(f"zz{row.prompt}", f"yy{row.completion}", row.origin) for row in different(100, "small.csv")
    ]
    split = split_rows(rows, 25, 0, seed=0, by="groups")
    assert Counter(row.origin.split(":")[0] for row in split.validation) == {"large.jsonl": 20, "small.csv": 5}


def test_one_prompt_with_two_answers_stays_together() -> None:
    rows = different(40)
    again = [
        PromptCompletion(row.prompt.upper() + "!", f"quite another answer {n}", f"more.jsonl:{n}")
        for n, row in enumerate(rows)
    ]
    texts = [PromptCompletion("", f"t{n} u{n} v{n}", f"texts.jsonl:{n}") for n in range(7)]
    split = split_rows([*texts, *rows, *again], 8, 0, seed=0, by="groups")
    assert {row.prompt.upper().strip("!") for row in split.validation if row.prompt}.isdisjoint(
        row.prompt.upper().strip("!") for row in split.train
    )


def test_conversations_that_end_alike_are_not_one_group(tmp_path: Path) -> None:
    path = tmp_path / "chats.jsonl"
    closing = [{"role": "user", "content": "Thank you!"}, {"role": "assistant", "content": "You are welcome."}]
    rows = [
        [{"role": "user", "content": row.prompt}, {"role": "assistant", "content": row.completion}, *closing]
        for row in different(30)
    ]
    path.write_text("".join(json.dumps({"messages": messages}) + "\n" for messages in rows), encoding="utf-8")
    found, _, _ = read_source(str(path), DataSection(train=str(path), template="chatml"))
    assert "no near-duplicates" in split_rows(found, 3, 0, seed=0, by="groups").notes[0]


def test_rows_that_are_all_alike_are_refused() -> None:
    rows = [PromptCompletion("Say one two three four.", "one two three four", f"rows.jsonl:{n}") for n in range(20)]
    with pytest.raises(DatasetError, match=r"data\.split: groups.*data\.split: rows"):
        split_rows(rows, 2, 0, seed=0, by="groups")
    assert len(split_rows(rows, 2, 0, seed=0, by="rows").validation) == 2


def test_normal_form_leaves_case_punctuation_and_space_aside() -> None:
    assert normal_form("  Straße, NO. 5!\n") == normal_form("strasse no 5") == "strasse no 5"
    assert normal_form(" ?! ") == "?!"
    # Scripts without spaces: a character is a word, so that one changed character changes little.
    assert normal_form("東京は、広い") == "東 京 は 広 い"


def test_similarity_is_that_of_words_and_pairs_of_words() -> None:
    text = " ".join(f"w{number}" for number in range(20))
    (pair,) = near_duplicates([text, text.replace("w19", "other")]).pairs
    # 20 words and 19 pairs of them; the last word and the last pair differ.
    assert pair.similarity == similarity(text, text.replace("w19", "other")) == pytest.approx(37 / 41)
    assert near_duplicates(["dog bites man", "man bites dog", ""]).pairs == ()
    # 7 features of 10: as like as it must be, and no more.
    (pair,) = near_duplicates(["a b c d", "a b c d a e"]).pairs
    assert pair.similarity == similarity("a b c d", "a b c d a e") == NEAR
