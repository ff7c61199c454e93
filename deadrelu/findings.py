"""Findings: the claims of a report without data, counted layer by layer."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .report import Report, SiteReport

UNKNOWN = "unknown"
"""The op of a site whose activation a checkpoint does not tell."""

PROVED = frozenset(("zero_row", "norm_bound", "interval_bound"))
"""Claims that a unit is dead, if a rectifier follows."""
GRADIENT = frozenset(("no_gradient", "never_gradient"))
"""Claims that its parameters have no gradient; it may fire all the same."""
VARIANCE = frozenset(("no_variance", "never_variance"))
"""Claims that the input of its norm does not vary."""
FROM_BIRTH = frozenset(("never_gradient",))
WHOLE_LAYER = "no unit of the layer has"
"""How the reason begins in `coverage` that the optimizer's state shows a whole layer to be without a gradient."""


@dataclass(frozen=True, slots=True, eq=False)
class Findings:
    """One site, counted. A unit counts in each kind of claim that it has.

    Attributes:
        site, units: as in the report.
        proved: units that are dead if a rectifier follows.
        no_gradient: units without a gradient of late, those that never had one included.
        never: those among them that never had one.
        no_variance: units whose norm sees no variance of late.
        heuristic: units that may be rare or silent.
        silent: proved, without a gradient, or without variance. Shape (units,).
        youngest, oldest: the least and the largest `steps` among the dated claims on a lost gradient: for about so many
            updates; None without one.
        at_least: some of them show no longer a silence than that; it may be much older.
        least, most: the least `low` and the largest `high` among them: between these all of them lie; None without one,
            and `most` None also where one has no upper bound.
    """

    site: str
    units: int
    proved: int
    no_gradient: int
    never: int
    no_variance: int
    heuristic: int
    silent: NDArray[np.bool_]
    youngest: int | None
    oldest: int | None
    at_least: bool
    least: int | None
    most: int | None

    @property
    def silent_fraction(self) -> float:
        """Silent units / units."""
        return float(self.silent.mean()) if self.units else 0.0

    @property
    def claimed(self) -> bool:
        """There is a claim on some unit."""
        return bool(self.silent.any() or self.heuristic)


def without_model(report: Report) -> bool:
    """Return whether a report was made of a checkpoint alone: no activation is known."""
    return report.mode == "checkpoint" and any(site.op == UNKNOWN for site in report.sites)


def findings(report: Report) -> tuple[Findings, ...]:
    """Return the findings of every site, in the order of the report."""
    return tuple(_count(site) for site in report.sites)


def silent_layers(report: Report) -> tuple[str, ...]:
    """Return the layers without a gradient as a whole: frozen, unused, converged, hidden by a spike, or dead."""
    known = {site.site for site in report}
    reasons = report.coverage.unsupported
    return tuple(dict.fromkeys(n for n, reason in reasons if n in known and reason.startswith(WHOLE_LAYER)))


def _count(site: SiteReport) -> Findings:
    proved, gradient, variance = (_units(site, kinds) for kinds in (PROVED, GRADIENT, VARIANCE))
    doubtful = {int(claim["unit"]) for claim in site.claims if claim.get("level") == "heuristic"}
    dated = [claim for claim in site.claims if claim.get("claim") == "no_gradient"]
    highs = [claim.get("high") for claim in dated]
    ages = [int(claim["steps"]) for claim in dated if claim.get("steps") is not None]
    silent = np.zeros(site.units, dtype=bool)
    silent[sorted(proved | gradient | variance)] = True
    return Findings(
        site=site.site,
        units=site.units,
        proved=len(proved),
        no_gradient=len(gradient),
        never=len(_units(site, FROM_BIRTH)),
        no_variance=len(variance),
        heuristic=len(doubtful - proved - gradient - variance),
        silent=silent,
        youngest=min(ages, default=None),
        oldest=max(ages, default=None),
        at_least=any(claim.get("at_least") for claim in dated),
        least=min((int(claim.get("low") or 0) for claim in dated), default=None),
        most=max((int(high) for high in highs if high is not None), default=None) if None not in highs else None,
    )


def _units(site: SiteReport, kinds: frozenset[str]) -> set[int]:
    return {
        int(claim["unit"]) for claim in site.claims if claim.get("claim") in kinds and claim.get("level") != "heuristic"
    }
