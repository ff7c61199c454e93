"""Update: at which size of the step between two states units fall silent, where they are one update apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..interventions import death_interval
from ..replays import safe_fractions
from ..sites import Site
from .mixture import Mixture
from .own import Own

Array = NDArray[np.float64]
STRAIGHT = 1e-3
"""How far from the middle z may be after half of the step, in parts of the whole move, to be called linear in it."""


@dataclass(frozen=True, slots=True, eq=False)
class StepInterval:
    """The fractions of a site's own step, at fixed inputs, at which its units are silent on the rows run.

    Attributes:
        low, high: both ends, (units,); NaN where no fraction is.
    """

    low: Array
    high: Array


def own_step_interval(mixture: Mixture, site: Site, own: Own) -> StepInterval | None:
    """Return the interval for a site; None where z is not linear in its own step (a norm), or the kind has another end.

    Exact on the rows and positions run: `death_interval` with the speed z(before) - z(after).
    """
    if not site.kind.positive or not site.kind.can_die:
        return None
    names = frozenset((*own.weights, *own.bias))
    ends = {
        "before": lambda name: 0.0,
        "half": lambda name: 0.5 if name in names else 0.0,
        "after": lambda name: float(name in names),
    }
    threshold = site.kind.intervals[0][0]
    low, high = np.zeros(site.units), np.full(site.units, np.inf)
    bent = size = 0.0
    for held in mixture.pre_activations(site, ends):
        before, half, after = (held[key].numpy() - threshold for key in ("before", "half", "after"))
        if not len(before):
            continue
        bent = max(bent, float(np.abs(half - (before + after) / 2).max()))
        size = max(size, float(np.abs(after - before).max()))
        one_low, one_high = death_interval(before, before - after)
        # NaN stays NaN: what survives on some rows survives.
        low, high = np.maximum(low, one_low), np.minimum(high, one_high)
    if not size or bent > STRAIGHT * size:
        return None
    empty = ~(low <= high)
    return StepInterval(np.where(empty, np.nan, low), np.where(empty, np.nan, high))


def update_fractions(mixture: Mixture, units: Sequence[tuple[str, int]]) -> Array:
    """Return, per (site, unit), the fraction of the whole network's update at which it begins to be silent, in 0..1.

    NaN where that was not pinned down, see `safe_fractions`.
    """

    def alive(fraction: float) -> NDArray[np.bool_]:
        outcomes = mixture.run(lambda name: fraction)
        return np.array([site in outcomes and outcomes[site].rate[unit] > 0 for site, unit in units], dtype=bool)

    return safe_fractions(alive)
