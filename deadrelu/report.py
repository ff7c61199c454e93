"""Report: what an audit or a monitored run found, and its JSON (schema `deadrelu.report/1`)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from . import plain, screens
from .errors import InputError

SCHEMA = "deadrelu.report/1"

Mode = Literal["audit", "training", "checkpoint", "diff"]
Level = Literal["proved", "exhaustive", "statistical", "optimizer", "heuristic"]
Status = Literal["dead", "undecided", "rare", "always_on", "saturated", "stuck_negative", "active"]
STATUSES: tuple[Status, ...] = (
    "dead",
    "undecided",
    "rare",
    "always_on",
    "saturated",
    "stuck_negative",
    "active",
)


@dataclass(frozen=True, slots=True)
class Confidence:
    """What the number of samples seen allows to say of a unit that never fired.

    Attributes:
        rate: the sample rate p that a silent unit must be shown to stay under, in 0..1.
        alpha: the risk, per unit, that a unit firing more often than `rate` is called dead.
        needed: samples without a firing that show it, ceil(ln(alpha) / ln(1 - rate)).
        seen: samples seen by the site that saw the fewest, among the sites with a silent unit if there are any.
        missing: further samples that the undecided units wait for; 0 if none is undecided.
        bound: upper bound of a silent unit's sample rate after `seen` samples, 1 - alpha^(1/seen).
        joint_bound: the same for all units that can die at once, 1 - (alpha / units)^(1/seen).
    """

    rate: float
    alpha: float
    needed: int
    seen: int
    missing: int
    bound: float | None
    joint_bound: float | None


@dataclass(frozen=True, slots=True, eq=False)
class SiteReport:
    """One activation call of the model: what each of its units did.

    Arrays have shape (units,); rates and fractions are in 0..1; NaN says that nothing was seen.

    Attributes:
        site: unique name: path of the activation module, or enclosing module and function.
        op: canonical kind, such as `relu`.
        source: `file:line` of a functional call, None for a module.
        producers: the ops with parameters that made the pre-activation z.
        unit_dim: the dimension of z that holds the units (the first of them, where a view split the unit axis);
            None where no unit axis is left and the site counts as one unit.
        units: number of units.
        can_die: the slope of this kind is exactly zero somewhere.
        samples: samples seen (rows of the batch).
        positions: (sample, position) pairs counted.
        status: per unit, the first that holds of dead, undecided, rare, always_on, saturated, stuck_negative, active.
        activation_rate: active pairs / all pairs.
        sample_rate: samples with an active position / samples.
        rate_upper: upper confidence bound of the sample rate.
        max_z: largest pre-activation seen, NaN aside.
        dormant_score: mean |h| of the unit / mean over the site of mean |h| (Sokar et al. 2023, arXiv:2302.12902);
            a site whose output is zero throughout is dormant throughout: 0.
        grad_flow: root mean square of dL/dz, None where no gradient was measured.
        grad_dead: active, yet dL/dz was exactly 0 on everything seen.
        input_dead: every input of the unit's producers was 0 on everything seen.
        claims: what a checkpoint says without data (checkpoint mode).
    """

    site: str
    op: str
    source: str | None
    producers: tuple[str, ...]
    unit_dim: int | None
    units: int
    can_die: bool
    samples: int
    positions: int
    status: tuple[Status, ...]
    activation_rate: NDArray[np.float64]
    sample_rate: NDArray[np.float64]
    rate_upper: NDArray[np.float64]
    max_z: NDArray[np.float64]
    dormant_score: NDArray[np.float64]
    grad_flow: NDArray[np.float64] | None
    grad_dead: NDArray[np.bool_]
    input_dead: NDArray[np.bool_]
    claims: tuple[dict[str, Any], ...] = ()

    def _has(self, status: Status) -> NDArray[np.bool_]:
        return np.array([s == status for s in self.status], dtype=bool)

    @property
    def dead(self) -> NDArray[np.bool_]:
        """Silent, with enough evidence. Shape (units,)."""
        return self._has("dead")

    @property
    def undecided(self) -> NDArray[np.bool_]:
        """Silent, without enough evidence. Shape (units,)."""
        return self._has("undecided")

    @property
    def silent(self) -> NDArray[np.bool_]:
        """Not active once in what was seen: dead or undecided. Shape (units,)."""
        return self.dead | self.undecided

    @property
    def rare(self) -> NDArray[np.bool_]:
        """Not silent, yet the upper bound of the sample rate is under 1 %. Shape (units,)."""
        return self._has("rare")

    @property
    def always_on(self) -> NDArray[np.bool_]:
        """Never inactive: the unit is linear. Shape (units,)."""
        return self._has("always_on")

    @property
    def saturated(self) -> NDArray[np.bool_]:
        """|slope| < 1e-3 on everything seen, for kinds with no flat region. Shape (units,)."""
        return self._has("saturated")

    @property
    def stuck_negative(self) -> NDArray[np.bool_]:
        """Never on the positive side of a leaky kind. Shape (units,)."""
        return self._has("stuck_negative")

    @property
    def dead_fraction(self) -> float | None:
        """Dead units / units; None for kinds that cannot die."""
        return float(self.dead.mean()) if self.can_die and self.units else None

    @property
    def silent_fraction(self) -> float | None:
        """Silent units / units; None for kinds that cannot die."""
        return float(self.silent.mean()) if self.can_die and self.units else None

    def dormant(self, tau: float = 0.1) -> NDArray[np.bool_]:
        """Return the tau-dormant units, shape (units,): `dormant_score <= tau` (Sokar et al. 2023)."""
        return self.dormant_score <= tau

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
            "samples": self.samples,
            "positions": self.positions,
            **{name: plain.indices(self._has(name)) for name in STATUSES if name != "active"},
            "grad_dead": plain.indices(self.grad_dead),
            "input_dead": plain.indices(self.input_dead),
            "dead_fraction": self.dead_fraction,
            "activation_rate": plain.numbers(self.activation_rate),
            "sample_rate": plain.numbers(self.sample_rate),
            "rate_upper": plain.numbers(self.rate_upper),
            "max_z": plain.numbers(self.max_z),
            "dormant_score": plain.numbers(self.dormant_score),
            "grad_flow": None if self.grad_flow is None else plain.numbers(self.grad_flow),
            "claims": [dict(claim) for claim in self.claims],
        }


@dataclass(frozen=True, slots=True)
class Coverage:
    """What was seen, and what was not.

    Attributes:
        sites: number of sites found.
        uncalled: activation modules that no forward pass reached.
        unsupported: parts that cannot be seen into, as (module, reason).
        merged: sites fed by several calls of one forward pass, as (site, calls).
        batch_lost: sites whose batch axis was lost: each call counted as one sample.
    """

    sites: int = 0
    uncalled: tuple[str, ...] = ()
    unsupported: tuple[tuple[str, str], ...] = ()
    merged: tuple[tuple[str, int], ...] = ()
    batch_lost: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON object of the coverage."""
        return {
            "sites": self.sites,
            "uncalled": list(self.uncalled),
            "unsupported": [{"module": module, "reason": reason} for module, reason in self.unsupported],
            "merged": [{"site": site, "calls": calls} for site, calls in self.merged],
            "batch_lost": list(self.batch_lost),
        }


