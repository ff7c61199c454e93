"""Pair: two states of one model, and what tells them apart."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sized
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import IterableDataset

from ..auditing import Patterns, audit
from ..batches import Forward, tensors_in
from ..differences import Difference, SiteDifference, UnitDeath
from ..errors import InputError, ModelError
from ..interventions import ALL, NONE, PARTS, Coalition, Interventions, Outcome, intervene
from ..optimizer_state.remembered import number
from ..report import Report, SiteReport
from .layers import layer_differences, memory_of
from .mixture import Mixture, Rows
from .own import Own
from .state import Source, State, require_alike, state_of
from .update import StepInterval, own_step_interval, update_fractions

PROBE = 512
"""Samples that interventions are run on, if not said otherwise."""
SITES = 12
"""Sites that interventions are run for: those with most deaths. Each costs six runs of the network."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Looking:
    """How data is looked at; the fields are those of `diff`."""

    data: Any
    forward: Forward | None = None
    batch_size: int = 128
    batch_dim: int = 0
    exhaustive: bool = False
    max_samples: int | None = None
    device: str | torch.device | None = None
    include: Patterns = None
    exclude: Patterns = None
    probe: int = PROBE
    progress: bool = False

    def audit(self, model: nn.Module) -> Report:
        """Return what the model does on the data."""
        return audit(
            model,
            self.data,
            forward=self.forward,
            batch_size=self.batch_size,
            batch_dim=self.batch_dim,
            exhaustive=self.exhaustive,
            max_samples=self.max_samples,
            device=self.device,
            include=self.include,
            exclude=self.exclude,
            progress=self.progress,
        )

    def rows(self) -> Rows:
        """Return what interventions are run on."""
        samples = self.probe if self.max_samples is None else min(self.probe, self.max_samples)
        device = None if self.device is None else torch.device(self.device)
        return Rows(self.data, samples, self.forward, self.batch_size, self.batch_dim, device)


def diff(
    old: Source,
    new: Source,
    *,
    model: nn.Module | None = None,
    data: Any = None,
    forward: Forward | None = None,
    batch_size: int = 128,
    batch_dim: int = 0,
    exhaustive: bool = False,
    max_samples: int | None = None,
    device: str | torch.device | None = None,
    include: Patterns = None,
    exclude: Patterns = None,
    probe: int = PROBE,
    update: bool = False,
    lr: float | None = None,
    progress: bool = False,
) -> Difference:
    """Say which units died between two states of a model, and which part of the change did it.

    With data, each state is audited on it, and for the units that fired in the old state and are silent in the new one
    parts of the new state (a unit's own weights, its own bias, what comes in) are put into the old one and taken back,
    in all eight coalitions, in runs of the whole network. Without data, it says what moved, unit by unit, and what the
    optimizers' states say of gradients.

    Args:
        old, new: each an nn.Module, the path of a checkpoint, an open `Checkpoint`, or a state_dict.
        model: a module of their architecture, where neither is one; it is not changed.
        data, forward, batch_size, batch_dim, exhaustive, max_samples, device, include, exclude, progress: as for
            `deadrelu.audit`. Data that can be read only once is kept in memory.
        probe: run the interventions on so many samples of the data.
        update: the two are one update apart: also say at which learning rates the units would have lived.
        lr: the learning rate of that update; by default the one in the old state's optimizer.

    Raises:
        InputError: something in the arguments cannot be used.
        CheckpointError: a checkpoint cannot be read, or the states are of different architectures.
        DataError, ModelError: see `deadrelu.audit`.

    >>> net = nn.Sequential(nn.Linear(1, 2), nn.ReLU())
    >>> net.load_state_dict({"0.weight": torch.ones(2, 1), "0.bias": torch.ones(2)})
    <All keys matched successfully>
    >>> lowered = {"0.weight": torch.ones(2, 1), "0.bias": torch.tensor([1.0, -9.0])}
    >>> [(death.unit, death.cause) for death in diff(net, lowered, data=torch.rand(64, 1))["1"].deaths]
    [(1, 'bias')]
    """
    before, after = state_of(old), state_of(new)
    require_alike(before, after)
    if probe < 1:
        raise InputError(f"probe is {probe}; expected a number of samples, 1 or more")
    if lr is not None and not update:
        raise InputError("lr is the learning rate of an update; say update=True as well")
    template = next((m for m in (model, new, old) if isinstance(m, nn.Module)), None)
    if data is None:
        if update:
            raise InputError("the learning rates of an update are found by running it; give data as well")
        return _difference(before, after, template)
    looking = Looking(
        data=repeatable(data, batch_dim=batch_dim, max_samples=max_samples),
        forward=forward,
        batch_size=batch_size,
        batch_dim=batch_dim,
        exhaustive=exhaustive,
        max_samples=max_samples,
        device=device,
        include=include,
        exclude=exclude,
        probe=probe,
        progress=progress,
    )
    models = before.module(template), after.module(template)
    reports = looking.audit(models[0]), looking.audit(models[1])
    pair = Pair(models, reports, looking)
    rates = _learning_rates(before, models[0], lr) if update else None
    found = pair.compare(rates)
    plain = _difference(before, after, models[1])
    return replace(
        plain,
        evidence="intervention",
        samples=reports[1].samples,
        probed=pair.probed,
        sites=found,
        lr=lr if lr is not None or not rates else _common(rates),
        notes=(*pair.notes, *(_apart(before, after) if update else ())),
    )


