"""Personal data and secrets in text, found by their form and masked by their kind. Nothing leaves the machine.

Names and postal addresses have no form and stay: look at the rows before you share a model that learned them.
"""

from __future__ import annotations

import ipaddress
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from peft_instruct.secrets import BEARER, KEYS, PASSWORD_IN_URL, PRIVATE_KEY


@dataclass(frozen=True)
class Form:
    """How one kind of data looks.

    Attributes:
        pattern: the candidates; the group `value`, where it has one, is what is masked.
        needs: what every match has in or around it; a text without it is passed over, which is most of them.
        is_real: told the text and the match, whether a candidate is one.
    """

    kind: str
    pattern: re.Pattern[str]
    needs: Callable[[str], object]
    is_real: Callable[[str, re.Match[str]], bool] = lambda text, found: True


def mask(text: str) -> tuple[str, Counter[str]]:
    """The text with every finding as `[EMAIL]`, `[PHONE]`, `[CARD]`, `[IBAN]`, `[SSN]`, `[SECRET]`, `[IP]`; how many of
    each."""
    counts: Counter[str] = Counter()
    for form in FORMS:
        if form.needs(text):
            text = _masked(text, form, counts)
    return text, counts


def _masked(text: str, form: Form, counts: Counter[str]) -> str:
    def replaced(found: re.Match[str]) -> str:
        if not form.is_real(text, found):
            return found[0]
        counts[form.kind] += 1
        group = "value" if "value" in form.pattern.groupindex else 0
        start, end = (position - found.start() for position in found.span(group))
        return f"{found[0][:start]}[{form.kind.upper()}]{found[0][end:]}"

    return form.pattern.sub(replaced, text)


def passes_luhn(digits: str) -> bool:
    """The check digit of payment cards (ISO/IEC 7812-1, annex B)."""
    doubled = [int(digit) * 2 for digit in digits[-2::-2]]
    return (sum(number - 9 if number > 9 else number for number in doubled) + sum(map(int, digits[-1::-2]))) % 10 == 0


# Issuer ranges and lengths (ISO/IEC 7812).
_CARD = re.compile(
    "|".join(
        (
            r"4\d{12}(?:\d{3}){0,2}",  # Visa
            r"5[1-5]\d{14}|2(?:22[1-9]|2[3-9]\d|[3-6]\d\d|7[01]\d|720)\d{12}",  # Mastercard
            r"3[47]\d{13}",  # American Express
            r"3(?:0[0-5]|[689]\d)\d{11}",  # Diners
            r"6(?:011|4[4-9]\d|5\d\d)\d{12}",  # Discover
            r"35\d{14}",  # JCB
            r"62\d{14,17}",  # UnionPay
            r"(?:50|5[6-8]|6[37])\d{14}",  # Maestro
        )
    )
)
# First, since a month of expiry or a check number may follow: as digits of the card they would make it none. UnionPay's
# may have more than four groups.
_IN_FOURS = r"(?!62)\d{4}(?P<between>[ -]?)\d{4}(?P=between)\d{4}(?P=between)\d{4}"
# Numbers of things look like phone numbers; the word before tells.
_COUNTED = re.compile(
    r"(?<![^\W\d_])(?:order|invoice|ticket|case|ref(?:erence)?|tracking|parcel|shipment|sku|isbn(?:-1[03])?|ean|upc|issn|doi|part"
    r"|serial|model|article|build|version|release|rev(?:ision)?|id|no|nr"
    r"|(?<!my )(?<!our )(?<!this )number|page|port|pid|commit|bug|issue|pr"
    r"|bestell\w*|rechnung\w*|auftrag\w*|kunden\w*|commande|facture|pedido|factura)s?\b[\s.:#=№-]{0,4}"
    r"(?:(?:no|nr|id|number|code|is|was)\b[\s.:#]{0,3})?[\"'(#]?$",
    re.IGNORECASE,
)
_VERSION = re.compile(
    r"(?:\bv|\bver|version|release|build|firmware|app|section|article"
    r"|chapter|§|(?:up|down)(?:dated?|graded?)(?: to| from)?"
    r"|(?<!/)[A-Za-z]/)[\s.:=]{0,3}$",
    re.IGNORECASE,
)
_DATE = re.compile(
    r"(?:\d{4}[-/. ](?:0?[1-9]|1[0-2])[-/. ]\d{1,2}|\d{1,2}[-/. ](?:0?[1-9]|1[0-2])[-/. ](?:19|20)\d\d)(?!\d)"
)
_PHONE_WORD = (
    r"(?:tel|telephone|phone|mobile|cell|call|dial|fax|whatsapp|sms|signal|handy|telefon\w*|mobil\w*|rufnummer|anrufen"
    r"|rückruf|téléphone|portable|teléfono|móvil|llam\w+|celular|telefone|telefono|cellulare|телефон\w*|тел|电话|手机"
    r"|電話|전화)"
)
_SECRET_NAME = (
    r"(?:(?:api|access|secret|auth|private|client|encryption|signing|license|webhook)[ _-]?(?:key|token|secret|code)"
    r"|secret|token|passwor[dt]|passwd|pwd|passphrase|passcode|kennwort|mot de passe|contraseña|senha|пароль|密码)"
)


