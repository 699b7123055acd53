"""The list of skills: facts from the tables or from worked examples, joined with their phrasings."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from functools import cache

from peft_instruct.starter.world import tables, worked
from peft_instruct.starter.world.lexicon import phrasings, question
from peft_instruct.starter.world.station import Fact, Skill

TABLES: dict[str, Callable[[], Iterator[Fact]]] = {
    "opposites": tables.the_opposites,
    "synonyms": tables.the_synonyms,
    "plurals": tables.the_plurals,
    "singulars": tables.the_singulars,
    "past_tenses": tables.the_past_tenses,
    "ing_forms": tables.the_ing_forms,
    "comparatives": tables.the_comparatives,
    "superlatives": tables.the_superlatives,
    "capitals": tables.the_capitals,
    "countries": tables.the_countries,
    "continents": tables.the_continents,
    "young": tables.the_young,
    "homes": tables.the_homes,
    "sounds": tables.the_sounds,
    "legs": tables.the_legs,
    "colours": tables.the_colours,
    "shapes": tables.the_shapes,
    "descriptions": tables.the_descriptions,
    "categories": tables.the_categories,
    "number_words": tables.the_number_words,
    "word_numbers": tables.the_word_numbers,
    "parity": tables.the_parities,
    "first_letters": tables.the_first_letters,
    "last_letters": tables.the_last_letters,
    "spelling": tables.the_spellings,
    "rhymes": tables.the_rhymes,
    "units": tables.the_units,
    "days": tables.the_days,
    "months": tables.the_months,
    "jobs": tables.the_jobs,
    "places": tables.the_places,
    "genders": tables.the_genders,
}

WORKED: dict[str, Callable[[random.Random], Fact]] = {
    "addition": worked.an_addition,
    "subtraction": worked.a_subtraction,
    "multiplication": worked.a_multiplication,
    "larger": worked.a_larger,
    "sequences": worked.a_sequence,
    "sort_numbers": worked.a_number_sort,
    "sort_words": worked.a_word_sort,
    "odd_one_out": worked.an_odd_one_out,
    "count_words": worked.a_word_count,
    "passive": worked.a_passive,
    "active": worked.an_active,
    "questions": worked.a_question,
    "negation": worked.a_negation,
    "joining": worked.a_joining,
    "splitting": worked.a_splitting,
    "summaries": worked.a_summary,
    "stories": worked.a_story,
}


@cache
def skills() -> dict[str, Skill]:
    """All skills by name, in the order of the lists above."""
    found: dict[str, Skill] = {}
    for name in (*TABLES, *WORKED):
        lines = phrasings()[name]
        found[name] = Skill(
            name=name,
            facts=tuple(TABLES[name]()) if name in TABLES else (),
            draw=WORKED.get(name),
            statements=lines["statements"],
            questions=tuple(question(line) for line in lines["questions"]),
            unseen_questions=tuple(question(line) for line in lines["unseen"]),
        )
    return found
