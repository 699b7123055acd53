"""What a person wrote in a mail: without the quoted mails below or between, without signature and disclaimer."""

from __future__ import annotations

import re

from peft_instruct.data.formats import QUESTION_MARKS


def _any(start: str, words: tuple[str, ...], end: str = "") -> re.Pattern[str]:
    return re.compile(f"{start}(?:{'|'.join(words)}){end}", re.IGNORECASE)


# `On Monday, Ana wrote:` in the languages of the usual mail programs; a long one wraps once.
_ATTRIBUTION = _any(
    r"^[ >]*",
    (
        r"On\b.{0,300}\bwrote", r"Am\b.{0,300}\bschrieb\b.{0,200}", r"Le\b.{0,300}\ba écrit", r"El\b.{0,300}\bescribió",
        r"Il\b.{0,300}\bha scritto", r"Em\b.{0,300}\bescreveu", r"Op\b.{0,300}\bschreef\b.{0,200}",
        r"W dniu\b.{0,300}\bpisze", r"Den\b.{0,300}\bskrev\b.{0,200}", r".{0,300}\b(?:написала?|пишет)",
        r"\d{4}.{0,300}(?:写道|のメール|님이 작성)",
    ),
    r"\s?[:：]\s*$",
)  # fmt: skip
_FORWARDED = _any(
    r"^\s*-{2,}\s*",
    (
        "Original Message", "Forwarded message", "Ursprüngliche Nachricht", "Message d'origine", "Message original",
        "Mensaje original", "Messaggio originale", "Mensagem original", "Oorspronkelijk bericht", "Исходное сообщение",
        "原始邮件",
    ),
    r"\s*-{2,}",
)  # fmt: skip
# Outlook's block of headers: a line of them that is followed by at least two others.
_HEADER = _any(
    r"^\W{0,3}",
    (
        "From", "Von", "De", "Da", "Van", "От", "发件人", "Sent", "Gesendet", "Envoyé", "Enviado", "Inviato",
        "Verzonden", "Date", "Datum", "Fecha", "Data", "To", "An", "À", "Para", "Cc", "Subject", "Betreff", "Objet",
        "Asunto", "Oggetto", "Assunto", "Onderwerp",
    ),
    r"\W{0,3}\s?[:：]\s*\S",
)  # fmt: skip
_DEVICE = _any(
    r"^\W{0,2}",
    (
        "Sent (?:from|via) ", "Get Outlook for ", "Von meinem .{1,30} gesendet", "Gesendet (?:von|mit) ",
        "Envoyé (?:de|depuis) mon", "Enviado desde mi", "Inviato da ", "Enviado do meu", "Отправлено с ",
    ),
)  # fmt: skip
_DISCLAIMER = re.compile(
    r"\b(?:this|dies\w*|cet?t?e?|est[ae])\b.{0,20}(?:e-?mail|message|nachricht|courriel|mensaje).{0,60}(?:confidential|vertraulich|confidentiel|confidencial)"
    r"|^(?:confidentiality notice|disclaimer)\b",
    re.IGNORECASE,
)
_FAREWELL = _any(
    "^",
    (
        "(?:kind |best |warm |many )?(?:regards|thanks|wishes)(?: again| in advance| a lot)?",
        "cheers", "sincerely", "yours", "thank you", "best",
        "(?:mit )?(?:freundlichen|besten|vielen|lieben?|viele) (?:grüßen|grüssen?|grüße|dank)",
        "gruß", "danke", "[lv]g", "mfg",
        "(?:bien )?cordialement", "merci(?: beaucoup)?", "salutations", "(?:un )?saludos?(?: cordial(?:es)?)?",
        "(?:muchas )?gracias", "(?:cordiali )?saluti", "grazie", "atenciosamente", "obrigad[oa]",
        "met vriendelijke groet(?:en)?", "с уважением", "спасибо", "此致", "谢谢",
    ),
)  # fmt: skip
MOST_SIGNATURE_LINES = 8
MOST_FAREWELL_CHARACTERS = 48
MOST_NAME_CHARACTERS = 60


def own_words(text: str) -> str:
    """The part of a mail that its author wrote for this mail; all of it where nothing else is recognised.

    Answers written between the lines of a quote are kept; the quoted lines are not.
    """
    lines = _without_quotes(_with_attributions_unwrapped(text.replace("\r\n", "\n").split("\n")))
    kept = _without_signature(lines)
    return "\n".join(kept).strip() or "\n".join(lines).strip()


def _with_attributions_unwrapped(lines: list[str]) -> list[str]:
    found: list[str] = []
    for line in lines:
        wrapped = found and len(found[-1]) < 200 and _ATTRIBUTION.match(f"{found[-1]} {line.strip()}")
        if wrapped and not _ATTRIBUTION.match(line) and line.rstrip().endswith((":", "：")) and found[-1].strip():
            found[-1] = f"{found[-1]} {line.strip()}"
        else:
            found.append(line)
    return found


def _without_quotes(lines: list[str]) -> list[str]:
    kept: list[str] = []
    for number, line in enumerate(lines):
        if _FORWARDED.match(line) or _begins_headers(lines, number):
            break
        if _ATTRIBUTION.match(line):
            # A program that does not mark what it quotes has quoted all that follows.
            following = next((other for other in lines[number + 1 :] if other.strip()), "")
            if not following.lstrip().startswith(">"):
                break
        elif not line.lstrip().startswith(">"):
            kept.append(line)
    while kept and (not kept[-1].strip() or set(kept[-1].strip()) <= {"_", "-", "="}):
        kept.pop()
    return kept


def _begins_headers(lines: list[str], number: int) -> bool:
    if not _HEADER.match(lines[number]):
        return False
    following = [line for line in lines[number + 1 : number + 6] if line.strip()]
    return sum(bool(_HEADER.match(line)) for line in following) >= 2


def _without_signature(lines: list[str]) -> list[str]:
    for number, line in enumerate(lines):
        # RFC 3676, 4.3: the signature stands below `-- `.
        if line.rstrip() == "--" or _names_device(lines, number) or _DISCLAIMER.search(line):
            lines = lines[:number]
            break
    last = len(lines)
    for number in range(len(lines) - 1, max(-1, len(lines) - 1 - MOST_SIGNATURE_LINES), -1):
        line = lines[number].strip()
        if len(line) > MOST_NAME_CHARACTERS or line.endswith(QUESTION_MARKS) or line.startswith("```"):
            break
        if line and len(line) <= MOST_FAREWELL_CHARACTERS and _FAREWELL.match(line) and _is_all_farewell(line):
            last = number
        elif len(line.split()) > 3 and line.endswith((".", "!", ":", "。")):
            break  # a sentence: thanks that stand before it are no farewell
    return lines[:last]


def _names_device(lines: list[str], number: int) -> bool:
    """`Sent from my phone` at the end; `Sent via DHL this morning.`, or with sentences below, is said."""
    is_sentence = lines[number].rstrip().endswith((".", "!", ":"))
    return (
        bool(_DEVICE.match(lines[number])) and not is_sentence and all(len(x.split()) <= 3 for x in lines[number + 1 :])
    )


def _is_all_farewell(line: str) -> bool:
    """`Thanks, Ana` and `Best regards,` say goodbye; `Thanks for the link, it works now` says something."""
    found = _FAREWELL.match(line)
    rest = line[found.end() :].strip(" ,.!-–—") if found else line
    return len(rest.split()) <= 3 and not re.search(r"[.:;?]", rest)
