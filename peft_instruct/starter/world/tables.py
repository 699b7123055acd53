"""The facts that are known by heart: one function per skill, each reading its word table."""

from __future__ import annotations

import random
from collections.abc import Iterator

from peft_instruct.starter.world.lexicon import alternatives, listed, table, words
from peft_instruct.starter.world.morphology import (
    degrees,
    ing_form,
    number_word,
    past,
    plural,
    plurals,
    with_article,
)
from peft_instruct.starter.world.station import Fact, capitalised

MISSPELLINGS_PER_WORD = 2


def the_opposites() -> Iterator[Fact]:
    neighbours: dict[str, list[str]] = {}
    for left, right in table("opposites"):
        for other in alternatives(right):
            neighbours.setdefault(left, []).append(other)
            neighbours.setdefault(other, []).append(left)
    for word, others in neighbours.items():
        group = {word}
        while (grown := group | {other for member in group for other in neighbours[member]}) != group:
            group = grown
        yield Fact("opposites", f"opposites:{min(group)}", {"word": word}, tuple(others))


def _of_groups(skill: str, groups: Iterator[tuple[str, ...]]) -> Iterator[Fact]:
    for group in groups:
        for place, word in enumerate(group):
            others = group[place + 1 :] + group[:place]
            yield Fact(skill, f"{skill}:{group[0]}", {"word": word}, others)


def the_synonyms() -> Iterator[Fact]:
    return _of_groups("synonyms", (alternatives(cells[0]) for cells in table("synonyms")))


def the_rhymes() -> Iterator[Fact]:
    return _of_groups("rhymes", (tuple(cells[0].split()) for cells in table("rhymes")))


def category_members() -> dict[str, tuple[str, ...]]:
    """Category -> its members, each fit to follow `is a kind of`."""
    return {category: tuple(members.lstrip("!").split()) for category, members in table("categories")}


def _countable_nouns() -> tuple[str, ...]:
    # Most names of fish have two plurals and a meal's worth of doubt; the clear ones are in the irregular table.
    counted = [
        member
        for category, members in table("categories")
        if not members.startswith("!") and category != "fish"
        for member in members.split()
    ]
    return tuple(dict.fromkeys([*words("nouns"), *words("irregular_plurals"), *counted]))


def the_plurals() -> Iterator[Fact]:
    for noun in _countable_nouns():
        yield Fact("plurals", f"noun:{noun}", {"word": noun, "a_word": with_article(noun)}, plurals(noun))


def the_singulars() -> Iterator[Fact]:
    for noun in _countable_nouns():
        if plural(noun) != noun:
            yield Fact("singulars", f"noun:{noun}", {"word": plural(noun), "a_answer": with_article(noun)}, (noun,))


def the_past_tenses() -> Iterator[Fact]:
    for verb in words("verbs"):
        yield Fact("past_tenses", f"verb:{verb}", {"word": verb}, (past(verb),))


def the_ing_forms() -> Iterator[Fact]:
    for verb in words("verbs"):
        yield Fact("ing_forms", f"verb:{verb}", {"word": verb}, (ing_form(verb),))


def the_comparatives() -> Iterator[Fact]:
    for adjective in words("adjectives"):
        yield Fact("comparatives", f"adjective:{adjective}", {"word": adjective}, (degrees(adjective)[0],))


def the_superlatives() -> Iterator[Fact]:
    for adjective in words("adjectives"):
        yield Fact("superlatives", f"adjective:{adjective}", {"word": adjective}, (degrees(adjective)[1],))


def the_capitals() -> Iterator[Fact]:
    for country, capital, _ in table("countries"):
        yield Fact("capitals", f"country:{country}", {"country": country}, (capital,))


def the_countries() -> Iterator[Fact]:
    for country, capital, _ in table("countries"):
        yield Fact("countries", f"country:{country}", {"city": capital}, (country,))


def the_continents() -> Iterator[Fact]:
    for country, _, continent in table("countries"):
        for answer in alternatives(continent):
            yield Fact("continents", f"country:{country}", {"country": country}, (answer,))


def _of_animals(skill: str, column: int) -> Iterator[Fact]:
    for cells in table("animals"):
        answers = alternatives(cells[column])
        if answers:
            slots = {"animal": cells[0], "animals": plural(cells[0]), "an_animal": with_article(cells[0])}
            slots["an_answer"] = with_article(answers[0])
            # As in categories: to ask for an animal's young tells that it is an animal.
            yield Fact(skill, f"thing:{cells[0]}", slots, answers)


def the_young() -> Iterator[Fact]:
    return _of_animals("young", 1)


def the_homes() -> Iterator[Fact]:
    return _of_animals("homes", 2)


def the_sounds() -> Iterator[Fact]:
    return _of_animals("sounds", 3)


def the_legs() -> Iterator[Fact]:
    for fact in _of_animals("legs", 4):
        number = int(fact.answers[0])
        if number:
            yield Fact("legs", fact.item, fact.slots, (number_word(number), str(number)))


