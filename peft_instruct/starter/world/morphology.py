"""English word forms: articles, plurals, verb forms, degrees of adjectives, number words."""

from __future__ import annotations

from peft_instruct.starter.world.lexicon import alternatives, listed, table

VOWELS = "aeiou"


def with_article(noun: str) -> str:
    """The noun with `a` or `an`, by its first sound: the lists name letters that deceive ("a unicorn", "an hour")."""
    is_vowel = noun[0].lower() in VOWELS and not noun.startswith(listed("consonant_sound"))
    return f"{'an' if is_vowel or noun.startswith(listed('vowel_sound')) else 'a'} {noun}"


def _ends_in_consonant_y(word: str) -> bool:
    return word.endswith("y") and word[-2] not in VOWELS


def plurals(noun: str) -> tuple[str, ...]:
    """Every accepted plural, the usual one first; irregular nouns come from their table."""
    irregular = {cells[0]: cells[1] for cells in table("irregular_plurals")}
    if noun in irregular:
        return alternatives(irregular[noun])
    if noun.endswith(("s", "x", "z", "ch", "sh")):
        return (noun + "es",)
    return (noun[:-1] + "ies" if _ends_in_consonant_y(noun) else noun + "s",)


def plural(noun: str) -> str:
    """The usual plural."""
    return plurals(noun)[0]


def past(verb: str) -> str:
    """The simple past; irregular verbs carry it in their table."""
    irregular = {cells[0]: cells[1] for cells in table("verbs") if len(cells) > 1 and cells[1]}
    if verb in irregular:
        return irregular[verb]
    if verb in listed("doubles"):
        return verb + verb[-1] + "ed"
    if verb.endswith("e"):
        return verb + "d"
    return verb[:-1] + "ied" if _ends_in_consonant_y(verb) else verb + "ed"


def ing_form(verb: str) -> str:
    """The present participle."""
    if verb in listed("doubles"):
        return verb + verb[-1] + "ing"
    if verb.endswith("e") and not verb.endswith(("ee", "oe", "ye")):
        return verb[:-1] + "ing"
    return verb + "ing"


def degrees(adjective: str) -> tuple[str, str]:
    """The comparative and the superlative of a short adjective."""
    irregular = {cells[0]: cells[1:] for cells in table("adjectives") if len(cells) == 3}
    if adjective in irregular:
        comparative, superlative = irregular[adjective]
        return comparative, superlative
    if adjective in listed("doubles"):
        stem = adjective + adjective[-1]
    elif _ends_in_consonant_y(adjective):
        stem = adjective[:-1] + "i"
    else:
        stem = adjective.removesuffix("e")
    return stem + "er", stem + "est"


def number_word(number: int) -> str:
    """The English words of 0 to 100."""
    if number == 100:
        return "one hundred"
    if number < 20:
        return listed("units")[number]
    tens, units = divmod(number, 10)
    return listed("tens")[tens - 2] + (f"-{listed('units')[units]}" if units else "")
