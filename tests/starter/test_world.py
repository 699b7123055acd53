"""The starter world: true tables, the same bytes for the same seed, and splits that do not leak."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import pytest

from peft_instruct.starter.world import InstructionRow, documents, rows, skills, split_of
from peft_instruct.starter.world.__main__ import write_corpus, write_instructions
from peft_instruct.starter.world.instructions import ROWS_PER_SKILL
from peft_instruct.starter.world.lexicon import FOLDER, listed, table, words
from peft_instruct.starter.world.morphology import degrees, ing_form, number_word, past, plural, with_article
from peft_instruct.starter.world.station import Skill
from peft_instruct.starter.world.tables import category_members

EVALUATION_FILES = ("validation", "test", "test_unseen_phrasings")


@pytest.fixture(scope="module")
def files() -> dict[str, list[InstructionRow]]:
    return {name: rows(name, seed=0) for name in ROWS_PER_SKILL}


def asked(row: InstructionRow) -> str:
    return f"{row.instruction} {row.input}".lower()


def has_words(text: str, phrase: str) -> bool:
    return re.search(rf"(?<![\w-]){re.escape(phrase.lower())}(?![\w-])", text) is not None


def test_the_same_seed_writes_the_same_bytes_and_another_seed_others(tmp_path: Path) -> None:
    contents = []
    for place, seed in enumerate((0, 0, 1)):
        folder = tmp_path / str(place)
        folder.mkdir()
        write_corpus(folder, seed, num_documents=300)
        write_instructions(folder, seed)
        contents.append({path.name: path.read_bytes() for path in sorted(folder.iterdir())})
    assert contents[0] == contents[1]
    assert all(contents[0][name] != contents[2][name] for name in contents[0])


def test_the_validation_stream_is_not_the_training_stream() -> None:
    assert not set(islice(documents(0, "train"), 50)) & {
        text for text in islice(documents(0, "validation"), 50) if len(text) > 200
    }


def test_the_corpus_never_shows_the_alpaca_template() -> None:
    text = "\n".join(islice(documents(0), 5000))
    assert not re.search(r"###|Instruction:|Input:|Response:|Below is an instruction", text)


def test_no_unfilled_slot_is_left_in_any_text(files: dict[str, list[InstructionRow]]) -> None:
    texts = [
        *islice(documents(0), 3000),
        *(row.instruction + row.input + row.output for row in files["test"]),
    ]
    assert not [text for text in texts if "{" in text or "}" in text]


def test_there_are_at_least_thirty_skills_with_enough_distinct_phrasings() -> None:
    assert len(skills()) >= 30
    for skill in skills().values():
        seen, unseen = set(skill.questions), set(skill.unseen_questions)
        assert len(seen) == len(skill.questions) >= 8, skill.name
        assert len(unseen) == len(skill.unseen_questions) >= 5, skill.name
        assert not {(q.instruction, q.input) for q in seen} & {(q.instruction, q.input) for q in unseen}, skill.name
        assert not {q.instruction for q in seen if q.input} & {q.instruction for q in unseen if q.input}, skill.name
        assert len(set(skill.statements)) == len(skill.statements) >= 5, skill.name


def test_every_skill_has_rows_in_every_file(files: dict[str, list[InstructionRow]]) -> None:
    for name, found in files.items():
        for skill in skills():
            assert sum(row.skill == skill for row in found) == ROWS_PER_SKILL[name], (name, skill)
    assert ROWS_PER_SKILL["test"] >= 15


def test_no_item_is_asked_in_two_splits(files: dict[str, list[InstructionRow]]) -> None:
    trained = {row.item for row in files["train"]}
    validated = {row.item for row in files["validation"]}
    tested = {row.item for name in ("test", "test_unseen_phrasings") for row in files[name]}
    assert not trained & validated and not trained & tested and not validated & tested


def test_no_question_is_asked_twice(files: dict[str, list[InstructionRow]]) -> None:
    for name, found in files.items():
        assert len({(row.instruction, row.input) for row in found}) == len(found), name
    trained = {asked(row) for row in files["train"]}
    assert not trained & {asked(row) for name in EVALUATION_FILES for row in files[name]}


@pytest.mark.parametrize("skill", [skill for skill in skills().values() if skill.facts], ids=lambda skill: skill.name)
def test_no_training_row_shows_a_held_out_fact_or_its_inverse(
    skill: Skill, files: dict[str, list[InstructionRow]]
) -> None:
    """No training row of the skill, or of one that shares its items, holds both a held-out slot and its answer."""
    family = {fact.item.split(":")[0] for fact in skill.facts}
    texts = [(asked(row), row.output.lower()) for row in files["train"] if row.item.split(":")[0] in family]
    if skill.name in ("first_letters", "last_letters", "parity", "legs"):  # one-letter answers are everywhere
        texts = [(question, output) for question, output in texts if has_words(question, skill.name[:-1])]
    for fact in skill.facts:
        if split_of(fact.item) == "train":
            continue
        subject = next(iter(fact.slots.values()))
        for question, output in texts:
            if subject.lower() not in question and subject.lower() not in output:
                continue
            told = has_words(question, subject) and has_words(output, fact.answers[0])
            inverse = has_words(question, fact.answers[0]) and has_words(output, subject)
            assert not told and not inverse, (fact, question, output)


def test_odd_ones_out_in_training_show_no_held_out_category_member(
    files: dict[str, list[InstructionRow]],
) -> None:
    held_out = {m for members in category_members().values() for m in members if split_of(f"thing:{m}") != "train"}
    shown = {
        word
        for row in files["train"]
        if row.skill == "odd_one_out"
        for word in row.item.removeprefix("odd:").split(",")
    }
    assert held_out and not shown & held_out


@pytest.mark.parametrize("path", sorted((FOLDER / "lexicon").rglob("*.tsv")), ids=lambda path: path.stem)
def test_no_table_has_a_line_twice_or_a_stray_blank(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    assert len(set(lines)) == len(lines)
    assert not [line for line in lines if line != line.strip(" ") or "  " in line]
    assert table(path.stem)


def test_no_key_of_a_table_is_there_twice() -> None:
    for name in (
        "verbs",
        "adjectives",
        "nouns",
        "countries",
        "animals",
        "colours",
        "shapes",
        "jobs",
        "spelling",
    ):
        assert len(set(words(name))) == len(words(name)), name


def test_no_fact_contradicts_another() -> None:
    """Two facts of a skill that fill the slots alike would be one question with two answers."""
    for skill in skills().values():
        keys = [tuple(sorted(fact.slots.items())) for fact in skill.facts]
        assert len(set(keys)) == len(keys), skill.name
        for fact in skill.facts:
            assert fact.answers and all(fact.answers), fact
            assert len(set(fact.answers)) == len(fact.answers), fact


def test_no_word_is_in_two_groups_of_synonyms_or_rhymes_or_in_two_categories() -> None:
    for name in ("synonyms", "rhymes"):
        subjects = [fact.slots["word"] for fact in skills()[name].facts]
        assert len(set(subjects)) == len(subjects), name
    members = [member for group in category_members().values() for member in group]
    assert len(set(members)) == len(members)


def test_opposites_go_both_ways_and_share_an_item() -> None:
    facts = {fact.slots["word"]: fact for fact in skills()["opposites"].facts}
    for word, fact in facts.items():
        for answer in fact.answers:
            assert word in facts[answer].answers and facts[answer].item == fact.item
    assert facts["hot"].answers[0] == "cold"


@pytest.mark.parametrize(
    ("name", "compute"),
    [
        ("addition", lambda a, b: a + b),
        ("subtraction", lambda a, b: a - b),
        ("multiplication", lambda a, b: a * b),
        ("larger", max),
    ],
)
def test_arithmetic_is_right(
    name: str, compute: Callable[[int, int], int], files: dict[str, list[InstructionRow]]
) -> None:
    checked = [row for found in files.values() for row in found if row.skill == name]
    for row in checked:
        numbers = [int(number) for number in re.findall(r"\d+", asked(row))]
        if name == "subtraction":
            numbers.sort(reverse=True)
        result = compute(*numbers)
        assert str(result) in re.findall(r"\d+", row.output) and 0 < result <= 100, row
    assert checked


def test_sequences_go_on_by_their_step(files: dict[str, list[InstructionRow]]) -> None:
    for row in (row for found in files.values() for row in found if row.skill == "sequences"):
        terms = [int(term) for term in re.findall(r"\d+", asked(row))]
        assert len({after - before for before, after in zip(terms, [*terms[1:], int(row.output)], strict=True)}) == 1


def test_sorted_lists_are_sorted(files: dict[str, list[InstructionRow]]) -> None:
    for row in (row for found in files.values() for row in found if row.skill in ("sort_numbers", "sort_words")):
        parts = row.output.split(", ")
        keys = [int(part) for part in parts] if row.skill == "sort_numbers" else parts
        assert keys == sorted(keys, reverse="largest to smallest" in row.instruction), row
        assert sorted(row.item.partition(":")[2].split(",")) == sorted(parts)


def test_word_counts_are_right(files: dict[str, list[InstructionRow]]) -> None:
    for row in (row for found in files.values() for row in found if row.skill == "count_words"):
        assert len(row.item.removeprefix("count:").split()) == int(row.output)


def test_the_odd_one_out_is_the_only_stranger(files: dict[str, list[InstructionRow]]) -> None:
    group_of = {member: category for category, members in category_members().items() for member in members}
    for row in (row for found in files.values() for row in found if row.skill == "odd_one_out"):
        others = {group_of[word] for word in row.item.removeprefix("odd:").split(",") if word != row.output}
        assert len(others) == 1 and group_of[row.output] not in others


def test_misspellings_are_wrong_and_have_one_correction() -> None:
    facts = skills()["spelling"].facts
    known = {fact.slots.get("word") for fact in skills()["first_letters"].facts} | set(listed("real_words"))
    assert len({fact.slots["wrong"] for fact in facts}) == len(facts)
    assert not [fact for fact in facts if fact.slots["wrong"] in known]


def test_every_answer_of_a_row_can_be_met_in_the_corpus(files: dict[str, list[InstructionRow]]) -> None:
    """Table facts: a row's item is among the facts that the corpus deals out in full rounds."""
    items = {skill.name: {fact.item for fact in skill.facts} for skill in skills().values()}
    for row in (row for found in files.values() for row in found):
        assert not items[row.skill] or row.item in items[row.skill]
        assert row.output == row.answers[0]


