"""Status: turns the counts of a site into one word per unit, and says how sure that is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from .counts import UnitCounts
from .rates import rate_upper, samples_needed, silent_upper
from .report import Confidence, SiteReport, Status
from .sites import Site

RARE = 0.01
"""A unit is rare if the upper bound of its sample rate is under 1 %."""


Found = tuple[Site, UnitCounts, NDArray[np.bool_]]
"""A site, its counts, and which of its units (units,) saw no input but 0."""


def site_reports(
    found: Sequence[Found], *, exhaustive: bool, rate: float = 1e-3, alpha: float = 0.05
) -> tuple[SiteReport, ...]:
    """Return what each unit of each site did.

    With `exhaustive`, the samples are all there are: every silent unit is dead, and the rate is known, not bounded.
    Else a silent unit is dead once its sample rate is under `rate` with confidence 1 - `alpha`.
    """
    counts = [c for _, c, _ in found]
    uppers = [_ratio(c.active_samples, c.samples) for c in counts] if exhaustive else _upper_bounds(counts, alpha)
    enough = 1 if exhaustive else samples_needed(rate, alpha)
    return tuple(_site_report(*one, upper, enough) for one, upper in zip(found, uppers, strict=True))


def training_report(
    site: Site,
    counts: UnitCounts,
    *,
    samples: int,
    dead: NDArray[np.bool_],
    quiet: NDArray[np.bool_],
    alpha: float = 0.05,
) -> SiteReport:
    """Return what each unit of a site did in the last window; `dead` and `quiet` (units,) are the recorder's word.

    A unit is dead if its death was confirmed and not taken back, undecided if it did not fire in the last window.
    """
    bounds = rate_upper(counts.active_samples, counts.samples, alpha=alpha)
    report = _site_report(site, counts, np.zeros(site.units, dtype=bool), bounds, 1)
    status = list(report.status)
    if site.kind.can_die:
        for unit in range(site.units):
            if dead[unit] or quiet[unit]:
                status[unit] = "dead" if dead[unit] else "undecided"
            elif status[unit] == "dead":  # it fired, though not where the dearer counts were taken
                status[unit] = "rare" if bounds[unit] < RARE else "active"
    return replace(report, status=tuple(status), samples=samples)


def _upper_bounds(counts: Sequence[UnitCounts], alpha: float) -> list[NDArray[np.float64]]:
    """Solved once for all sites that saw as many samples: units share few distinct counts."""
    bounds: dict[int, NDArray[np.float64]] = {}
    for samples in {c.samples for c in counts}:
        active = np.concatenate([c.active_samples for c in counts if c.samples == samples])
        bounds[samples] = rate_upper(active, samples, alpha=alpha)
    result = []
    for c in counts:
        units = len(c.active_samples)
        result.append(bounds[c.samples][:units])
        bounds[c.samples] = bounds[c.samples][units:]
    return result


def _site_report(
    site: Site, counts: UnitCounts, input_dead: NDArray[np.bool_], upper: NDArray[np.float64], enough: int
) -> SiteReport:
    grad_flow = None
    grad_dead = np.zeros(site.units, dtype=bool)
    if counts.grad_square is not None and counts.grad_max is not None:
        grad_flow = np.sqrt(_ratio(counts.grad_square, counts.grad_positions))
        grad_dead = (counts.active > 0) & (counts.grad_max == 0) & np.isfinite(counts.grad_square)
    return SiteReport(
        site=site.name,
        op=site.kind.name,
        source=site.source,
        producers=tuple(site.producers),
        unit_dim=site.unit_dim,
        units=site.units,
        can_die=site.kind.can_die,
        samples=counts.samples,
        positions=counts.positions,
        status=_statuses(site, counts, upper, enough=counts.samples >= enough),
        activation_rate=_ratio(counts.active, counts.positions),
        sample_rate=_ratio(counts.active_samples, counts.samples),
        rate_upper=upper,
        max_z=counts.max_z,
        dormant_score=_dormant_score(counts.magnitude),
        grad_flow=grad_flow,
        grad_dead=grad_dead,
        input_dead=input_dead,
    )


def _statuses(site: Site, counts: UnitCounts, upper: NDArray[np.float64], *, enough: bool) -> tuple[Status, ...]:
    silent, always = counts.active == 0, (counts.active == counts.positions) & (counts.positions > 0)
    silence: Status = "dead" if enough else "undecided"
    if site.kind.family != "flat":
        silence = "stuck_negative" if site.kind.family == "leaky" else "saturated"
    words: tuple[Status, ...] = ("active", "always_on", "rare", silence)
    which = np.zeros(len(silent), dtype=np.intp)
    if site.kind.family != "smooth":  # such a unit is neither rare nor linear: it has a slope everywhere
        which[always] = 1
        if site.kind.can_die:
            which[upper < RARE] = 2
    which[silent] = 3
    return tuple(words[i] for i in which.tolist())


def training_confidence(sites: tuple[SiteReport, ...], silence: int | None) -> Confidence | None:
    """Return the same for a run, where a death is confirmed by the silence since the last firing.

    `silence` is that of the undecided unit that has been silent for the shortest, in samples; None if there is none.
    """
    found = confidence(sites)
    if found is None:
        return None
    units = sum(s.units for s in sites if s.can_die)
    return replace(
        found,
        seen=found.needed,
        missing=0 if silence is None else max(0, found.needed - silence),
        bound=float(silent_upper(found.needed, alpha=found.alpha)),
        joint_bound=float(silent_upper(found.needed, alpha=found.alpha, units=units)),
    )


def _ratio(part: NDArray[np.int64] | NDArray[np.float64], whole: int) -> NDArray[np.float64]:
    return part / whole if whole else np.full(part.shape, np.nan)


def _dormant_score(magnitude: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean |h| of each unit over the mean of the site (Sokar et al. 2023, eq. 1); an all-zero site is all dormant."""
    mean = magnitude.mean() if magnitude.size else np.nan
    return np.zeros_like(magnitude) if mean == 0 else magnitude / mean


def confidence(sites: tuple[SiteReport, ...], *, rate: float = 1e-3, alpha: float = 0.05) -> Confidence | None:
    """Return what the samples allow to say of all silent units; None if nothing here can die."""
    able = [s for s in sites if s.can_die]
    if not able:
        return None
    units = sum(s.units for s in able)
    seen = min(s.samples for s in ([s for s in able if "dead" in s.status or "undecided" in s.status] or able))
    needed = samples_needed(rate, alpha)
    waiting = [s.samples for s in able if "undecided" in s.status]
    return Confidence(
        rate=rate,
        alpha=alpha,
        needed=needed,
        seen=seen,
        missing=needed - min(waiting) if waiting else 0,
        bound=float(silent_upper(seen, alpha=alpha)) if seen else None,
        joint_bound=float(silent_upper(seen, alpha=alpha, units=units)) if seen else None,
    )