def _of_things(skill: str) -> Iterator[Fact]:
    for thing, answer in table(skill):
        bare = thing.removeprefix("an ").removeprefix("a ").removeprefix("ripe ")
        yield Fact(skill, f"thing:{bare}", {"thing": thing}, alternatives(answer))


def the_colours() -> Iterator[Fact]:
    return _of_things("colours")


def the_shapes() -> Iterator[Fact]:
    return _of_things("shapes")


def the_descriptions() -> Iterator[Fact]:
    for fact in _of_things("descriptions"):
        thing = fact.slots["thing"]
        description = fact.answers[0]
        slots = {"thing": thing, "description": description}
        yield Fact("descriptions", fact.item, slots, (f"{capitalised(thing)} is {description}.",))


def the_categories() -> Iterator[Fact]:
    for category, members in table("categories"):
        for member in members.lstrip("!").split():
            uncounted = members.startswith("!")
            slots = {"word": member, "a_word": member if uncounted else with_article(member)}
            slots["an_answer"] = with_article(category)
            broader = ("animal",) if category in ("bird", "fish", "insect", "reptile") else ()
            yield Fact("categories", f"thing:{member}", slots, (category, *broader))


def the_number_words() -> Iterator[Fact]:
    for number in range(101):
        yield Fact("number_words", f"number:{number}", {"number": str(number)}, (number_word(number),))


def the_word_numbers() -> Iterator[Fact]:
    for number in range(101):
        yield Fact("word_numbers", f"number:{number}", {"word": number_word(number)}, (str(number),))


def the_parities() -> Iterator[Fact]:
    for number in range(1, 101):
        yield Fact("parity", f"number:{number}", {"number": str(number)}, ("odd" if number % 2 else "even",))


def _lettered_words() -> tuple[str, ...]:
    return tuple(dict.fromkeys([*words("spelling"), *words("adjectives")]))


def _of_letters(skill: str, place: int) -> Iterator[Fact]:
    for word in _lettered_words():
        yield Fact(skill, f"word:{word}", {"word": word}, (word[place], word[place].upper()))


def the_first_letters() -> Iterator[Fact]:
    return _of_letters("first_letters", 0)


def the_last_letters() -> Iterator[Fact]:
    return _of_letters("last_letters", -1)


def misspellings(word: str) -> list[str]:
    """A few near misses of a word: an inner letter dropped, one doubled; always the same ones."""
    rng = random.Random(word)
    misses: list[str] = []
    while len(misses) < MISSPELLINGS_PER_WORD:
        place = rng.randrange(1, len(word) - 1)
        end = place + len(misses) % 2 * -2 + 1
        miss = word[:place] + word[end:]
        if miss != word and miss not in misses and miss not in listed("real_words"):
            misses.append(miss)
    return misses


def the_spellings() -> Iterator[Fact]:
    for word in words("spelling"):
        for miss in misspellings(word):
            yield Fact("spelling", f"spelling:{word}", {"wrong": miss}, (word,))


def the_units() -> Iterator[Fact]:
    for small, big, bigs, factor, most in table("units"):
        for number in range(1, int(most) + 1):
            amount = f"{number} {big if number == 1 else bigs}"
            item = f"units:{small}:{big}:{number}"
            yield Fact("units", item, {"amount": amount, "small": small}, (str(number * int(factor)),))


def _of_cycle(skill: str, unit: str, names: tuple[str, ...], distances: tuple[int, ...]) -> Iterator[Fact]:
    for start, name in enumerate(names):
        for distance in distances:
            later = names[(start + distance) % len(names)]
            steps = f"the {unit}" if distance == 1 else f"{number_word(distance)} {unit}s"
            item = f"{skill}:{name}+{distance}"
            for relation, answer in ((f"{steps} after {name}", later), (f"{steps} before {later}", name)):
                yield Fact(skill, item, {"relation": relation, "Relation": capitalised(relation)}, (answer,))


def the_days() -> Iterator[Fact]:
    return _of_cycle("days", "day", listed("days"), (1, 2))


def the_months() -> Iterator[Fact]:
    yield from _of_cycle("months", "month", listed("months"), (1, 2))
    for place, month in enumerate(listed("months")):
        relation = f"the {listed('ordinals')[place]} month of the year"
        yield Fact("months", f"months:{place}", {"relation": relation, "Relation": capitalised(relation)}, (month,))


def the_jobs() -> Iterator[Fact]:
    for deed, job in table("jobs"):
        answers = alternatives(job)
        slots = {"deed": deed, "an_answer": with_article(answers[0])}
        # As in categories: the question tells that the answer is a job.
        yield Fact("jobs", f"thing:{answers[0]}", slots, answers)


def the_places() -> Iterator[Fact]:
    for deed, place in table("places"):
        answers = alternatives(place)
        slots = {"deed": deed, "an_answer": with_article(answers[0])}
        yield Fact("places", f"places:{answers[0]}", slots, answers)


def the_genders() -> Iterator[Fact]:
    for male, female in table("genders"):
        for word, answer, sex in ((male, female, "female"), (female, male, "male")):
            other = "male" if sex == "female" else "female"
            yield Fact("genders", f"genders:{male}", {"word": word, "sex": sex, "other": other}, (answer,))
