"""Proof: what `prove` shows, and what it does not."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class SiteProof:
    """One activation call of the model: the bounds of its pre-activations z, per unit.

    Attributes:
        site, op, source, producers, unit_dim, units, can_die: as in a `SiteReport`.
        silent: shown never to be engaged: dead if the kind can die, else stuck negative or saturated. Shape (units,).
        upper, lower: bounds of z over all inputs of the domain, all samples and positions; infinite where there are
            none. They hold in the model's own arithmetic, rounding included. Shape (units,).
        reason: why some unit has no bound, or why nothing is claimed of the site; None if all have one.
    """

    site: str
    op: str
    source: str | None
    producers: tuple[str, ...]
    unit_dim: int | None
    units: int
    can_die: bool
    silent: NDArray[np.bool_]
    upper: NDArray[np.float64]
    lower: NDArray[np.float64]
    reason: str | None

    @property
    def dead(self) -> NDArray[np.bool_]:
        """Shown to be dead, shape (units,): silent, and of a kind that can die."""
        return self.silent if self.can_die else np.zeros_like(self.silent)

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON object of this site."""
        return {
            "site": self.site,
            "op": self.op,
            "source": self.source,
            "producers": list(self.producers),
            "unit_dim": self.unit_dim,
            "units": self.units,
            "can_die": self.can_die,
            "dead": np.flatnonzero(self.dead).tolist(),
            "silent": np.flatnonzero(self.silent).tolist(),
            "upper": [x if math.isfinite(x) else None for x in self.upper.tolist()],
            "lower": [x if math.isfinite(x) else None for x in self.lower.tolist()],
            "reason": self.reason,
        }


@dataclass(frozen=True, slots=True, eq=False)
class Proof:
    """What holds for every input of a declared domain. "Not proved" is not "alive".

    Attributes:
        domain: the inputs that it holds for, in words.
        sites: one `SiteProof` per activation executed, in order of first execution.
        batch_size: the number of samples it holds for; None: any number (samples do not touch each other: the bounds
            did not change with the batch size).
        unfollowed: ops without bounds, as (place, reason).
        lost: why nothing at all is claimed, None if something may be.
    """

    domain: str
    sites: tuple[SiteProof, ...]
    batch_size: int | None
    unfollowed: tuple[tuple[str, str], ...]
    lost: str | None

    def __getitem__(self, site: str) -> SiteProof:
        for found in self.sites:
            if found.site == site:
                return found
        raise KeyError(f"no site {site!r}; there are {', '.join(found.site for found in self.sites)}")

    def __iter__(self) -> Iterator[SiteProof]:
        return iter(self.sites)

    @property
    def units_can_die(self) -> int:
        """Units of kinds that can die."""
        return sum(site.units for site in self.sites if site.can_die)

    @property
    def dead(self) -> int:
        """Units shown to be dead."""
        return sum(int(site.dead.sum()) for site in self.sites)

    @property
    def unbounded(self) -> tuple[tuple[str, str], ...]:
        """Sites where some unit has no upper bound, or that nothing is claimed of, as (site, reason)."""
        return tuple((site.site, site.reason) for site in self.sites if site.reason is not None)

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON object of the proof."""
        return {
            "level": "proved",
            "domain": self.domain,
            "batch_size": self.batch_size,
            "units_can_die": self.units_can_die,
            "dead": self.dead,
            "sites": [site.to_dict() for site in self.sites],
            "unfollowed": [{"place": place, "reason": reason} for place, reason in self.unfollowed],
            "lost": self.lost,
        }
