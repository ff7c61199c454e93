"""Tally: the few numbers of a site that fit on one line of a screen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ..report import Report, SiteReport
from .words import clean

Effect = Literal["", "undecided", "harmless", "weakened", "bottleneck", "cut off", "NaN"]
EFFECTS: tuple[Effect, ...] = ("", "undecided", "harmless", "weakened", "bottleneck", "cut off", "NaN")
"""What the silent units of a site do to the network, from nothing to the worst."""

WEAKENED_FROM = 0.05
"""Dead fraction from which a site is called weakened: below it, a layer has that much width to spare."""
BOTTLENECK_FROM = 0.5
"""Dead fraction from which a site is called a bottleneck: what follows sees half of the width or less."""


@dataclass(frozen=True, slots=True)
class Tally:
    """One site, counted.

    Attributes:
        name: the site's name with nothing in it that a terminal would obey.
        order: place in the order of first execution.
        nan: units whose pre-activation never was a number.
        nan_dead: those among them that are dead.
        infinite: units whose pre-activation reached +inf.
        starved: silent units that get nothing but zeros from before.
        flat_fraction: saturated and stuck units / units.
        median_rate: activation rate of the middle unit, None if nothing was seen.
        Others: as in `SiteReport`, arrays turned into numbers of units.
    """

    name: str
    order: int
    op: str
    source: str | None
    producers: tuple[str, ...]
    units: int
    can_die: bool
    dead: int
    undecided: int
    rare: int
    always_on: int
    saturated: int
    stuck_negative: int
    dormant: int
    grad_dead: int
    input_dead: int
    nan: int
    nan_dead: int
    infinite: int
    starved: int
    dead_fraction: float | None
    silent_fraction: float | None
    flat_fraction: float | None
    median_rate: float | None

    @property
    def silent(self) -> int:
        """Dead or undecided units."""
        return self.dead + self.undecided

    @property
    def flat(self) -> int:
        """Saturated or stuck units."""
        return self.saturated + self.stuck_negative

    @property
    def effect(self) -> Effect:
        """What the silent units of this site do to the network."""
        if self.nan:
            return "NaN"
        if not self.dead or self.dead_fraction is None:
            return "undecided" if self.undecided else ""
        if self.dead == self.units:
            return "cut off"
        if self.dead_fraction >= BOTTLENECK_FROM:
            return "bottleneck"
        return "weakened" if self.dead_fraction >= WEAKENED_FROM else "harmless"

    @property
    def badness(self) -> tuple[float, ...]:
        """Sort key: the worst site has the largest."""
        dead, silent = self.dead_fraction or 0.0, self.silent_fraction or 0.0
        return (self.effect == "NaN", dead, silent, self.dead, self.flat_fraction or 0.0, -self.order)


def tally(report: Report) -> tuple[Tally, ...]:
    """Count every site of a report, in order of first execution."""
    return tuple(_count(site, order) for order, site in enumerate(report.sites))


def worst_first(tallies: Iterable[Tally]) -> list[Tally]:
    """Return the sites in the order in which they deserve a look."""
    return sorted(tallies, key=lambda t: t.badness, reverse=True)


def _count(site: SiteReport, order: int) -> Tally:
    of = Counter(site.status)
    # without data, max_z is unknown rather than not a number
    nan = np.isnan(site.max_z) if site.positions else np.zeros(site.units, dtype=bool)
    rates = site.activation_rate[~np.isnan(site.activation_rate)]
    flat = of["saturated"] + of["stuck_negative"]
    return Tally(
        name=clean(site.site),
        order=order,
        op=clean(site.op),
        source=None if site.source is None else clean(site.source),
        producers=tuple(clean(p) for p in site.producers),
        units=site.units,
        can_die=site.can_die,
        dead=of["dead"],
        undecided=of["undecided"],
        rare=of["rare"],
        always_on=of["always_on"],
        saturated=of["saturated"],
        stuck_negative=of["stuck_negative"],
        dormant=int(site.dormant().sum()),
        grad_dead=int(site.grad_dead.sum()),
        input_dead=int(site.input_dead.sum()),
        nan=int(nan.sum()),
        nan_dead=int((nan & site.dead).sum()) if nan.any() else 0,
        infinite=int(np.isposinf(site.max_z).sum()),
        starved=int((site.input_dead & site.silent).sum()) if site.input_dead.any() else 0,
        dead_fraction=site.dead_fraction,
        silent_fraction=site.silent_fraction,
        flat_fraction=flat / site.units if site.units else None,
        median_rate=float(np.median(rates)) if rates.size else None,
    )
