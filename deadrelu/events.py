"""Events: deaths and revivals grouped into what a person can act on, with a remedy in words."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby

from .deaths import Cause, Death, Event

_REMEDIES: dict[Cause, str] = {
    "born_dead": "they never fired: re-initialise {site} (biases of zero or more, He weights), or check its input",
    "learning_rate": "lower the learning rate{lr} to a third or a tenth, or warm it up",
    "bias_drift": "{parameter} falls step after step: lower its learning rate, or find what in the loss pulls it down",
    "weight_drift": "{parameter} turns against its inputs step after step: lower its learning rate, or normalise them",
    "weight_decay": "weight decay shrinks {parameter} under a negative bias: lower the decay, or decay the bias too",
    "input_shift": "the inputs of {site} moved{origin}: check the data and its normalisation",
    "upstream_death": "units upstream{origin} died first: save those",
    "non_finite": "z is NaN or infinite: lower the learning rate, clip gradients, or raise the precision",
    "unknown": "nothing that was measured tells why",
}


def death_events(deaths: Sequence[Death]) -> list[Event]:
    """Group the deaths of a window by site and cause."""
    keys = sorted(deaths, key=_key)
    return [_event(list(group)) for _, group in groupby(keys, _key)]


def _key(death: Death) -> tuple[str, str]:
    return death.site, death.cause


def _event(deaths: list[Death]) -> Event:
    first = deaths[0]
    steps = [d.confirmed if d.killed_by_step is None else d.killed_by_step for d in deaths]
    rates = [d.lr for d in deaths if d.lr is not None]
    lr = max(rates) if rates else None
    parameters = [d.parameter for d in deaths if d.parameter]
    remedy = _REMEDIES[first.cause].format(
        site=first.site,
        lr="" if lr is None else f" ({lr:.3g})",
        parameter=max(set(parameters), key=parameters.count) if parameters else "a parameter",
        origin=f" ({first.origin})" if first.origin else "",
    )
    return Event(
        kind="death",
        site=first.site,
        steps=(min(steps), max(steps)),
        units=tuple(sorted(d.unit for d in deaths)),
        cause=first.cause,
        lr=lr,
        remedy=remedy,
    )


def risk_event(site: str, step: int, units: Sequence[int], left: float, parameter: str | None) -> Event:
    """Return the event of units whose margin sinks steadily and meets zero in about `left` steps."""
    what = f"; {parameter} is what moves them" if parameter else ""
    remedy = f"their margin meets zero in about {left:.0f} steps{what}: lower the learning rate now, or find what pulls"
    return Event("risk", site, (step, step), tuple(units), remedy=remedy)


def explosion_event(site: str, step: int, unit: int, top: float) -> Event:
    """Return the event of a site whose largest z doubles window after window."""
    remedy = f"z has reached {top:.3g} and doubles window after window: lower the learning rate or clip gradients"
    return Event("risk", site, (step, step), (unit,), cause="non_finite", remedy=remedy)


def revival_events(revived: Iterable[Death]) -> list[Event]:
    """Group the deaths of a window that were taken back, by site."""
    events = []
    for site, group in groupby(sorted(revived, key=lambda d: d.site), lambda d: d.site):
        deaths = list(group)
        steps = [d.revived for d in deaths if d.revived is not None]
        units = tuple(sorted(d.unit for d in deaths))
        events.append(Event("revival", site, (min(steps), max(steps)), units, remedy="they fire again: nothing to do"))
    return events