def _is_card(text: str, found: re.Match[str]) -> bool:
    digits = re.sub(r"\D", "", found[0])
    return bool(_CARD.fullmatch(digits)) and passes_luhn(digits)


def _is_iban(text: str, found: re.Match[str]) -> bool:
    """Its check digits (ISO 13616-1, ISO/IEC 7064 MOD 97-10)."""
    number = found[0].replace(" ", "").upper()
    digits = "".join(str(int(character, 36)) for character in number[4:] + number[:4])
    return 15 <= len(number) <= 34 and int(digits) % 97 == 1


def _is_ssn(text: str, found: re.Match[str]) -> bool:
    """A number of US social security (SSA, "Social Security Number Randomization": what is never given), or, from 900
    on, of a taxpayer without one."""
    digits = re.sub(r"\D", "", found["value"])
    before = text[max(0, found.start() - 40) : found.start()]
    is_given = digits[:3] not in ("000", "666") and digits[3:5] != "00" and digits[5:] != "0000"
    return is_given and not _COUNTED.search(before)


def _is_address(text: str, found: re.Match[str]) -> bool:
    """An address of a machine: no version, and none that every machine has."""
    before = text[max(0, found.start() - 24) : found.start()]
    if _VERSION.search(before):
        return False
    try:
        address = ipaddress.ip_address(found["value"])
    except ValueError:
        return False
    # `1::2` is a slice more often than an address.
    is_short = address.version == 6 and sum(map(bool, found["value"].split(":"))) < 3
    return not (is_short or address.is_loopback or found["value"].startswith(("255.", "0.")))


def _is_phone(text: str, found: re.Match[str]) -> bool:
    return 7 <= len(re.sub(r"\D", "", found["value"])) <= 15 and not _DATE.match(found["value"])


def _is_national(text: str, found: re.Match[str]) -> bool:
    """Nothing but its form says that it is a phone number, so a word before it may say that it is not."""
    before = text[max(0, found.start() - 40) : found.start()]
    return 9 <= len(re.sub(r"\D", "", found["value"])) <= 13 and _is_phone(text, found) and not _COUNTED.search(before)


def _is_secret(text: str, found: re.Match[str]) -> bool:
    """A value, and not what stands for one (`<token>`, `$TOKEN`, `your-key-here`) or makes one (`getpass()`)."""
    value = found["value"]
    if re.match(r"[<$%{\[(*.]|your|my[_-]|example|placeholder|xxx|os\.|env", value, re.IGNORECASE) or "(" in value:
        return False
    return bool(re.search(r"\d", value))


