"""Plain text about the world: documents without end, drawn from a seed."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from random import Random

from peft_instruct.starter.world.lexicon import listed
from peft_instruct.starter.world.skills import skills
from peft_instruct.starter.world.station import Fact, Question, Skill, capitalised

# How often a skill is met, relative to the others: by how many facts it has, and by what an earlier base did not know
# when it was asked directly (of sums, days, rhymes and odd ones out under a third).
WEIGHTS: dict[str, float] = {
    "opposites": 4.0, "synonyms": 3.5, "plurals": 1.5, "singulars": 1.5, "past_tenses": 1.2, "ing_forms": 0.8,
    "comparatives": 0.7, "superlatives": 0.7, "capitals": 0.8, "countries": 0.8, "continents": 0.5, "young": 0.6,
    "homes": 0.4, "sounds": 0.4, "legs": 0.4, "colours": 0.5, "shapes": 0.4, "descriptions": 0.8, "categories": 1.3,
    "number_words": 0.5, "word_numbers": 0.6, "parity": 0.4, "first_letters": 1.2, "last_letters": 1.5,
    "spelling": 1.8, "rhymes": 4.0, "units": 0.8, "days": 2.0, "months": 2.0, "jobs": 0.5, "places": 0.4,
    "genders": 0.8, "addition": 7.0, "subtraction": 7.0, "multiplication": 1.8, "larger": 0.9, "sequences": 4.0,
    "sort_numbers": 1.8, "sort_words": 1.5, "odd_one_out": 5.0, "count_words": 1.2, "passive": 0.6, "active": 0.5,
    "questions": 0.5, "negation": 0.5, "joining": 0.4, "splitting": 0.4, "summaries": 0.5, "stories": 0.5,
}  # fmt: skip
TEACHERS = (
    "the teacher",
    "Mr Brown",
    "Mrs Hill",
    "Miss Green",
    "her father",
    "his mother",
    "Grandma",
    "the old man",
)
OPENINGS = (
    "It was a rainy day, and the class stayed inside.", "The lesson began at nine.", "After lunch they played a game.",
    "The teacher wrote a task on the board.", "Everybody had a pencil and a sheet of paper.",
    "The instruction was short, and the response came at once.", "In the evening the family sat by the fire.",
    "The request was easy, so they could complete it quickly.", "They read the next page of the book.",
    "Each task describes one thing, and the children write an answer.",
    "The input was on the left, and the answer was written on the right.",
    "The bus ride was long, so they asked riddles.",
    "Below the picture was a line of text.", "The context was clear, and the answer was appropriate.",
)  # fmt: skip
PRAISE = ("That is right.", "Well done!", "Correct.", "Very good.", "Yes, that is true.", "Exactly.")


class _Deck:
    """Deals a skill's facts like cards, so that each is met as often as the others; draws worked ones afresh."""

    def __init__(self, skill: Skill, rng: Random) -> None:
        self.skill, self.rng = skill, rng
        self.cards: list[Fact] = []

    def deal(self) -> Fact:
        if self.skill.draw is not None:
            return self.skill.draw(self.rng)
        if not self.cards:
            self.cards = list(self.skill.facts)
            self.rng.shuffle(self.cards)
        return self.cards.pop()


@cache
def _entries() -> dict[str, list[Fact]]:
    """Subject -> the facts about it, for subjects that more than one skill knows."""
    found: dict[str, list[Fact]] = {}
    for skill in skills().values():
        for fact in skill.facts:
            found.setdefault(next(iter(fact.slots.values())), []).append(fact)
    return {subject: facts for subject, facts in found.items() if len({fact.skill for fact in facts}) > 1}


def _ends_a_sentence(text: str) -> bool:
    return text.endswith((".", "!", "?"))


