"""What people say in the exports of these tests, and by hand the row that each conversation must become.

`@[ana]` stands for a mention in whatever form an export writes it; the rows show the name.
"""

from __future__ import annotations

from dataclasses import dataclass

PEOPLE = {
    "ana": "Ana Sørensen", "bo": "Bo Lindqvist", "chen": "陈伟", "dora": "Dóra Kiss", "eli": "Eli Cohen",
    "fatima": "فاطمة", "gus": "Gus O'Neil", "hana": "花", "ivan": "Иван", "jo": "jo_42",
}  # fmt: skip


@dataclass(frozen=True)
class Talk:
    """A conversation; `answer` is None where no row may come of it.

    Attributes:
        said: who says what; the first is who asks.
        question, answer: the row.
    """

    said: tuple[tuple[str, str], ...]
    question: str = ""
    answer: str | None = None


INSTALL = """You need the `[test]` extra:

```
pip install -e '.[test]'
pytest -x   # stops at the first failure
```

Then it works."""

TALKS = (
    Talk(
        (("ana", "How do I run the tests?"), ("bo", INSTALL), ("ana", "Great, thanks!")),
        "How do I run the tests?",
        "You need the `[test]` extra:\n\n```\npip install -e '.[test]'\npytest -x   # stops at the first failure\n```"
        "\n\nThen it works.",
    ),
    Talk(
        (("chen", "请问如何更改密码？"), ("dora", "在设置 → 账户里可以修改密码。🙂")),
        "请问如何更改密码？",
        "在设置 → 账户里可以修改密码。🙂",
    ),
    Talk(
        (
            ("eli", "My build fails since this morning."),
            ("eli", "The message is `ld: symbol not found`, on macOS 15."),
            ("gus", "@[eli] clear the cache first: `make clean`."),
            ("bo", "And update the linker to 1.2.3."),
        ),
        "My build fails since this morning.\n\nThe message is `ld: symbol not found`, on macOS 15.",
        "@Eli Cohen clear the cache first: `make clean`.\n\nAnd update the linker to 1.2.3.",
    ),
    Talk(
        (("fatima", "كيف أغير لغة الواجهة؟"), ("ana", "من الإعدادات ثم اللغة.")),
        "كيف أغير لغة الواجهة؟",
        "من الإعدادات ثم اللغة.",
    ),
    Talk(
        (
            ("hana", "ログインできません。どうすればいいですか？"),
            ("chen", "キャッシュを消してから、もう一度試してください 🙏"),
            ("hana", "できました！"),
            ("chen", "よかったです。"),
        ),
        "ログインできません。どうすればいいですか？",
        "キャッシュを消してから、もう一度試してください 🙏",
    ),
    Talk(
        (
            ("ivan", "Как сравнить два списка, если a < b && c > d?"),
            ("jo", "Так: `sorted(a) < sorted(b)`, и помните про &amp; в HTML."),
        ),
        "Как сравнить два списка, если a < b && c > d?",
        "Так: `sorted(a) < sorted(b)`, и помните про &amp; в HTML.",
    ),
    Talk(
        (
            ("jo", "Can someone reset my account? It is jo.smith+test@example.org, phone +49 30 1234567."),
            ("dora", "Done. I sent a link to jo.smith+test@example.org and called (555) 234-5678 as well."),
        ),
        "Can someone reset my account? It is [EMAIL], phone [PHONE].",
        "Done. I sent a link to [EMAIL] and called [PHONE] as well.",
    ),
    Talk(
        (
            ("bo", "The deploy from 10.20.30.40 is refused, why?"),
            ("gus", "Your key AKIAIOSFODNN7EXAMPLE has expired, make a new one before 2026-12-01."),
        ),
        "The deploy from [IP] is refused, why?",
        "Your key [SECRET] has expired, make a new one before 2026-12-01.",
    ),
    Talk(
        (
            ("dora", "Wie kündige ich mein Abo?"),
            ("hana", "Unter Konto → Abo → „Kündigen“. Es läuft bis Monatsende weiter."),
        ),
        "Wie kündige ich mein Abo?",
        "Unter Konto → Abo → „Kündigen“. Es läuft bis Monatsende weiter.",
    ),
    Talk(
        (
            ("gus", "Où trouver mes factures ?"),
            ("fatima", "Dans l'onglet « Facturation ».\n\nVous pouvez :\n- les voir\n- les télécharger"),
        ),
        "Où trouver mes factures ?",
        "Dans l'onglet « Facturation ».\n\nVous pouvez :\n- les voir\n- les télécharger",
    ),
    Talk(
        (
            ("ana", "¿Hay descuento para estudiantes?"),
            ("ivan", "Sí, un 50 %. Manda tu carné 🎓 a @[gus]."),
            ("ana", "¿Y para profesores?"),
            ("ivan", "También, el mismo."),
        ),
        "¿Hay descuento para estudiantes?",
        "Sí, un 50 %. Manda tu carné 🎓 a @Gus O'Neil.",
    ),
    Talk(
        (
            ("chen", "I was charged twice, card 4111 1111 1111 1111, order 2026-0042."),
            ("eli", "Sorry about that! I refunded $49.90 for order 2026-0042; it takes 3-5 days."),
        ),
        "I was charged twice, card [CARD], order 2026-0042.",
        "Sorry about that! I refunded $49.90 for order 2026-0042; it takes 3-5 days.",
    ),
    Talk(
        (
            ("fatima", "Is there a dark theme? My eyes hurt 😅"),
            ("bo", "From version 2.1.0 on there is: set `theme: dark`."),
            ("ana", "@[fatima] and @[bo]: `theme: auto` follows the system."),
        ),
        "Is there a dark theme? My eyes hurt 😅",
        "From version 2.1.0 on there is: set `theme: dark`.\n\n"
        "@فاطمة and @Bo Lindqvist: `theme: auto` follows the system.",
    ),
    Talk(
        (
            ("hana", 'What does this do?\n\n```python\nfor i in range(3):\n    print(i, end=" ")\n```'),
            ("jo", "It prints `0 1 2 `, on one line."),
        ),
        'What does this do?\n\n```python\nfor i in range(3):\n    print(i, end=" ")\n```',
        "It prints `0 1 2 `, on one line.",
    ),
    Talk(
        (("ivan", "Kan jag exportera till CSV?"), ("dora", "Ja, under Arkiv → Exportera.")),
        "Kan jag exportera till CSV?",
        "Ja, under Arkiv → Exportera.",
    ),
    Talk(
        (("jo", "Does the mobile app work offline? 📱✈️"), ("chen", "Reading yes, writing no 👍🏽")),
        "Does the mobile app work offline? 📱✈️",
        "Reading yes, writing no 👍🏽",
    ),
    # No row may come of these.
    Talk((("bo", "Is anybody here?"),)),
    Talk((("eli", "I found it myself, never mind."), ("eli", "It was the proxy."))),
)

PAIRS = [(talk.question, talk.answer) for talk in TALKS if talk.answer is not None]

CHATTER = (
    "good morning ☀️", "lunch at 12:30?", "the release is out 🎉", "who broke main?", "see you tomorrow",
    "bonne journée !", "周末愉快", "Guten Morgen zusammen", "brb", "nice work on the docs",
    "coffee is ready ☕", "I am off on 2026-12-24",
)  # fmt: skip