_NAMED = re.compile(
    rf"(?<![A-Za-z]){_SECRET_NAME}[\"'`]?\s*(?:[:=：]{{1,2}}|\b(?:is|ist|lautet|est|es)\b)\s*[\"'`]?"
    r"(?P<value>[^\s\"'`,;]{6,256})",
    re.IGNORECASE,
)
_EMAIL = re.compile(
    r"(?<![\w.+%-])[\w.+%'-]{1,64}(?:@|\s?[\[(](?:at|AT|@)[\])]\s?)"
    r"(?:[\w-]{1,63}(?:\.|\s?[\[(](?:dot|DOT|punkt)[\])]\s?)){1,5}"
    # `icon@2x.png` and `package@1.2.3` are none.
    r"(?!(?:png|jpe?g|gif|svg|webp|js|css)(?![^\W_]))(?:[^\W\d_]{2,24}|xn--[\w-]{2,59})(?![^\W_]|-)"
)
_IP6 = re.compile(
    r"(?<![\w:.])(?P<value>(?:[0-9a-fA-F]{1,4}:){1,7}(?::|[0-9a-fA-F]{1,4})(?::?[0-9a-fA-F]{1,4}){0,7})(?![\w:])"
)
_IBAN = re.compile(r"(?<![^\W_])[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?(?![^\W_])", re.IGNORECASE)
_FREE = r"(?<![\w.,+#/-])"
_SSN = re.compile(rf"{_FREE}(?P<value>\d{{3}}-\d{{2}}-\d{{4}})(?![\w-]|[.,]\d)")
_NAMED_SSN = re.compile(
    r"\b(?:SSN|social security(?: (?:number|no\.?|#))?)(?: is)?[\s:#=]{1,3}"
    r"(?P<value>\d{3}[ -]?\d{2}[ -]?\d{4})(?![\w-]|[.,]\d)",
    re.IGNORECASE,
)
_INTERNATIONAL = r"(?:\+\s?|00(?: (?=[1-9])|(?=\d{1,3}[ ./-])))[1-9](?:[ .\-/()]{0,3}\d){6,14}"
_BEHIND_WORD = re.compile(
    rf"(?<![A-Za-z]){_PHONE_WORD}\b[^\w\n(+]{{0,4}}(?:[a-zA-Z]{{2,8}}[ :]{{1,2}}){{0,2}}"
    r"(?P<value>\(?\d(?:[ .\-/()]{0,3}\d){6,14})(?!\w)",
    re.IGNORECASE,
)
_NATIONAL = (
    r"(?:1[ .-])?(?:\([2-9]\d\d\)[\s-]?|[2-9]\d\d[ .-])[2-9]\d\d[ .-]\d{4}",  # North America
    r"\(?0[1-9]\d{0,4}\)?[ ./-]{1,3}\d{2,8}(?:[ .-]\d{2,6}){0,4}",  # a trunk zero
    r"1[3-9]\d[ -]\d{4}[ -]\d{4}",  # China, mobile
)

_has_long_word = re.compile(r"(?<!\S)\S{15}").search
_has_at = re.compile(r"@|[\[(](?:at|AT)[\])]").search
_has_digits = re.compile(r"\d(?:[ .\-/()]{0,3}\d){6}").search
# Of each name in _SECRET_NAME a part: looking for a text is a hundred times faster than for the expression.
_SECRET_WORDS = (
    "key", "token", "secret", "code", "passw", "pwd", "phrase", "kennw", "mot de", "contras", "senha", "пароль", "密码",
)  # fmt: skip


def _has_secret_word(text: str) -> bool:
    lower = text.lower()
    return any(word in lower for word in _SECRET_WORDS)


FORMS = (
    Form("secret", PRIVATE_KEY, re.compile("-----BEGIN ").search),
    Form("secret", KEYS, _has_long_word),
    Form("secret", PASSWORD_IN_URL, re.compile("://").search),
    Form("secret", BEARER, re.compile("Bearer").search),
    Form("secret", _NAMED, _has_secret_word, _is_secret),
    Form("email", _EMAIL, _has_at),
    Form("iban", _IBAN, re.compile(r"[A-Za-z]{2}\d{2}").search, _is_iban),
    Form("ssn", _NAMED_SSN, re.compile("ssn|social sec", re.IGNORECASE).search, _is_ssn),
    Form("ssn", _SSN, re.compile(r"\d-\d\d-\d").search, _is_ssn),
    Form("card", re.compile(rf"(?<![\w.+-])(?:{_IN_FOURS}|(?:\d[ -]?){{12,18}}\d)(?![\w-]|\.\d)"),
         _has_digits, _is_card),
    Form("ip", re.compile(r"(?<![\w.-])(?P<value>\d{1,3}(?:\.\d{1,3}){3})(?![\w-]|\.\d)"),
         re.compile(r"\d\.\d{1,3}\.\d").search, _is_address),
    Form("ip", _IP6, re.compile("[0-9a-fA-F]:[0-9a-fA-F]{0,4}:").search, _is_address),
    Form("phone", re.compile(rf"{_FREE}(?P<value>{_INTERNATIONAL})(?!\w)"), _has_digits, _is_phone),
    Form("phone", _BEHIND_WORD, _has_digits, _is_phone),
    Form("phone", re.compile(rf"{_FREE}(?P<value>{'|'.join(_NATIONAL)})(?![\w-]|[.,]\d)"), _has_digits, _is_national),
)  # fmt: skip
"""Tried in this order: a key may hold digits that look like a phone number."""
