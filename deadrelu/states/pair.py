"""Pair: two models of one architecture on the same data: who died in the second one, and which part did it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from functools import partial

import numpy as np
from torch import nn

from ..differences import SiteDifference, UnitDeath
from ..errors import ModelError
from ..interventions import ALL, NONE, PARTS, Coalition, Interventions, Outcome, intervene
from ..report import Report, SiteReport
from .looking import Looking
from .mixture import Mixture
from .own import Own
from .update import StepInterval, own_step_interval, update_fractions

SITES = 12
"""Sites that interventions are run for: those with most deaths. Each costs six runs of the network."""


class Pair:
    """Two models of one architecture, and what each does on the same data.

    Attributes:
        probed: samples that the interventions were run on.
        notes: what a reader must know.
    """

    def __init__(self, models: tuple[nn.Module, nn.Module], reports: tuple[Report, Report], looking: Looking) -> None:
        self.probed = 0
        self.notes: list[str] = []
        self._models = models
        self._reports = reports
        self._looking = looking

    def compare(self, rates: dict[str, float] | None = None) -> tuple[SiteDifference, ...]:
        """Return what tells them apart, per site in order of first execution, with what the interventions say.

        Args:
            rates: the states are one update apart: the learning rate of each parameter, as far as it is known; None
                if they are not.
        """
        old, new = self._reports
        earlier = {site.site: site for site in old}
        alone = sorted({site.site for site in new} ^ set(earlier))
        if alone:
            self.notes.append(f"only one of the states executed {', '.join(alone[:3])}: left out")
        plain = {
            s.site: _plain(earlier[s.site], s) for s in new if s.site in earlier and earlier[s.site].units == s.units
        }
        dying = sorted((s for s in plain.values() if s.deaths), key=lambda s: -len(s.deaths))
        if len(dying) > SITES:
            left = sum(len(site.deaths) for site in dying[SITES:])
            self.notes.append(f"interventions for the {SITES} sites with most deaths; {left} deaths elsewhere without")
        if dying:
            old_model, new_model = self._models
            looking = self._looking
            rows = looking.rows()
            try:
                with Mixture(old_model, new_model, rows, include=looking.include, exclude=looking.exclude) as mixture:
                    plain |= {site.site: site for site in _explained(mixture, dying[:SITES], rates)}
                    self.probed = mixture.samples
            except ModelError as error:
                self.notes.append(f"no causes: {error}")
        return tuple(plain.values())


def _plain(old: SiteReport, new: SiteReport) -> SiteDifference:
    deaths = tuple(
        UnitDeath(
            unit=int(unit),
            status="dead" if new.dead[unit] else "undecided",
            max_z=(float(old.max_z[unit]), float(new.max_z[unit])),
            rate=float(old.activation_rate[unit]),
        )
        for unit in np.flatnonzero(new.silent & ~old.silent)
    )
    return SiteDifference(
        site=new.site,
        op=new.op,
        units=new.units,
        can_die=new.can_die,
        samples=new.samples,
        deaths=deaths,
        revivals=tuple(int(unit) for unit in np.flatnonzero(old.silent & ~new.silent)),
        still=tuple(int(unit) for unit in np.flatnonzero(old.silent & new.silent)),
        silent=(int(old.silent.sum()), int(new.silent.sum())),
    )


def _explained(
    mixture: Mixture, dying: list[SiteDifference], rates: dict[str, float] | None
) -> Iterable[SiteDifference]:
    mixture.exchanged(())
    owns = mixture.own()
    sites = {site.name: site for site in mixture.sites}
    known = [site for site in dying if site.site in owns]
    fractions: dict[tuple[str, int], float] = {}
    if rates is not None:
        keys = [(site.site, death.unit) for site in known for death in site.deaths]
        fractions = dict(zip(keys, update_fractions(mixture, keys).tolist(), strict=True))
    for site in known:
        own = owns[site.site]
        found = intervene([death.unit for death in site.deaths], partial(_run, mixture, site, own))
        interval = None if rates is None else own_step_interval(mixture, sites[site.site], own)
        rate = next((rates[name] for name in (*own.weights, *own.bias) if name in rates), None) if rates else None
        deaths = [
            _timed(_told(death, found, i), interval, fractions.get((site.site, death.unit)), rate)
            for i, death in enumerate(site.deaths)
        ]
        yield replace(
            site,
            deaths=tuple(deaths),
            causes=dict(Counter(str(death.cause) for death in deaths).most_common()),
            revived_by={
                **{part: int(found.revives(part).sum()) for part in PARTS},
                "own": int(found.revives("weights", "bias").sum()),
            },
            own={"weights": own.weights, "bias": own.bias},
        )


def _run(mixture: Mixture, site: SiteDifference, own: Own, later: Coalition) -> Outcome:
    parts = {"weights": set(own.weights), "bias": set(own.bias)}
    parts["upstream"] = set(mixture.names) - parts["weights"] - parts["bias"]
    names: set[str] = set().union(*(parts[part] for part in later))
    outcome = mixture.exchanged(names).get(site.site)
    if outcome is None:  # a model whose path depends on its weights may not come by here
        return Outcome(np.full(site.units, np.nan), np.zeros(site.units))
    return outcome


def _told(death: UnitDeath, found: Interventions, index: int) -> UnitDeath:
    shares = {str(part): float(found.shares[part][index]) for part in PARTS}
    settled = bool(found.settled[index])
    return replace(
        death,
        cause=found.cause(index),
        sufficient=tuple(part for part in PARTS if found.sufficient(part)[index]),
        necessary=tuple(part for part in PARTS if found.revives(part)[index]),
        shares=shares if settled else None,
        max_z=(float(found.max_z[NONE][index]), float(found.max_z[ALL][index])) if settled else death.max_z,
    )


def _timed(death: UnitDeath, interval: StepInterval | None, fraction: float | None, lr: float | None) -> UnitDeath:
    safe = fraction if fraction is not None and np.isfinite(fraction) else None
    low = None if interval is None else float(interval.low[death.unit])
    ends = None
    if interval is not None and low is not None and np.isfinite(low):
        high = float(interval.high[death.unit])
        ends = (low, high if np.isfinite(high) else None)
    rates = None
    if ends is not None and lr is not None:
        rates = (ends[0] * lr, None if ends[1] is None else ends[1] * lr)
    safe_lr = safe * lr if safe is not None and lr is not None else None
    return replace(death, fraction=ends, lr=rates, safe_fraction=safe, safe_lr=safe_lr)
