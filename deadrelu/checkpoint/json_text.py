"""JSON text of a file that somebody else wrote: bounded before it is parsed, and without keys given twice."""

from __future__ import annotations

import json
from typing import Any

from .refusals import Damaged, Unreadable

_MOST_VALUES = 4_000_000


def parse_object(text: bytes, what: str) -> dict[str, Any]:
    """Return the JSON object in `text`; `what` names it in the message.

    Raises:
        Unreadable: it is no JSON object, is nested without end, holds a key twice, or too many values.
    """
    if sum(text.count(mark) for mark in (b",", b"[", b"{")) > _MOST_VALUES:
        raise Unreadable(f"{what} holds more than {_MOST_VALUES:,} values, which no checkpoint needs")
    try:
        held = json.loads(text.decode("utf-8"), object_pairs_hook=_once)
    except (ValueError, RecursionError):
        raise Unreadable(f"{what} is damaged or cut short: it is no JSON; copy or save it again") from None
    if not isinstance(held, dict):
        raise Unreadable(f"{what} holds no JSON object; copy or save it again")
    return held


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for key, value in pairs:
        if key in made:
            raise Unreadable(f"it holds the key {key[:80]!r} twice, which no program writes; save it again")
        made[key] = value
    return made


def count_of(value: object) -> int:
    """Return `value` as a number of bytes or elements.

    Raises:
        Damaged: it is none.
    """
    if type(value) is not int or value < 0:
        raise Damaged
    return value