def _apart(old: State, new: State) -> Iterable[str]:
    """Say so if the steps inside contradict that the states are one update apart."""
    held = (old.checkpoint, new.checkpoint)
    named = {None if checkpoint is None else checkpoint.step_name for checkpoint in held}
    if old.step is None or new.step is None or not named <= {"global_step", "step"} or len(named) > 1:
        return
    if new.step - old.step != 1:
        yield f"the steps inside are {new.step - old.step} apart, not one update: its rates are those of one large step"


def repeatable(data: Any, *, batch_dim: int = 0, max_samples: int | None = None) -> Any:
    """Return data that can be read as often as one likes: what has no length is read once, and kept."""
    if not isinstance(data, Iterable) or isinstance(data, (Sized, IterableDataset)):
        return data
    kept: list[Any] = []
    samples = 0
    for batch in data:
        kept.append(batch)
        samples += next((int(t.shape[batch_dim]) for t in tensors_in(batch) if t.ndim > batch_dim), 1)
        if max_samples is not None and samples >= max_samples:
            break
    return kept


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


def _difference(old: State, new: State, model: nn.Module | None) -> Difference:
    parameters = None if model is None else [name for name, _ in model.named_parameters()]
    layers = layer_differences(old, new, parameters)
    notes = [] if layers else ["no weight with a row per unit was found in both states"]
    for state in (old, new):
        broken = {} if state.checkpoint is None else state.checkpoint.non_finite()
        if broken:
            notes.append(f"{state.name} holds NaN or inf in {', '.join(list(broken)[:3])}: the training had diverged")
    return Difference(old.name, new.name, (old.step, new.step), "weights", 0, 0, (), layers, notes=tuple(notes))


def _learning_rates(old: State, model: nn.Module, lr: float | None) -> dict[str, float]:
    names = [name for name, _ in model.named_parameters()]
    if lr is not None:
        return dict.fromkeys(names, lr)
    memory = memory_of(old, names)
    if memory is None or old.checkpoint is None or old.checkpoint.optimizer is None:
        return {}
    groups = old.checkpoint.optimizer.groups
    found = {name: number(groups[group].get("lr")) for name, group in memory.groups.items()}
    return {name: rate for name, rate in found.items() if rate is not None}


def _common(rates: dict[str, float]) -> float | None:
    values = set(rates.values())
    return values.pop() if len(values) == 1 else None