def test_the_corpus_states_or_asks_every_fact_of_a_table() -> None:
    text = "\n".join(islice(documents(0), 30_000)).lower()
    for name in ("capitals", "opposites", "young"):
        for fact in skills()[name].facts:
            ways = [
                *skills()[name].statements,
                *(q.instruction for q in skills()[name].questions if not q.input),
            ]
            assert any(fact.filled(way).lower() in text for way in ways), fact


def test_word_forms() -> None:
    assert [with_article(noun) for noun in ("owl", "uniform", "hour", "ewe", "egg")] == [
        "an owl", "a uniform", "an hour", "a ewe", "an egg",
    ]  # fmt: skip
    assert [plural(noun) for noun in ("child", "city", "day", "box", "roof")] == [
        "children", "cities", "days", "boxes", "roofs",
    ]  # fmt: skip
    assert [past(verb) for verb in ("go", "stop", "carry", "play", "bake", "visit")] == [
        "went", "stopped", "carried", "played", "baked", "visited",
    ]  # fmt: skip
    assert [ing_form(verb) for verb in ("run", "bake", "see", "play", "open")] == [
        "running", "baking", "seeing", "playing", "opening",
    ]  # fmt: skip
    assert [degrees(word)[0] for word in ("good", "big", "happy", "nice", "tall")] == [
        "better", "bigger", "happier", "nicer", "taller",
    ]  # fmt: skip
    assert [number_word(number) for number in (0, 13, 40, 58, 100)] == [
        "zero", "thirteen", "forty", "fifty-eight", "one hundred",
    ]  # fmt: skip
