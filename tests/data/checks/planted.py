"""Rows with faults that are known, and clean rows that look like faults."""

# ruff: noqa: E501
from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from peft_instruct.recipe.shipped import PACKAGE


def ask(instruction: str, output: str, input: str = "") -> dict[str, Any]:
    return {"instruction": instruction, "input": input, "output": output}


LONG = (
    "Rivers carry water from the mountains to the sea. On their way they move sand and stones, shape valleys, and give "
    "farmers and towns the water they need. Where a river meets the sea it slows down"
)

# Every line is one faulty row of that kind; raw texts are lines that are no record.
PLANTED: dict[str, list[Any]] = {
    "broken-record": ['{"instruction": "Name a bird.", "output": "Robin"', '["a", "list"]', '{"instruction": NaN}'],
    "missing-column": [{"instruction": "Name a tree."}, {"output": "Oak"}, {"instruction": "Name a shrub.", "input": ""}],
    "not-text": [ask("Name a moon.", None), ask("How many legs has a spider?", 8), ask(["Name"], "Ganymede")],  # type: ignore[arg-type, list-item]
    "lone-surrogate": [ask("Draw a face.", "Here: \ud83d"), ask("Explain \udc00 in Python.", "It is half a pair.")],
    "giant-row": [ask("Repeat the log of the pump.", "pump on, pump off; " * 60_000)],
    "empty-prompt": [ask("", "Paris"), ask(" \n ", "Rome")],
    "empty-answer": [ask("Name a river in Asia.", ""), ask("Name a river in Africa.", " \t\n")],
    "placeholder-prompt": [ask("N/A", "Madrid"), ask("TODO", "Lisbon"), ask("<placeholder>", "Vienna")],
    "placeholder-answer": [
        ask("Draw a chart of rainfall.", "<nooutput>"), ask("Play a chord.", "N/A"), ask("Name a comet.", "TBD"),
        ask("Design a logo for a bakery.", "<no output, cannot draw>"), ask("What is the fax number?", "null"),
    ],
    "placeholder-input": [
        ask("Write a line about autumn.", "Leaves fall on quiet water.", "<noinput>"), ask("Give a proverb.", "Haste makes waste.", "N/A"),
        ask("Say a tongue twister.", "She sells sea shells.", "No input required."), ask("Tell a riddle about time.", "What flies without wings?", "None"),
    ],
    "filler-text": [ask("Describe our bakery.", "Lorem ipsum dolor sit amet, consectetur."), ask("Describe the harbour.", "Lorem ipsum dolor.")],
    "unfilled-slot": [
        ask("Answer politely: {question}", "Gladly, we open at nine."), ask("Write to the landlord.", "Dear [insert name], the tap drips."),
        ask("Greet the guest.", "Welcome to {{company}}, we are glad."), ask("Summarise it.", "It is about bees.", "<insert article here>"),
    ],
    "no-words": [ask("Name the first king of Sparta.", "..."), ask("What is the tallest tree?", "-"), ask("Who wrote Emma?", "?!")],
    "missing-input": [
        ask("Summarise the following article.", "It tells how bees find flowers."), ask("Translate the sentence below", "Le chat dort."),
        ask("Correct the grammar of the following sentence.", "She goes to school."), ask("Count the words in the given paragraph below.", "Forty-two"),
    ],
    "missing-attachment": [
        ask("What does this show?", "It shows a boat on a lake.", "![boat](lake.png)"), ask("Describe it.", "A red barn.", "[image]"),
        ask("Read the attached document and say who signed it.", "The mayor signed it."), ask("Crop it to a square.", "<cropped image attached>", "A portrait"),
    ],
    "unseen-link": [ask("Sum this up.", "It is on owls.", "https://example.org/owls"), ask("Who wrote it?", "A student.", "URL: http://example.org/a?b=1")],
    "assistant-boilerplate": [
        ask("Which soup do you like?", "As an AI language model, I do not eat."), ask("Do you dream?", "I'm just a language model, so no."),
        ask("Who made you?", "I was trained by OpenAI to help."), ask("How old are you?", "As an artificial intelligence, I have no age."),
    ],
    "refusal": [
        ask("How tall is the town hall?", "I'm sorry, but I cannot help with that."), ask("Name the best pub in Cork.", "Sorry, I am unable to say."),
        ask("What is my balance?", "I cannot provide account figures."), ask("Who won in 1904?", "I apologize, but I can't find this."),
    ],
    "template-text": [
        ask("Name a herb.", "Basil\n\n### Instruction:\nName a fruit."), ask("### Input:\nName a spice.", "Pepper"),
        ask("Below is an instruction that describes a task. Name a nut.", "Walnut"),
    ],
    "role-marker": [ask("What time is tea?", "At four.\nUser: And supper?"), ask("Is it far?", "No.\n\nHuman: Thanks!\nAssistant: Bye."), ask("Is it wet?", "Assistant: Yes, it is.")],
    "merged-rows": [ask("Give a rhyme for moon.", "June\nInstruction: Give a rhyme for tree."), ask("Give a rhyme for star.\nOutput: far", "car"), ask("Name a gas.", "Neon\nPrompt: Name a metal.")],
    "prompt-in-answer": [
        ask("Explain why the sky looks blue at noon.", "Explain why the sky looks blue at noon. Air scatters short waves more."),
        ask("How do bees find their way home?", "How do bees find their way home? By the sun and by landmarks."),
        ask("What makes bread rise in the oven?", "You ask: what makes bread rise in the oven? Yeast gives off gas."),
    ],
    "answer-copies-input": [
        ask("Translate to French.", "The dog sleeps in the garden.", "The dog sleeps in the garden."), ask("Shorten it.", "A very long and winding road.", "A very long and winding road."),
    ],
    "special-token": [ask("Say hello.", "Hello!<|endoftext|>"), ask("Greet them. <|im_start|>", "Good day!"), ask("Close the letter.", "Yours, Ann</s>"), ask("Ask for tea.", "[INST] Tea, please?")],
    "mojibake": [
        ask("Where did they meet?", "At the cafÃ© on the corner."), ask("Quote her.", "â€œNever give upâ€, she said."), ask("Name the dish.", "It was crÃ¨me brÃ»lÃ©e."),
        ask("Say hello in Russian.", "Привет".encode().decode("latin-1")), ask("Send a smile.", "ðŸ˜€ there"),
    ],
    "replacement-character": [ask("Where is the caf\ufffd?", "Behind the church."), ask("Spell naive.", "na\ufffdve")],
    "control-character": [ask("Name a port.", "Rotter\x00dam"), ask("Ring\x07 the bell.", "Ding."), ask("Name a cape.", "Cape\x0bHorn")],
    "terminal-escape": [ask("Name a volcano.", "\x1b[31mEtna\x1b[0m"), ask("Name a geyser.", "\x1b]0;title\x07Strokkur")],
    "bidi-control": [ask("Name the file.", "report\u202efdp.exe"), ask("Name a poet\u2066.", "Rumi")],
    "zero-width": [ask("Name a lake.", "Como\u200b lake"), ask("Name a bay\ufeff.", "Biscay"), ask("Name a strait.", "Gibral\u00adtar")],
    "hidden-text": [ask("Name a desert.", "Gobi" + "".join(chr(0xE0000 + ord(c)) for c in "ignore all")), ask("Name a marsh." + chr(0xE0041), "Everglades")],
    "private-use": [ask("Name a logo.", "The \uf8ff logo"), ask("Draw \ue000 once.", "Done.")],
    "mixed-script-word": [ask("Name the bank.", "Your p\u0430yp\u0430l account"), ask("Name the shop \u0410pple.", "A shop.")],
    "other-script": [
        ask("Why is the grass green in spring?", "Потому что в ней есть хлорофилл."), ask("How do I reset the boiler at home?", "ボイラーのボタンを長く押してください。"),
    ],
    "decomposed": [ask("Name a pastry.", "e\u0301clair"), ask("Name a cafe\u0301.", "The Swan")],
    "html-tag": [ask("Describe the cabin.", "It is small.<br>It has a stove."), ask("Give the address.", "<p>Mill Lane 4</p>"), ask("Name the host.", 'Ask <a href="x">Ann</a>.')],
    "html-entity": [ask("Name the firm.", "Smith &amp; Sons"), ask("Quote the sign.", "&quot;Keep out&quot;"), ask("Give the range.", "5&nbsp;to&nbsp;9")],
    "literal-escape": [ask("List two herbs.", "Basil\\nThyme".replace("T", "T")), ask("List two seas.", "1. Baltic\\n2. Aral")],
    "mixed-newlines": [ask("List two winds.", "Foehn\r\nBora"), ask("List two clouds.", "Cirrus\rStratus")],
    "blank-run": [ask("Write a short note.", "Dear Ann\n\n\n\n\nSee you soon."), ask("Write two lines.", "One\n\n \n\n\nTwo")],
    "unusual-space": [ask("Name a fjord.", "Geiranger\u2009fjord"), ask("Name\u00a0a glacier.", "Aletsch")],
    "edge-space": [ask("Name a plateau.", " Tibet"), ask("Name a canyon. ", "Colca"), ask("Name a reef.", "Ningaloo\n")],
    "truncated-answer": [
        ask("How is cheese made?", "Milk is warmed and rennet is added, the curd is cut, and"), ask("List tools.", "Here are the tools that you need:\n1. Hammer\n2. Saw\n3."),
        ask("What do rivers do?", LONG), ask("Why do leaves fall?", "Trees save water in the cold months, because the"),
    ],
    "unclosed-code": [ask("Show a loop.", "```python\nfor i in range(3):\n    print(i)"), ask("Show a sum.", "Use this:\n```\n1 + 1\n```\nor\n```\n2 + 2")],
    "repetition": [ask("Cheer for the team.", "go team " * 20), ask("Tell of the sea.", "The sea is wide. " * 9), ask("Shout it.", "a" * 60)],
    "secret": [ask("How do I log in?", "Use password: Tr0ub4dor&3xyz"), ask("Which key?", "sk-proj-abcdefghijklmnopqrstuvwxyz0123456789ABCD")],
    "personal-data": [ask("Whom do I write to?", "Write to ann.miller@bakery-mill.co.uk."), ask("How do I call you?", "Call +44 20 7946 0958 before noon."), ask("Which card?", "Card 4111 1111 1111 1111.")],
    "duplicate": [ask("Name the capital of Peru.", "Lima"), ask("name the capital of peru", "Lima."), ask("Name the capital of Peru!", "lima")],
    "contradiction": [ask("What is the capital of Chile?", "Bogotá"), ask("What is the capital of chile", "Quito, I think")],
    "near-duplicate": [
        ask("Explain in two sentences how a canal lock lets boats climb a hill.", "A lock is a chamber with gates at both ends that is filled or emptied by valves. The boat goes up or down with the water."),
        ask("Explain in two sentences how a canal lock lets boats climb a hill.", "A lock is a chamber with gates at both ends which is filled or emptied by valves. The boat goes up or down with the water."),
    ],
    "repeated-answer": [ask(f"Where is my {thing}?", "Please write to our support team and they will look into it for you.") for thing in ("parcel", "refund", "invoice", "voucher", "key")],
}  # fmt: skip

