"""Exports as the help desks Zendesk and Intercom write them: the talks, among tickets that nobody answered."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from scattered import as_html, scattered, shown
from talks import PEOPLE


def write_zendesk(path: Path) -> Path:
    """Tickets with public and internal comments, some by triggers, some that quote the mail they answer."""
    tickets = []
    number = 5000
    for item in scattered(seed=3, num_noise=60):
        number += 1
        said = [("jo", "Is my ticket still open?"), ("jo", "Hello?")] if isinstance(item, int) else item.said
        requester = said[0][0]
        comments: list[dict[str, Any]] = []
        for person, text in said:
            body = shown(text)
            if person != requester and number % 2:
                body += f"\n\nBest regards,\n{PEOPLE[person]}\nSupport"
            if person != requester and number % 3 == 0:
                body += f"\n\nOn Mon, 2 Mar 2026 at 09:00, {PEOPLE[requester]} <a@example.org> wrote:\n> {said[0][1]}\n"
            comments.append({"id": len(comments) + 1, "author_id": _number(person), "body": body, "public": True,
                             "created_at": "2026-03-02T09:00:00Z"})  # fmt: skip
        comments.insert(1, {"id": 90, "author_id": _number("bo"), "body": "internal: angry customer", "public": False})
        comments.append({"id": 91, "author_id": -1, "body": "Ticket closed automatically", "public": True})
        tickets.append({"id": number, "requester_id": _number(requester), "subject": "help", "comments": comments})
    path.write_text(json.dumps({"tickets": tickets, "count": len(tickets)}), encoding="utf-8")
    return path


def _number(person: str) -> int:
    return 300 + sorted(PEOPLE).index(person)


def write_intercom(path: Path) -> Path:
    """Conversations, one a line, with parts in HTML: comments, notes, assignments, bot greetings."""
    lines = []
    for number, item in enumerate(scattered(seed=4, num_noise=70), start=1):
        said = (("jo", "Hi"),) if isinstance(item, int) else item.said
        (asker, first), *rest = said
        parts = [
            {"id": "a", "part_type": "assignment", "body": None, "author": {"type": "admin", "id": "1"}},
            {
                "id": "b",
                "part_type": "comment",
                "body": "<p>We reply in 2 hours.</p>",
                "author": {"type": "bot", "id": "2"},
            },
            {"id": "c", "part_type": "note", "body": "<p>VIP</p>", "author": {"type": "admin", "id": "1"}},
        ]
        for place, (person, text) in enumerate(rest):
            kind = "user" if person == asker else "admin"
            parts.append({"id": f"p{place}", "part_type": "comment", "body": as_html(shown(text)),
                          "created_at": 1772438400 + place, "author": {"type": kind, "id": person}})  # fmt: skip
        parts.append({"id": "z", "part_type": "close", "body": None, "author": {"type": "admin", "id": "1"}})
        source = {
            "id": "s",
            "type": "conversation",
            "body": as_html(shown(first)),
            "author": {"type": "lead", "id": asker},
        }
        lines.append({"type": "conversation", "id": str(number), "created_at": 1772438400, "source": source,
                      "conversation_parts": {"type": "conversation_part.list",
                                             "conversation_parts": parts}})  # fmt: skip
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path
