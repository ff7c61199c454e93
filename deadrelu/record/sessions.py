"""Sessions: who wrote which rows of a record. A run that was begun anew, or resumed, in its folder has several."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from ..errors import InputError
from .plainly import refuse
from .source import Row

MOST_UNITS = 1 << 26
"""More units than any site has: a file that tells of more is damaged."""


@dataclass(slots=True)
class Session:
    """One writer's part of a record.

    Attributes:
        began: the first step that it saw.
        wall_time: when its first table was written.
        sites: what it says of its sites, by number.
    """

    began: int
    wall_time: float
    sites: list[dict[str, Any]] = field(default_factory=list)


class Sessions:
    """The sessions of a record, the oldest first. A later one replaces what an earlier one wrote of its steps."""

    def __init__(self, tables: Iterable[Row]) -> None:
        found: dict[str, Session] = {}
        for row in sorted(tables, key=lambda row: row.wall_time):
            told = document(row)
            session = found.setdefault(str(told["session"]), Session(int(told["began"]), row.wall_time))
            session.sites = [_checked(site) for site in told["sites"]]
        self._sessions = list(found.values())

    def __len__(self) -> int:
        return len(self._sessions)

    def of(self, row: Row) -> int:
        """Return the place of the session that wrote a row, -1 if a later one has replaced it."""
        place = -1
        for number, session in enumerate(self._sessions):
            if session.wall_time <= row.wall_time:
                place = number
            elif session.began <= row.step:
                return -1
        return place

    def valid(self, rows: Iterable[Row]) -> list[Row]:
        """Return the rows that hold: one per step, in order of their steps."""
        held = {row.step: row for row in sorted(rows, key=lambda row: row.wall_time) if self.of(row) >= 0}
        return [held[step] for step in sorted(held)]

    def sites(self) -> dict[str, dict[str, Any]]:
        """Return what is known of each site, by name, in order of first execution."""
        sites: dict[str, dict[str, Any]] = {}
        for session in self._sessions:
            for site in session.sites:
                sites[site["site"]] = site
        return sites

    def numbers(self, site: str) -> dict[int, int]:
        """Return the number of a site, as it now is, in each session that knows it."""
        units = self.sites()[site]["units"]
        return {
            place: number
            for place, session in enumerate(self._sessions)
            for number, told in enumerate(session.sites)
            if told["site"] == site and told["units"] == units
        }


def document(row: Row) -> dict[str, Any]:
    """Return the JSON object that a row holds.

    Raises:
        ValueError: it holds none.
    """
    if not isinstance(row.content, bytes):
        raise ValueError("expected text, found an array")
    told = json.loads(row.content, parse_constant=refuse)
    if not isinstance(told, dict):
        raise ValueError(f"expected an object, found {type(told).__name__}")
    return told


def _checked(site: dict[str, Any]) -> dict[str, Any]:
    units = int(site["units"])
    if not 0 <= units <= MOST_UNITS:
        raise InputError(
            f"the record tells of a site with {units} units; it is damaged, or was not written by deadrelu"
        )
    return {
        "site": str(site["site"]),
        "op": str(site["op"]),
        "source": None if site["source"] is None else str(site["source"]),
        "producers": tuple(str(producer) for producer in site["producers"]),
        "units": units,
        "can_die": bool(site["can_die"]),
    }