class _Writer:
    """Writes documents from the decks of all skills."""

    def __init__(self, rng: Random) -> None:
        self.rng = rng
        self.people = (*listed("boys"), *listed("girls"))
        self.decks = {name: _Deck(skill, rng) for name, skill in skills().items()}
        self.subjects: list[str] = []
        self.names = list(self.decks)
        weights = [WEIGHTS[name] for name in self.names]
        self.cumulative = [sum(weights[: place + 1]) for place in range(len(weights))]
        self.kinds = (
            (self.statements, 3), (self.quiz, 4), (self.dialogue, 2), (self.notebook, 2), (self.lesson, 2),
            (self.answers, 5), (self.entry, 1), (self.task, 4), (self.counting, 1),
        )  # fmt: skip

    def deck(self) -> _Deck:
        return self.decks[self.rng.choices(self.names, cum_weights=self.cumulative)[0]]

    def answer(self, fact: Fact) -> str:
        """Mostly the first answer, which is the one to learn; now and then another."""
        if len(fact.answers) == 1 or self.rng.random() < 0.75:
            return fact.answers[0]
        return self.rng.choice(fact.answers)

    def statement(self, deck: _Deck) -> str:
        fact = deck.deal()
        return fact.filled(self.rng.choice(deck.skill.statements), self.answer(fact))

    def asked(self, deck: _Deck, between: str = " ") -> tuple[str, str]:
        """A question and its answer; `between` joins what is asked and what is given."""
        fact = deck.deal()
        ask: Question = self.rng.choice(deck.skill.questions)
        question = fact.filled(ask.instruction)
        if ask.input:
            question = f"{question}{between}{ask.input.format(**fact.slots)}"
        # As in the fact itself: a lone word keeps its small letter, a sentence has its capital.
        answer = ask.output.format(**fact.slots, answer=self.answer(fact))
        return question, capitalised(answer) if _ends_a_sentence(answer) else answer

    def statements(self) -> str:
        """A paragraph of facts, of one skill or of many."""
        one = self.deck() if self.rng.random() < 0.5 else None
        return " ".join(self.statement(one or self.deck()) for _ in range(self.rng.randint(3, 7)))

    def quiz(self) -> str:
        """Questions with their answers, line by line."""
        mark = self.rng.choice((("Q: ", "A: "), ("Question: ", "Answer: "), ("", ""), ("- ", "= ")))
        one = self.deck() if self.rng.random() < 0.3 else None
        lines = []
        for _ in range(self.rng.randint(3, 6)):
            question, answer = self.asked(one or self.deck())
            lines.append(f"{mark[0]}{question}\n{mark[1]}{answer}")
        return "\n".join(lines)

    def dialogue(self) -> str:
        """Two people ask and answer."""
        first, second = self.rng.sample(self.people, 2)
        turns = []
        for _ in range(self.rng.randint(2, 5)):
            question, answer = self.asked(self.deck())
            shape = self.rng.randrange(3)
            if shape == 0:
                turns.append(f'{first} asked, "{question}" {second} said, "{answer}"')
            elif shape == 1 and not _ends_a_sentence(answer):
                turns.append(f'"{question}" asked {first}. "It is {answer}," said {second}.')
            else:
                turns.append(f'"{question}" said {first}. {second} wrote: {answer}')
            first, second = second, first
        return ("\n" if self.rng.random() < 0.3 else " ").join(turns)

    def notebook(self) -> str:
        """Short lines of one skill, as in a pupil's notebook or a word list."""
        deck = self.deck()
        return "\n".join(self.statement(deck) for _ in range(self.rng.randint(3, 8)))

    def lesson(self) -> str:
        """A little classroom scene with facts and questions in it."""
        parts = [self.rng.choice(OPENINGS)]
        for _ in range(self.rng.randint(2, 4)):
            deck = self.deck()
            if self.rng.random() < 0.4:
                parts.append(self.statement(deck))
            question, answer = self.asked(deck)
            speaker, pupil = self.rng.choice(TEACHERS), self.rng.choice(self.people)
            if _ends_a_sentence(answer):
                parts.append(f'{capitalised(speaker)} said, "{question}" {pupil} answered, "{answer}"')
            else:
                parts.append(f'{capitalised(speaker)} asked, "{question}" The answer of {pupil} was "{answer}".')
            if self.rng.random() < 0.3:
                parts.append(self.rng.choice(PRAISE))
        return " ".join(parts)

    def entry(self) -> str:
        """What a dictionary knows about one word: facts of several skills about the same subject."""
        if not self.subjects:
            self.subjects = list(_entries())
            self.rng.shuffle(self.subjects)
        subject = self.subjects.pop()
        facts = _entries()[subject]
        facts = self.rng.sample(facts, min(len(facts), 5))
        lines = [fact.filled(self.rng.choice(skills()[fact.skill].statements), self.answer(fact)) for fact in facts]
        if self.rng.random() < 0.5:
            return f"{subject}: " + " ".join(lines)
        return f"{subject}\n" + "\n".join(lines)

    def answers(self) -> str:
        """One question, and after it nothing but the answer."""
        question, answer = self.asked(self.deck())
        return f"{question}\n{answer}"

    def task(self) -> str:
        """A task with what is given on a line of its own, and the result below."""
        before, after = self.rng.choice((("", ""), ("Given: ", "Result: "), ("", "-> "), ("> ", ""), ("", "Answer: ")))
        lines = []
        for _ in range(self.rng.randint(1, 3)):
            deck = self.deck()
            question, answer = self.asked(deck, between=f"\n{before}")
            lines.append(f"{question}\n{after}{answer}")
        return "\n\n".join(lines)

    def counting(self) -> str:
        """Numbers by a step, days or months, in their order."""
        if self.rng.random() < 0.3:
            names = listed(self.rng.choice(("days", "months")))
            start = self.rng.randrange(len(names))
            terms = [names[(start + place) % len(names)] for place in range(self.rng.randint(4, 12))]
        else:
            step = self.rng.choice((1, 1, 2, 5, 10))
            first = self.rng.randint(0, 100 - 3 * step)
            terms = [str(number) for number in range(first, 101, step)][: self.rng.randint(4, 15)]
            if self.rng.random() < 0.3:
                terms.reverse()
        return ", ".join(terms)

    def document(self) -> str:
        kinds, weights = zip(*self.kinds, strict=True)
        write = self.rng.choices(kinds, weights=weights)[0]
        return str(write())


def documents(seed: int, stream: str = "train") -> Iterator[str]:
    """Documents without end; `stream` names independent ones ("train", "validation") under one seed."""
    writer = _Writer(Random(f"{stream}:{seed}"))
    while True:
        yield writer.document()
