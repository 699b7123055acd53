"""Fields of records that others wrote: read as what they should be, or as nothing."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timezone
from typing import Any


def text_of(record: Any, *keys: str) -> str:
    """The first of the fields that is text and not empty; a number counts as its digits (ids)."""
    if isinstance(record, dict):
        for key in keys:
            value = record.get(key)
            if isinstance(value, str) and value:
                return value
            if isinstance(value, int) and not isinstance(value, bool):
                return str(value)
    return ""


def record_of(record: Any, key: str) -> dict[str, Any]:
    value = record.get(key) if isinstance(record, dict) else None
    return value if isinstance(value, dict) else {}


def list_of(record: Any, key: str) -> list[Any]:
    value = record.get(key) if isinstance(record, dict) else None
    return value if isinstance(value, list) else []


def flattened(values: Iterator[Any], *keys: str) -> Iterator[Any]:
    """Records one by one, be they a list, the list under one of the keys, or given singly."""
    for value in values:
        inside = next((list_of(value, key) for key in keys if list_of(value, key)), None)
        if inside is not None:
            yield from inside
        elif isinstance(value, list):
            yield from value
        else:
            yield value


def iso_time(seconds: Any) -> str:
    """Seconds since 1970, as a number or its digits, as ISO 8601 in UTC; empty where that is no time."""
    try:
        return datetime.fromtimestamp(float(seconds), timezone.utc).isoformat(timespec="seconds")
    except (TypeError, ValueError, OverflowError, OSError):
        return ""
