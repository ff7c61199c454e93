"""Pages: one window of a run as the values of its record: plugin data, and summaries for the stock dashboards."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..deaths import Death, Event
from ..summaries import SiteSummary, Summary
from . import names
from .codes import Codes, channel_codes, rate_codes
from .plainly import finite, to_json
from .protos import Shelf, Value
from .thinning import Turns
from .units import Units

Array = NDArray[np.float64]

EDGES = np.linspace(0.0, 1.0, 30)
"""Edges of the histograms of activation rates."""

_TABLE = np.stack([EDGES[:-1], EDGES[1:], np.zeros(len(EDGES) - 1)], axis=1)

_TEXT_EVENTS = 40
_DEATH = tuple(Death.__dataclass_fields__)


class Pages:
    """Turns windows into values. What was measured stays as it is; nothing here knows a file."""

    def __init__(self, session: str, bound: int) -> None:
        self.causes: Counter[str] = Counter()
        self._session = session
        self._shelf = Shelf()
        self._turns = Turns(bound)
        self._bound = bound
        self._sites: list[dict[str, Any]] = []
        self._numbers: dict[tuple[str, int], int] = {}
        self._first_bias: dict[int, Array] = {}
        self._began: int | None = None
        self._told = False

    def tell_again(self) -> None:
        """Forget what the file holds already: what was written last did not reach it."""
        self._shelf = Shelf()
        self._told = False

    def table(self, summary: Summary | None) -> list[Value]:
        """Return the table of all sites, if the file lacks it or one of them."""
        if self._began is None:
            self._began = 0 if summary is None else int(summary.first)
        for site in () if summary is None else summary.sites:
            if (site.site, site.units) not in self._numbers:
                self._told = False
                self._numbers[site.site, site.units] = len(self._sites)
                self._sites.append(_facts(site))
        if self._told:
            return []
        self._told = True
        told = {"session": self._session, "began": self._began, "sites": self._sites}
        return [self._shelf.own(names.SITES, to_json(told), kind="sites")]

    def window(
        self, summary: Summary, index: int, samples: int, *, histograms: bool
    ) -> tuple[list[Value], list[Value]]:
        """Return the cells of the sites whose turn it is, and what else there is to say of a window."""
        sites, shelf = summary.sites, self._shelf
        chosen = self._turns.take([len(names.CHANNELS) * site.units for site in sites])
        numbers = [self._numbers[site.site, site.units] for site in sites]
        units = Units([site.units for site in sites])
        dead = units.mask(site.dead for site in sites)
        codes, scales = _codes(sites, units, dead)
        lines = np.full((len(self._sites), len(names.COLUMNS)), np.nan)
        lines[numbers] = np.concatenate([self._columns(sites, numbers, units, dead), scales], axis=1)
        cells = []
        stock = self._of_the_run(summary)
        for place in chosen:
            number, about = numbers[place], {"kind": "cells", "channels": names.CHANNELS}
            content = np.ascontiguousarray(codes[:, units.part(place)])
            cells.append(shelf.own(names.cells_tag(number), content, number=number, **about))
            stock += self._of_the_site(sites[place].site, lines[number])
        if histograms:
            stock += self._histograms(sites, units, chosen)
        told = {
            "session": self._session,
            "window": index,
            "first": int(summary.first),
            "last": int(summary.last),
            "dead_fraction": finite(summary.dead_fraction),
            "rates": {group: finite(rate) for group, rate in summary.rates.items()},
            "samples": int(samples),
            "waiting": len(sites) - len(chosen),
            "bound": self._bound,
        }
        own = [
            shelf.own(names.LINES, lines, kind="lines", columns=names.COLUMNS),
            shelf.own(names.WINDOW, to_json(told), kind="window"),
        ]
        return cells, own + stock

    def happened(self, summary: Summary) -> list[Value]:
        """Return the deaths, revivals and events of a window; nothing if nothing happened."""
        if not (summary.deaths or summary.revived or summary.events):
            return []
        told = {
            "fields": _DEATH,
            "deaths": _rows(summary.deaths),
            "revived": _rows(summary.revived),
            "events": [event.to_dict() for event in summary.events],
        }
        values = [self._shelf.own(names.HAPPENED, to_json(told), kind="happened")]
        return values + ([self._shelf.text("deadrelu/report", _in_words(summary.events))] if summary.events else [])

    def ending(self, report: bytes) -> list[Value]:
        """Return the final report as a value."""
        return [self._shelf.own(names.REPORT, report, kind="report", encoding="zlib")]

    def closing_words(self, markdown: str) -> list[Value]:
        """Return the final report for the text dashboard."""
        return [self._shelf.text("deadrelu/report", markdown)]

    def _columns(
        self, sites: Sequence[SiteSummary], numbers: Sequence[int], units: Units, dead: NDArray[np.bool_]
    ) -> Array:
        """Return what COLUMNS say of each site, without the ends of its scales."""
        silent = dead | units.mask(site.silent for site in sites)
        mortal = np.array([site.can_die for site in sites], bool)
        for number, site in zip(numbers, sites, strict=True):
            if site.bias is not None and number not in self._first_bias:
                self._first_bias[number] = np.array(site.bias, np.float64)
        first = units.join(self._first_bias.get(number) for number in numbers)
        with np.errstate(invalid="ignore", over="ignore"):
            moved = units.join(site.bias for site in sites) - first
            squares = np.square(units.join(site.grad_flow for site in sites))
        columns = (
            np.where(mortal, units.mean(dead), np.nan),
            np.where(mortal, units.mean(silent), np.nan),
            units.mean(moved),
            np.sqrt(units.mean(squares)),
            np.array([_median(site.update_ratio) for site in sites]),
        )
        return np.stack(columns, axis=1)

    def _of_the_run(self, summary: Summary) -> list[Value]:
        largest = max((rate for rate in summary.rates.values() if math.isfinite(rate)), default=0.0)
        found = {"deadrelu/dead_fraction": summary.dead_fraction}
        if largest > 0:
            found["deadrelu/log10_lr"] = math.log10(largest)
        found.update({f"deadrelu_causes/{cause}": float(units) for cause, units in self.causes.items()})
        return [self._shelf.scalar(tag, number) for tag, number in found.items() if number is not None]

    def _of_the_site(self, site: str, line: Array) -> list[Value]:
        columns = (("dead_fraction", line[0]), ("bias_drift", line[2]), ("grad_flow", line[3]))
        return [
            self._shelf.scalar(f"deadrelu_layers/{column}/{site}", float(number))
            for column, number in columns
            if math.isfinite(number)
        ]

    def _histograms(self, sites: Sequence[SiteSummary], units: Units, chosen: Sequence[int]) -> list[Value]:
        bins = len(_TABLE)
        rates = units.join(site.activation_rate for site in sites)
        known = np.isfinite(rates)
        place = np.minimum((np.clip(rates[known], 0.0, 1.0) * bins).astype(np.intp), bins - 1)
        owner = units.spread(np.arange(len(sites)))[known]
        counts = np.bincount(owner * bins + place, minlength=bins * len(sites)).reshape(-1, bins)
        values = []
        for site in chosen:
            if counts[site].any():
                table = _TABLE.copy()
                table[:, 2] = counts[site]
                values.append(self._shelf.histogram(f"deadrelu_units/{sites[site].site}", table))
        return values


def _facts(site: SiteSummary) -> dict[str, Any]:
    return {
        "site": site.site,
        "op": site.op,
        "source": site.source,
        "producers": list(site.producers),
        "units": site.units,
        "can_die": site.can_die,
    }


def _codes(sites: Sequence[SiteSummary], units: Units, dead: NDArray[np.bool_]) -> tuple[Codes, Array]:
    """Return the cells of all sites (CHANNELS, units), and the ends of the scales of `grad` and `bias` (sites, 4)."""
    rate = units.join(site.activation_rate for site in sites)
    grad, *grad_ends = channel_codes(units.join(site.grad_flow for site in sites), dead, units, "log")
    bias, *bias_ends = channel_codes(units.join(site.bias for site in sites), dead, units, "linear")
    codes = np.stack([rate_codes(rate, units.mask(site.silent for site in sites), dead), grad, bias])
    return codes, np.stack([*grad_ends, *bias_ends], axis=1)


def _median(values: Array | None) -> float:
    known = np.empty(0) if values is None else values[np.isfinite(values)]
    middle = (len(known) - 1) // 2
    return float(np.partition(known, middle)[middle]) if len(known) else math.nan


def _rows(deaths: Sequence[Death]) -> list[list[Any]]:
    """Return deaths as rows of the fields of `Death`, so that their names stand once."""
    return [[_finite(getattr(death, name)) for name in _DEATH] for death in deaths]


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(part) for name, part in value.items()}
    return finite(value) if isinstance(value, float) else value


def _in_words(events: Sequence[Event]) -> str:
    """Return events as Markdown, as they stand: names in it are nobody's markup."""
    lines = [str(event) for event in events[:_TEXT_EVENTS]]
    if len(events) > _TEXT_EVENTS:
        lines.append(f"and {len(events) - _TEXT_EVENTS} more")
    safe = ("".join(c if c.isprintable() and c != "`" else "?" for c in line) for line in lines)
    return "\n".join(["```", *safe, "```"])