@dataclass(frozen=True, slots=True, eq=False)
class Report:
    """What was found, site by site in order of first execution.

    `report["features.1"]` is the `SiteReport` of that name; `print(report)` draws the terminal screen.

    Attributes:
        mode: audit, training, checkpoint or diff.
        evidence: the weakest level among the dead units; the level that was aimed at, if none is dead.
        samples: samples seen.
        sites: one `SiteReport` per activation executed.
        coverage: what was seen and what was not.
        confidence: what the number of samples allows to say, None where samples are not the evidence.
        deaths: one record per confirmed death (training mode).
        events: deaths, revivals and risks, grouped (training mode).
    """

    mode: Mode
    evidence: Level
    samples: int
    sites: tuple[SiteReport, ...]
    coverage: Coverage = field(default_factory=Coverage)
    confidence: Confidence | None = None
    deaths: tuple[dict[str, Any], ...] = ()
    events: tuple[dict[str, Any], ...] = ()

    def __getitem__(self, site: str) -> SiteReport:
        for found in self.sites:
            if found.site == site:
                return found
        raise KeyError(f"no site {site!r}; the sites are {', '.join(s.site for s in self.sites) or 'none'}")

    def __iter__(self) -> Iterator[SiteReport]:
        return iter(self.sites)

    def __len__(self) -> int:
        return len(self.sites)

    @property
    def units(self) -> int:
        """Units of all sites."""
        return sum(s.units for s in self.sites)

    @property
    def units_can_die(self) -> int:
        """Units of the kinds that can die."""
        return sum(s.units for s in self.sites if s.can_die)

    @property
    def dead(self) -> int:
        """Number of dead units."""
        return sum(int(s.dead.sum()) for s in self.sites)

    @property
    def silent(self) -> int:
        """Number of silent units: dead or undecided."""
        return sum(int(s.silent.sum()) for s in self.sites)

    @property
    def dead_fraction(self) -> float | None:
        """Dead units / units of kinds that can die; None if there are none."""
        return self.dead / self.units_can_die if self.units_can_die else None

    @property
    def silent_fraction(self) -> float | None:
        """Silent units / units of kinds that can die; None if there are none."""
        return self.silent / self.units_can_die if self.units_can_die else None

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON types, schema `deadrelu.report/1`; non-finite numbers become None."""
        return {
            "schema": SCHEMA,
            "mode": self.mode,
            "evidence": self.evidence,
            "samples": self.samples,
            "units": self.units,
            "units_can_die": self.units_can_die,
            "dead": self.dead,
            "dead_fraction": self.dead_fraction,
            "silent_fraction": self.silent_fraction,
            "sites": [site.to_dict() for site in self.sites],
            "deaths": [dict(death) for death in self.deaths],
            "events": [dict(event) for event in self.events],
            "coverage": self.coverage.to_dict(),
        }

    @classmethod
    def from_dict(cls, told: Mapping[str, Any], *, confidence: Confidence | None = None) -> Report:
        """Return the report that `to_dict` told of; numbers that were not finite come back as NaN.

        Args:
            told: what `to_dict` returned, or JSON made of it.
            confidence: what the number of samples allows to say, which the JSON does not hold.

        Raises:
            InputError: it is no such object.
        """
        try:
            if told["schema"] != SCHEMA:
                raise ValueError(f"its schema is {told['schema']!r}")
            return cls(
                mode=plain.one_of(get_args(Mode), told["mode"]),
                evidence=plain.one_of(get_args(Level), told["evidence"]),
                samples=plain.whole(told["samples"]),
                sites=tuple(SiteReport(**plain.site(site, STATUSES)) for site in told["sites"]),
                coverage=Coverage(**plain.coverage(told["coverage"])),
                confidence=confidence,
                deaths=tuple(plain.death(record) for record in told["deaths"]),
                events=tuple(plain.event(record) for record in told["events"]),
            )
        except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
            raise InputError(
                f"no report of schema {SCHEMA} ({type(error).__name__}: {error}); expected what Report.to_dict returns"
            ) from None

    def to_json(self, path: str | Path | None = None) -> str:
        """Return the report as JSON text, and write it to `path` if one is given."""
        text = json.dumps(self.to_dict(), indent=2, allow_nan=False)
        if path is not None:
            Path(path).write_text(text + "\n", encoding="utf-8")
        return text

    def to_html(self, path: str | Path | None = None) -> str:
        """Return the report as one HTML file that needs no server, and write it to `path` if one is given."""
        text = screens.render("html", self)
        if path is not None:
            Path(path).write_text(text, encoding="utf-8")
        return text

    def __str__(self) -> str:
        return screens.render("text", self)