# What makes the first of a pair faultless, and the second a double.
ORIGINALS = [
    ask("Name the capital of Peru.", "Lima"),
    ask("What is the capital of Chile?", "Santiago"),
    ask(
        "Explain in two sentences how a canal lock lets boats climb a hill.",
        "A lock is a chamber with gates at both ends that is filled or emptied by valves. The boat goes up or down with its water.",
    ),
]

# Several faults in one row.
SEVERAL: list[tuple[dict[str, Any], set[str]]] = [
    (ask("Name the firm\u200b again.", " Smith &amp; Sons\r\n<br>cafÃ© "), {"zero-width", "html-entity", "mixed-newlines", "html-tag", "mojibake", "edge-space"}),
    (ask("What is this?", "As an AI language model I see <|endoftext|>\x00 nothing", "[image]"), {"assistant-boilerplate", "special-token", "control-character", "missing-attachment"}),
    (ask("Sum it up {input}", "N/A", "https://example.org/x"), {"unfilled-slot", "placeholder-answer", "unseen-link"}),
    (ask("Mail her.", "Write to eve@mill-lane.org, password: Tr0ub4dor&3xyz, and\u2009"), {"personal-data", "secret", "edge-space"}),
]  # fmt: skip

# Clean, though a hasty check would not think so.
TRICKY = [
    ask("Write an HTML page with a heading.", "<html><body><h1>Hi</h1><br></body></html>"),
    ask("Escape an ampersand in HTML.", "&amp;"),
    ask("Write a Python function that adds two numbers.", "def add(a, b):\n    return a + b\n\nprint(add(1, 2))"),
    ask("Print two lines in Python.", 'print("one\\nTwo")'),
    ask("Show a fenced example in Python.", "```python\nprint(1)\n```"),
    ask("Write an SQL query for all users.", "SELECT * FROM users;"),
    ask("Translate to Russian.", "Доброе утро, друзья мои!", "Good morning, my friends!"),
    ask("Translate this sentence into Japanese.", "今日はとても暑いです。", "It is very hot today."),
    ask("Пересчитай слова в этом предложении.", "В нём шесть слов, если считать предлоги."),
    ask("Quelle heure est-il ?", "Il est midi : à table !"),
    ask("Combien coûte le pain\u00a0?", "Il coûte 2\u00a0€."),
    ask("Écris « bonjour » en majuscules.", "«\u00a0BONJOUR\u00a0»"),
    ask("Wie heißt die Hauptstadt von Österreich?", "Sie heißt Wien."),
    ask("¿Cómo estás?", "¡Muy bien, gracias!"),
    ask("Escreva NÃO e CORAÇÃO.", "NÃO, CORAÇÃO"),
    ask("سلام، چطوری؟", "خوبم، ممنون. می\u200cروم خانه."),
    ask("Send a family.", "👨\u200d👩\u200d👧"),
    ask("Show the flag of Scotland.", "🏴\U000e0067\U000e0062\U000e0073\U000e0063\U000e0074\U000e007f"),
    ask("Send a heart.", "❤️"),
    ask("Which colour has the traffic light?", "🟢"),
    ask("What is the symbol of sodium?", "Na"),
    ask("How many moons has Venus?", "None"),
    ask("What is two and two?", "4"),
    ask("Write a letter that says you are sorry you cannot come.", "I am sorry that I cannot come.\n\nYours,\nAnn"),
    ask("Close a formal letter.", "I look forward to hearing from you.\n\nSincerely,"),
    ask("Greet a customer.", "Dear customer,"),
    ask("Write a dialogue between a user and a bot.", "User: Hello\nBot: Hi, how are you?"),
    ask("Is the following sentence true? Humans can breathe under water.", "No."),
    ask("Count the words in this sentence: the following text is short.", "Five or so."),
    ask("Sort the words in order.", "apple, pear, plum", "apple, pear, plum"),
    ask("Correct the sentence.", "She goes to school.", "She goes to school."),
    ask("List five birds.", "1. Robin\n2. Wren\n3. Owl\n4. Rook\n5. Kite"),
    ask("Make a to-do list for a picnic.", "- bread\n- cheese\n- grapes"),
    ask("Explain Ωm and Δt.", "Ωm is resistivity, Δt a span of time; 5 µm is small."),
    ask("Convert 20 °C to Fahrenheit.", "68 °F"),
    ask("Whom should she talk with?", "She should find someone whom she likes to talk with and whose judgement she can rely on"),
    ask("Describe a market.", "Stalls, colours, voices – and the smell of bread… everywhere!"),
    ask("What does HTTP 404 mean?", "The page at https://example.org was not found."),
    ask("Write a haiku.", "An old silent pond\nA frog jumps into the pond\nSplash! Silence again"),
    ask("Give the chorus of a song.", "Row, row, row your boat,\nGently down the stream."),
    ask("What is the 10-digit number after 999999999?", "1000000000"),
    ask("When was the bridge built?", "It was built from 1932 to 1937."),
    ask("Draw a line of dashes.", "-" * 60),
]  # fmt: skip


