"""The facts that are worked out: arithmetic, lists and sentences, drawn without end from a random stream."""

from __future__ import annotations

from functools import cache
from random import Random

from peft_instruct.starter.world import lexicon
from peft_instruct.starter.world.lexicon import listed
from peft_instruct.starter.world.morphology import number_word, with_article
from peft_instruct.starter.world.station import Fact, capitalised
from peft_instruct.starter.world.tables import category_members

# The kinds that an "odd one out" is made of: no member of one could pass for a member of another (as a cherry does
# for a tree, a triangle for an instrument, a whale for a fish).
ODD_KINDS = ("animal", "fruit", "vegetable", "tool", "vehicle", "instrument", "furniture", "garment", "job", "flower")


def _arithmetic(skill: str, item: str, first: int, sign: str, second: int, result: int) -> Fact:
    slots = {"a": str(first), "b": str(second), "sum": f"{first} {sign} {second}"}
    return Fact(skill, item, slots, (str(result),))


def _summands(rng: Random) -> tuple[int, int]:
    """One up to ten and any number, or two round tens; no more than 100 together."""
    if rng.random() < 0.1:
        first = rng.randint(1, 9)
        return 10 * first, 10 * rng.randint(1, 10 - first)
    small = rng.randint(1, 10)
    return small, rng.randint(1, 100 - small)


def an_addition(rng: Random) -> Fact:
    first, second = rng.sample(_summands(rng), 2)
    low, high = sorted((first, second))
    return _arithmetic("addition", f"sum:{low}+{high}", first, "+", second, first + second)


def a_subtraction(rng: Random) -> Fact:
    taken, left = _summands(rng)
    low, high = sorted((left, taken))
    return _arithmetic("subtraction", f"sum:{low}+{high}", left + taken, "-", taken, left)


def a_multiplication(rng: Random) -> Fact:
    first, second = rng.randint(2, 10), rng.randint(2, 10)
    low, high = sorted((first, second))
    return _arithmetic("multiplication", f"product:{low}*{high}", first, "*", second, first * second)


def a_larger(rng: Random) -> Fact:
    first, second = rng.sample(range(1, 101), 2)
    low, high = sorted((first, second))
    return Fact("larger", f"larger:{low},{high}", {"a": str(first), "b": str(second), "low": str(low)}, (str(high),))


def a_sequence(rng: Random) -> Fact:
    step = rng.choice((1, 2, 5, 10))
    first = rng.randint(1, 100 - 4 * step)
    terms = ", ".join(str(first + place * step) for place in range(4))
    return Fact("sequences", f"sequence:{first}:{step}", {"list": terms}, (str(first + 4 * step),))


def a_number_sort(rng: Random) -> Fact:
    numbers = rng.sample(range(1, 100), 3)
    order = rng.choice(("smallest to largest", "largest to smallest"))
    ordered = sorted(numbers, reverse=order.startswith("largest"))
    slots = {"list": ", ".join(map(str, numbers)), "order": order}
    item = f"numbers:{','.join(map(str, sorted(numbers)))}"
    return Fact("sort_numbers", item, slots, (", ".join(map(str, ordered)),))


def a_word_sort(rng: Random) -> Fact:
    by_initial: dict[str, str] = {}
    while len(by_initial) < 3:
        word = rng.choice(lexicon.words("nouns")[::3])
        by_initial.setdefault(word[0], word)
    chosen = list(by_initial.values())
    item = f"words:{','.join(sorted(chosen))}"
    return Fact("sort_words", item, {"list": ", ".join(chosen)}, (", ".join(sorted(chosen)),))


def an_odd_one_out(rng: Random) -> Fact:
    members = category_members()
    kind, other = rng.sample(ODD_KINDS, 2)
    odd = rng.choice(members[other])
    chosen = [*rng.sample(members[kind], 3), odd]
    rng.shuffle(chosen)
    item = f"odd:{','.join(sorted(chosen))}"
    slots = {"list": ", ".join(chosen), "kind": with_article(kind)}
    return Fact("odd_one_out", item, slots, (odd,))


def a_word_count(rng: Random) -> Fact:
    text = capitalised(" ".join(part for place in range(4) if (part := rng.choice(listed(f"counted_{place}"))))) + "."
    number = len(text.split())
    return Fact("count_words", f"count:{text}", {"text": text}, (str(number), number_word(number)))


