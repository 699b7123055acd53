"""What is left of a mail is what its author wrote."""

from __future__ import annotations

from pathlib import Path

import pytest

from peft_instruct.data.importers.mail_text import own_words
from peft_instruct.data.importers.run import import_export

QUOTED = "> Is it on?\n>\n> Ana"


@pytest.mark.parametrize(
    "attribution",
    [
        "On Mon, 2 Mar 2026 at 09:00, Ana <a@x.org> wrote:",
        "On Mon, 2 Mar 2026 at 09:00, Ana Maria of the Department <a@x.org>\nwrote:",
        "Am 02.03.26 um 09:00 schrieb Ana:",
        "Le 2 mars 2026 à 09:00, Ana a écrit :",
        "El lun, 2 mar 2026 a las 9:00, Ana escribió:",
        "Il giorno lun 2 mar 2026 Ana ha scritto:",
        "Em seg., 2 de mar. de 2026, Ana escreveu:",
        "Op ma 2 mrt 2026 schreef Ana:",
        "W dniu 2.03.2026 Ana pisze:",
        "2 марта 2026 г., Ana написала:",
        "2026年3月2日 09:00，Ana 写道：",
    ],
)
def test_a_quote_below_goes_with_its_attribution(attribution: str) -> None:
    assert own_words(f"Yes.\n\n{attribution}\n{QUOTED}\n") == "Yes."


def test_answers_between_the_lines_stay() -> None:
    assert own_words("On Monday, Ana wrote:\n> Is it on?\nYes.\n> And now?\nNo.\n") == "Yes.\nNo."


@pytest.mark.parametrize(
    "block",
    [
        "-----Original Message-----\nFrom: Ana\nIs it on?",
        "________________________________\nVon: Ana\nGesendet: Montag\nAn: Bo\nBetreff: x\n\nIs it on?",
        "*From:* Ana\n*Sent:* Monday\n*To:* Bo\n*Subject:* x\n\nIs it on?",
        "De : Ana\nEnvoyé : lundi\nÀ : Bo\nObjet : x\n\nIs it on?",
    ],
)
def test_a_forwarded_mail_goes_to_its_end(block: str) -> None:
    assert own_words(f"Yes.\n\n{block}") == "Yes."


@pytest.mark.parametrize(
    "signature",
    ["-- \nAna\nAcme", "Best regards,\nAna", "Thanks!\nAna Li\nHead of Help\n+1 555 234 5678", "Sent from my iPhone",
     "Mit freundlichen Grüßen\nAna", "Cordialement", "Saludos,\nAna", "С уважением,\nАна", "此致\n敬礼",
     "Ana\n\nThis message and its attachments are confidential.\nIf you are not …"],
)  # fmt: skip
def test_a_signature_goes(signature: str) -> None:
    assert own_words(f"It is on.\n\n{signature}\n").split("\n")[0] == "It is on."
    assert len(own_words(f"It is on.\n\n{signature}\n")) <= len("It is on.\n\nAna")


@pytest.mark.parametrize(
    "text",
    [
        "Thanks for the link, it works now.",
        "Best is to wait.\nThen it works.",
        "From: is a header.\nIt says who wrote.",
        "Use this:\n\n```\n-- a comment of SQL\nselect 1\n```",
        "Regards",
        "a -- b",
        "On Monday it worked, as you wrote.",
        "Hi Ana,\n\nSent via DHL this morning.\nIt arrives on Friday.",
        "Sent via the warehouse in Bonn\nand it arrives on Friday morning.",
        "Your messages stay confidential: we show them to nobody.\nAnything else?",
    ],
)
def test_what_only_looks_like_one_stays(text: str) -> None:
    assert own_words(text) == text


@pytest.mark.parametrize("thanks", ["Thanks for reaching out!", "Thank you for contacting us.", "Thank you."])
def test_an_answer_that_begins_with_thanks_is_kept_to_its_farewell(thanks: str) -> None:
    answer = f"Hi Ana,\n\n{thanks}\n\nPlease open Settings and choose Reset.\nThis clears the cache."
    assert own_words(f"{answer}\n\nBest,\nTom\n") == answer


@pytest.mark.parametrize(
    ("subject", "body", "asked"),
    [
        ("How do I change my password?", "See above. Thanks!", "How do I change my password?\n\nSee above. Thanks!"),
        ("Is it open on Sunday?", "I would like to come by with four friends.",
         "Is it open on Sunday?\n\nI would like to come by with four friends."),
        ("Sunday", "Would it be possible to come by at noon?", "Would it be possible to come by at noon?"),
        ("Is it open?", "Would it be possible to come by at noon?", "Would it be possible to come by at noon?"),
    ],
)  # fmt: skip
def test_a_question_in_the_subject_is_asked(subject: str, body: str, asked: str, tmp_path: Path) -> None:
    start = "From ana@a.de Mon Mar  2 09:00:00 2026\n"
    first = f"From: ana@a.de\nDate: Mon, 2 Mar 2026 09:00:00 +0000\nMessage-ID: <1@a>\nSubject: {subject}\n\n{body}\n"
    answer = f"From: bo@b.de\nMessage-ID: <2@b>\nIn-Reply-To: <1@a>\nSubject: Re: {subject}\n\nYes.\n"
    (tmp_path / "a.mbox").write_text(f"{start}{first}\n{start}{answer}")
    (row,) = import_export(tmp_path / "a.mbox").rows
    assert (row["instruction"], row["output"]) == (asked, "Yes.")