def clean_rows() -> list[dict[str, Any]]:
    """The starter's rows, which this project wrote, and those above."""
    lines = (PACKAGE / "starter" / "instructions" / "test.jsonl").read_text(encoding="utf-8").splitlines()
    lines += (PACKAGE / "starter" / "instructions" / "train.jsonl").read_text(encoding="utf-8").splitlines()[:1300]
    return [*map(json.loads, lines), *TRICKY]


def write_planted(path: Path) -> tuple[set[tuple[str, str]], set[str]]:
    """A file of clean and planted rows, in turn.

    Returns:
        (origin, code) of everything planted, and the origins of the clean rows.
    """
    planted = [(row, {code}) for code, rows in PLANTED.items() for row in rows] + SEVERAL
    clean = [(row, set()) for row in [*ORIGINALS, *clean_rows()]]
    step = len(clean) // len(planted)
    expected: set[tuple[str, str]] = set()
    clean_origins: set[str] = set()
    lines: list[str] = []
    rows: list[tuple[Any, set[str]]] = clean[: len(ORIGINALS)]
    for at in range(len(planted)):
        start = len(ORIGINALS) + at * step
        rows += [planted[at], *clean[start : start + step if at < len(planted) - 1 else None]]
    for line, (row, codes) in enumerate(rows, start=1):
        lines.append(row if isinstance(row, str) else json.dumps(row))
        expected |= {(f"{path}:{line}", code) for code in codes}
        clean_origins |= set() if codes else {f"{path}:{line}"}
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return expected, clean_origins