def _doer_deed_done(rng: Random) -> tuple[str, str, str, str]:
    if rng.random() < 0.7:
        doer, done = rng.choice([*listed("people"), *listed("boys"), *listed("girls")]), rng.choice(listed("things"))
        past, participle = rng.choice(listed("deeds")).split()
    else:
        doer, done = rng.choice(listed("beasts")), rng.choice([*listed("beasts"), *listed("people")[:10]])
        past, participle = rng.choice(listed("chases")).split()
    return (doer, past, participle, done) if doer != done else _doer_deed_done(rng)


def a_passive(rng: Random) -> Fact:
    doer, past, participle, done = _doer_deed_done(rng)
    active = f"{capitalised(doer)} {past} {done}."
    return Fact("passive", f"voice:{active}", {"text": active}, (f"{capitalised(done)} was {participle} by {doer}.",))


def an_active(rng: Random) -> Fact:
    doer, past, participle, done = _doer_deed_done(rng)
    active = f"{capitalised(doer)} {past} {done}."
    passive = f"{capitalised(done)} was {participle} by {doer}."
    return Fact("active", f"voice:{active}", {"text": passive}, (active,))


@cache
def _subjects() -> tuple[str, ...]:
    return (*listed("people"), *listed("beasts"), "he", "she", *listed("boys"), *listed("girls"))


def _subject_verb_rest(rng: Random) -> tuple[str, str, str]:
    verb, rest = rng.choice(listed("states")).split(" ", 1)
    return rng.choice(_subjects()), verb, rest


def a_question(rng: Random) -> Fact:
    subject, verb, rest = _subject_verb_rest(rng)
    text = f"{capitalised(subject)} {verb} {rest}."
    return Fact("questions", f"sentence:{text}", {"text": text}, (f"{capitalised(verb)} {subject} {rest}?",))


def a_negation(rng: Random) -> Fact:
    subject, verb, rest = _subject_verb_rest(rng)
    text = f"{capitalised(subject)} {verb} {rest}."
    full = "cannot" if verb == "can" else f"{verb} not"
    short = {"can": "can't", "will": "won't"}.get(verb, f"{verb}n't")
    answers = tuple(f"{capitalised(subject)} {negated} {rest}." for negated in (full, short))
    return Fact("negation", f"sentence:{text}", {"text": text}, answers)


def _two_clauses(rng: Random) -> tuple[str, str, str]:
    first, second = rng.sample(listed("scenes"), 2)
    looks = rng.sample(listed("looks"), 2)
    return f"the {first} was {looks[0]}", f"the {second} was {looks[1]}", rng.choice(("and", "but"))


def a_joining(rng: Random) -> Fact:
    first, second, conjunction = _two_clauses(rng)
    slots = {"text": f"{capitalised(first)}. {capitalised(second)}.", "conjunction": conjunction}
    answers = tuple(f"{capitalised(first)}{comma} {conjunction} {second}." for comma in (",", ""))
    return Fact("joining", f"clauses:{first}:{second}", slots, answers)


def a_splitting(rng: Random) -> Fact:
    first, second, conjunction = _two_clauses(rng)
    slots = {"text": f"{capitalised(first)}, {conjunction} {second}."}
    return Fact("splitting", f"clauses:{first}:{second}", slots, (f"{capitalised(first)}. {capitalised(second)}.",))


def a_summary(rng: Random) -> Fact:
    name, he, his = rng.choice(
        [(boy, "he", "his") for boy in listed("boys")] + [(girl, "she", "her") for girl in listed("girls")]
    )
    thing = rng.choice(listed("goods"))
    if rng.random() < 0.5:
        shop = rng.choice(listed("shops"))
        text = (
            f"{name} needed {with_article(thing)}. {capitalised(he)} went to the {shop} and looked around. "
            f"At last {he} bought the {thing} and walked home."
        )
        answer = f"{name} bought {with_article(thing)} at the {shop}."
    else:
        wrong, right = rng.sample(listed("rooms"), 2)
        text = (
            f"{name} could not find {his} {thing}. {capitalised(he)} looked in the {wrong}, but it was not there. "
            f"In the end {he} saw it in the {right}."
        )
        answer = f"{name} found {his} {thing} in the {right}."
    return Fact("summaries", f"summary:{answer}", {"text": text}, (answer,))


def a_story(rng: Random) -> Fact:
    hero = rng.choice((*category_members()["animal"], "king", "queen", "boy", "girl", "farmer", "giant", "wizard"))
    feeling, deed = rng.choice(lexicon.table("feelings"))
    slots = {
        "hero": with_article(hero),
        "feeling": feeling,
        "a_feeling_hero": with_article(f"{feeling} {hero}"),
    }
    answer = f"Once there was {with_article(f'{feeling} {hero}')}. The {hero} {deed}."
    return Fact("stories", f"story:{feeling}:{hero}", slots, (answer,))
