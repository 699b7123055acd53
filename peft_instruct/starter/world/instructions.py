"""Alpaca-format rows about the world, split by item."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

from peft_instruct.starter.world.skills import skills
from peft_instruct.starter.world.station import Fact, Question, Skill, Split, capitalised, split_of

ROWS_PER_SKILL = {"train": 84, "validation": 6, "test": 15, "test_unseen_phrasings": 15}
SPLITS_OF_FILES: dict[str, Split] = {
    "train": "train", "validation": "validation", "test": "test", "test_unseen_phrasings": "test",
}  # fmt: skip


@dataclass(frozen=True)
class InstructionRow:
    """One example in Alpaca's columns, with the skill, the item it was split on and every accepted output."""

    instruction: str
    input: str
    output: str
    skill: str
    item: str
    answers: tuple[str, ...]


def _row(fact: Fact, question: Question) -> InstructionRow:
    def text(template: str, answer: str) -> str:
        return template.format(**fact.slots, answer=answer)

    # A lone answer keeps its letter case; a sentence around it starts with a capital.
    is_bare = question.output == "{answer}"
    outputs = [text(question.output, answer) for answer in fact.answers]
    outputs = outputs if is_bare else [capitalised(output) for output in outputs]
    instruction = capitalised(text(question.instruction, ""))
    return InstructionRow(
        instruction,
        text(question.input, ""),
        outputs[0],
        fact.skill,
        fact.item,
        tuple(dict.fromkeys(outputs)),
    )


def _facts(skill: Skill, split: Split, rng: Random) -> Iterator[Fact]:
    """Facts of a split without end: the table's in shuffled rounds, or worked ones drawn afresh."""
    if skill.draw is not None:
        while True:
            fact = skill.draw(rng)
            if split_of(fact.item) == split and _may_be_asked(fact, split):
                yield fact
    table = [fact for fact in skill.facts if split_of(fact.item) == split]
    while True:
        rng.shuffle(table)
        yield from table


def _may_be_asked(fact: Fact, split: Split) -> bool:
    """Whether a training row gives away no category that is asked in evaluation."""
    if fact.skill != "odd_one_out" or split != "train":
        return True
    return all(split_of(f"thing:{word}") == "train" for word in fact.slots["list"].split(", "))


def rows(file: str, seed: int) -> list[InstructionRow]:
    """The rows of one file: "train", "validation", "test" or "test_unseen_phrasings", shuffled."""
    rng = Random(f"{file}:{seed}")
    found: list[InstructionRow] = []
    for skill in skills().values():
        questions = skill.unseen_questions if file == "test_unseen_phrasings" else skill.questions
        facts = _facts(skill, SPLITS_OF_FILES[file], rng)
        taken: dict[tuple[str, str], InstructionRow] = {}
        # Questions go round in turn, so that every phrasing is met; a pair already taken is passed over.
        for turn in range(20 * ROWS_PER_SKILL[file]):
            row = _row(next(facts), questions[(turn + turn // len(questions)) % len(questions)])
            taken.setdefault((row.instruction, row.input), row)
            if len(taken) == ROWS_PER_SKILL[file]:
                break
        found += taken.values()
    rng.shuffle(found)
    return found
