"""Rebuilt: the report of a run that has not ended, or was cut off, from what its record tells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import plain
from ..report import Coverage, Report, SiteReport, Status
from .codes import DEAD, LOWEST, RATE, UNSEEN
from .names import CHANNELS
from .run import Array, Cells

_LEAKY = ("leaky_relu", "prelu", "rrelu")


@dataclass(frozen=True, slots=True)
class Happened:
    """The deaths and events that a record tells of, in order; the deaths as they stand at its end."""

    deaths: tuple[dict[str, Any], ...]
    events: tuple[dict[str, Any], ...]


def told_of(documents: Sequence[Mapping[str, Any]]) -> Happened:
    """Put together what the windows tell: a revival changes the death that it takes back."""
    deaths: dict[tuple[str, int, int], dict[str, Any]] = {}
    events: list[dict[str, Any]] = []
    for told in documents:
        for row in (*told["deaths"], *told["revived"]):
            death = plain.death(dict(zip(told["fields"], row, strict=True)))
            deaths[str(death["site"]), int(death["unit"]), int(death["confirmed"])] = death
        events += [plain.event(event) for event in told["events"]]
    return Happened(tuple(deaths.values()), tuple(events))


def rebuilt(
    sites: Mapping[str, Mapping[str, Any]], latest: Mapping[str, Cells], happened: Happened, samples: int
) -> Report:
    """Return what a report would say, as far as it can be told.

    Args:
        sites: what is known of each site.
        latest: the last cells of each site.
        happened: deaths and events so far.
        samples: samples that the run had seen.
    """
    found = tuple(_site(told, latest[name], happened, samples) for name, told in sites.items())
    return Report(
        mode="training",
        evidence="statistical",
        samples=samples,
        sites=found,
        coverage=Coverage(sites=len(found)),
        deaths=happened.deaths,
        events=happened.events,
    )


def _site(told: Mapping[str, Any], cells: Cells, happened: Happened, samples: int) -> SiteReport:
    units = told["units"]
    codes = cells.codes[-1] if len(cells.codes) else np.full((len(CHANNELS), units), UNSEEN, np.uint8)
    rate, grad = codes[CHANNELS.index("rate")], codes[CHANNELS.index("grad")]
    dead = rate == DEAD
    step = int(cells.steps[-1]) if len(cells.steps) else -1
    for death in happened.deaths:
        if death["site"] == told["site"] and death["unit"] < units:
            if death["confirmed"] > step:
                dead[death["unit"]] = True
            if death["revived"] is not None and death["revived"] > step:
                dead[death["unit"]] = False
    nothing = np.full(units, np.nan)
    silent = rate <= LOWEST
    activation_rate = np.where(silent | dead, 0.0, np.where(rate == UNSEEN, np.nan, RATE.values()[rate]))
    return SiteReport(
        **told,
        unit_dim=-1,  # a record does not say; None would say that there is none
        samples=samples,
        positions=0,
        status=_statuses(told, dead, silent),
        activation_rate=activation_rate,
        sample_rate=nothing,
        rate_upper=nothing,
        max_z=nothing,
        dormant_score=nothing,
        grad_flow=_grad_flow(cells, grad),
        grad_dead=np.zeros(units, bool),
        input_dead=np.zeros(units, bool),
    )


def _statuses(told: Mapping[str, Any], dead: NDArray[np.bool_], silent: NDArray[np.bool_]) -> tuple[Status, ...]:
    """Return what the codes tell: whether a unit that fired is rare, or always on, they do not."""
    quiet: Status = "undecided"
    if not told["can_die"]:
        quiet = "stuck_negative" if told["op"] in _LEAKY else "saturated"
    return tuple(
        "dead" if is_dead else quiet if is_silent else "active"
        for is_dead, is_silent in zip(dead.tolist(), silent.tolist(), strict=True)
    )


def _grad_flow(cells: Cells, grad: NDArray[np.uint8]) -> Array | None:
    scale = cells.scales["grad"][-1] if cells.scales["grad"] else None
    if scale is None:
        return None
    return np.where(grad == LOWEST, 0.0, scale.values()[grad])
