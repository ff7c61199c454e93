"""Events: deaths and revivals grouped into what a person can act on, with a remedy in words."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from types import MappingProxyType

from .deaths import Cause, Death, Event

EARLY, WARM_UP = 100, 2000
"""Deaths in so early steps may want a warm-up; the longest that is advised, in steps."""
Spike = Callable[[int, float | None], tuple[int, float] | None]
_REMEDIES: dict[Cause, str] = {
    "born_dead": "never fired: re-initialise {site} (biases of zero or more, He weights), or check its input",
    "learning_rate": "lower the learning rate{lr} to a third or a tenth, or warm it up",
    "bias_drift": "{parameter} falls step after step: lower its learning rate, or find what in the loss pulls it down",
    "weight_drift": "{parameter} turns against its inputs step after step: lower its learning rate, or normalise them",
    "weight_decay": "weight decay shrinks {parameter} under a negative bias: lower the decay, or decay the bias too",
    "input_shift": "the inputs of {site} moved{origin}: check the data and its normalisation",
    "upstream_death": "units upstream{origin} died first: save those",
    "non_finite": "z is NaN or infinite: lower the learning rate, clip gradients, or raise the precision",
    "unknown": "nothing that was measured tells why",
}


def death_events(
    deaths: Sequence[Death],
    spike: Spike = lambda step, rate: None,
    edited: Mapping[tuple[str, int], int] = MappingProxyType({}),
) -> list[Event]:
    """Group the deaths of a window by site and cause.

    Args:
        deaths: in any order.
        spike: returns (step, rate) of a learning rate that stands out at a step or shortly before, None for none.
        edited: after which update the parameter was edited that killed a unit, by site and unit.
    """
    keys = sorted(deaths, key=_key)
    return [_event(list(group), spike, edited) for _, group in groupby(keys, _key)]


def _key(death: Death) -> tuple[str, str, str]:
    return death.site, death.cause, (death.parameter or "") if death.cause == "unknown" else ""


def _event(deaths: list[Death], spike: Spike, edited: Mapping[tuple[str, int], int]) -> Event:
    first = deaths[0]
    steps = [d.confirmed if d.killed_by_step is None else d.killed_by_step for d in deaths]
    rates = [d.lr for d in deaths if d.lr is not None]
    lr = max(rates) if rates else None
    parameters = [d.parameter for d in deaths if d.parameter]
    rescue = _rescue(deaths)
    odd = spike(min(steps), lr) or spike(max(steps), lr)
    if first.cause == "unknown" and parameters:
        step = min(edited.get((d.site, d.unit), step) for d, step in zip(deaths, steps, strict=True))
        remedy = f"{parameters[0]} was changed after step {step}, outside of the optimizer: look at what did it"
    elif rescue is None and first.cause == "learning_rate" and odd is not None:
        remedy = f"the learning rate was {odd[1]:.3g} at step {odd[0]}: mend that first"
    elif rescue is None:
        remedy = _REMEDIES[first.cause].format(
            site=first.site,
            lr="" if lr is None else f" ({lr:.3g})",
            parameter=max(set(parameters), key=parameters.count) if parameters else "a parameter",
            origin=f" ({first.origin})" if first.origin else "",
        )
    else:
        lr = rescue.lr
        remedy = _slower(deaths, rescue, spike)
    return Event(
        kind="death",
        site=first.site,
        steps=(min(steps), max(steps)),
        units=tuple(sorted(d.unit for d in deaths)),
        cause=first.cause,
        lr=lr,
        safe_lr=None if rescue is None else rescue.safe_lr,
        saved=None if rescue is None else rescue.saved,
        remedy=remedy,
    )


@dataclass(frozen=True, slots=True)
class _Rescue:
    """The update that killed most, the rate that would have spared nine in ten of its units, and how many of all."""

    step: int
    lr: float
    safe_lr: float
    saved: int


def _rescue(deaths: list[Death]) -> _Rescue | None:
    replayed = [
        (d.killed_by_step, d.lr, d.safe_lr)
        for d in deaths
        if d.killed_by_step is not None and d.lr is not None and d.safe_lr is not None
    ]
    if not replayed:
        return None
    steps = [step for step, _, _ in replayed]
    worst = max(sorted(set(steps)), key=steps.count)
    safe = sorted(safe for step, _, safe in replayed if step == worst)
    chosen = _rounded_down(safe[len(safe) // 10])
    lr = next(lr for step, lr, _ in replayed if step == worst)
    return _Rescue(worst, lr, chosen, sum(chosen <= safe for _, _, safe in replayed))


def _rounded_down(rate: float) -> float:
    """Return a rate with two digits, not above it.

    >>> _rounded_down(0.03178)
    0.031
    """
    scale = 10.0 ** (math.floor(math.log10(rate)) - 1)
    return float(f"{math.floor(rate / scale * (1 + 1e-12)) * scale:.2g}")


def _slower(deaths: list[Death], rescue: _Rescue, spike: Spike) -> str:
    replayed = sum(d.safe_lr is not None for d in deaths)
    of = f"{replayed}" if replayed == len(deaths) else f"{replayed} that were replayed"
    odd = spike(rescue.step, None)
    also = "" if odd is None or odd[0] == rescue.step else f", and {odd[1]:.3g} at step {odd[0]}: mend that first"
    advice = f"lr <= {rescue.safe_lr:.2g} at step {rescue.step} (it was {rescue.lr:.3g}{also})"
    # Where training has only begun, a ramp that has not come further by then does the same.
    warm_up = _rounded_up(math.ceil((rescue.step + 1) * rescue.lr / rescue.safe_lr))
    if rescue.step < EARLY and warm_up <= WARM_UP and odd is None:
        advice += f", or warm-up over {warm_up} steps"
    return f"{advice}: {rescue.saved} of {of} would be alive"


def _rounded_up(steps: int) -> int:
    """Return a number of steps with two digits, not below it.

    >>> _rounded_up(1234)
    1300
    """
    scale = int(10 ** max(0, len(str(steps)) - 2))
    return -(-steps // scale) * scale


def risk_event(site: str, step: int, units: Sequence[int], left: float, parameter: str | None) -> Event:
    """Return the event of units whose margin sinks steadily and meets zero in about `left` steps."""
    what = f"; {parameter} is what moves them" if parameter else ""
    steps = "1 step" if round(left) == 1 else f"{left:.0f} steps"
    remedy = f"the margin meets zero in about {steps}{what}: lower the learning rate now, or find what pulls"
    return Event("risk", site, (step, step), tuple(units), remedy=remedy)


def explosion_event(site: str, step: int, unit: int, top: float) -> Event:
    """Return the event of a site whose largest z grows without bound."""
    remedy = f"z has reached {top:.3g} and grows without bound: lower the learning rate or clip gradients"
    return Event("risk", site, (step, step), (unit,), cause="non_finite", remedy=remedy)


def revival_events(revived: Iterable[Death]) -> list[Event]:
    """Group the deaths of a window that were taken back, by site."""
    events = []
    for site, group in groupby(sorted(revived, key=lambda d: d.site), lambda d: d.site):
        deaths = list(group)
        steps = [d.revived for d in deaths if d.revived is not None]
        units = tuple(sorted(d.unit for d in deaths))
        events.append(Event("revival", site, (min(steps), max(steps)), units, remedy="firing again: nothing to do"))
    return events
