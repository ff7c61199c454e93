"""Runs made by hand: the windows of a run as Monitor would hand them over, and the report at its end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deadrelu.deaths import Death, Event
from deadrelu.record.reader import read_run
from deadrelu.record.run import Run
from deadrelu.record.writer import RecordWriter
from deadrelu.report import Confidence, Coverage, Report, SiteReport, Status
from deadrelu.summaries import SiteSummary, Summary

WINDOW = 50
HOSTILE = (
    "<script>alert(1)</script>",
    "a'\"b`c&d",
    "x/../../etc/passwd",
    "line\nbreak\ttab\x1b[31m\u202e\ud800",
    "long." * 60,
    "",
    "Ω→🙂",
    "%2e%2e#?&=",
    "None",
    "__proto__",
)


@dataclass
class Played:
    """A run: its windows, the samples seen after each, and the final report."""

    windows: list[Summary]
    samples: list[int]
    report: Report

    def record(self, writer: RecordWriter, *, finish: bool = True, first: int = 0, last: int | None = None) -> None:
        for summary, samples in list(zip(self.windows, self.samples, strict=True))[first:last]:
            writer.write(summary, samples)
        if finish:
            writer.finish(self.report)

    def recorded(self, folder: Path, **how: Any) -> Run:
        writer = RecordWriter(folder)
        self.record(writer, **how)
        writer.close()
        return read_run(folder)


def site(name: str, rng: np.random.Generator, dead: NDArray[np.bool_], **of: Any) -> SiteSummary:
    """Make one site in one window: about one living unit in ten is silent."""
    units = len(dead)
    silent = dead | (rng.random(units) < 0.1)
    can_die = of.get("can_die", True)
    rate = np.where(silent, 0.0, np.clip(10 ** rng.uniform(-5, 0.3, units), 0.0, 1.0))
    made = {
        "site": name,
        "op": "relu" if can_die else "gelu",
        "source": None,
        "producers": (f"{name}.linear",),
        "can_die": can_die,
        "dead": dead & can_die,
        "silent": silent,
        "activation_rate": rate,
        "grad_flow": np.where(silent, 0.0, 10 ** rng.uniform(-8, -1, units)),
        "max_z": rng.normal(size=units),
        "bias": rng.normal(scale=0.2, size=units),
        "update_ratio": np.abs(rng.normal(scale=1e-3, size=units)),
    }
    return SiteSummary(**{**made, **of})


def death(site: str, unit: int, step: int | None, **of: Any) -> Death:
    """Make the death of a unit that fired last in `step` (None: it never did), confirmed 24 steps later."""
    made: dict[str, Any] = {
        "last_fired": step,
        "killed_by_step": step,
        "confirmed": (step or 0) + 24,
        "cause": "learning_rate",
        "parameter": f"{site}.weight",
        "shares": {"weight": -3.61, "decay": 0.0, "bias": -0.82, "input": -0.08},
        "margin_before": 0.1 + 0.2,
        "margin_after": -4.2,
        "max_z_after": float("nan"),
        "kick": 4.6,
        "lr": 0.5,
    }
    return Death(site, unit, **{**made, **of})


def play(
    sites: Sequence[tuple[str, int]] = (("fc1", 6), ("fc2", 4)),
    windows: int = 6,
    *,
    seed: int = 0,
    every_death: int = 2,
    start: int = 0,
    **of: Any,
) -> Played:
    """Make a run in which a living unit dies in every `every_death`-th window, and every third of them comes back.

    Args:
        sites: name and units of each.
        windows: how many.
        every_death: 0 for a run without deaths.
        start: its first step.
        of: fields of every `SiteSummary`.
    """
    rng = np.random.default_rng(seed)
    dead = {name: np.zeros(units, bool) for name, units in sites}
    deaths: list[Death] = []
    events: list[Event] = []
    made: list[Summary] = []
    mortal = [(name, units) for name, units in sites if units] if of.get("can_die", True) else []
    for number in range(windows):
        first = start + number * WINDOW
        died, revived, happened = [], [], []
        if every_death and mortal and number % every_death == 1 % every_death:
            name, units = mortal[int(rng.integers(len(mortal)))]
            unit = int(rng.integers(units))
            if dead[name][unit]:
                (old,) = (d for d in deaths if (d.site, d.unit, d.revived) == (name, unit, None))
                old.revived = first + 3
                dead[name][unit] = False
                revived.append(old)
                happened.append(Event("revival", name, (first + 3, first + 3), (unit,), remedy="nothing to do"))
            else:
                found = death(name, unit, first + 5, born_dead=False)
                dead[name][unit] = True
                deaths.append(found)
                died.append(found)
                remedy = "lower the learning rate (0.5)"
                happened.append(
                    Event("death", name, (first + 5, first + 5), (unit,), cause="learning_rate", lr=0.5, remedy=remedy)
                )
        events += happened
        made.append(
            Summary(
                first=first,
                last=first + WINDOW - 1,
                sites=tuple(site(name, rng, dead[name].copy(), **of) for name, _ in sites),
                rates={"0": 0.1 * 0.9**number},
                dead_fraction=_fraction(dead) if mortal else None,
                deaths=tuple(replace(d) for d in died),
                revived=tuple(replace(d) for d in revived),
                events=tuple(happened),
            )
        )
    report = Report(
        mode="training",
        evidence="statistical",
        samples=windows * WINDOW * 32,
        sites=tuple(_reported(s) for s in made[-1].sites) if made else (),
        coverage=Coverage(
            sites=len(sites), uncalled=("head.act",), unsupported=(("rnn", "fused"),), merged=(("s", 5),)
        ),
        confidence=Confidence(1e-3, 0.05, 2995, 2995, 0, 0.0009998, 0.002),
        deaths=tuple(d.to_dict() for d in deaths),
        events=tuple(e.to_dict() for e in events),
    )
    return Played(made, [(i + 1) * WINDOW * 32 for i in range(windows)], report)


def _fraction(dead: dict[str, NDArray[np.bool_]]) -> float:
    return sum(int(d.sum()) for d in dead.values()) / sum(len(d) for d in dead.values())


def _reported(found: SiteSummary) -> SiteReport:
    words: list[Status] = ["active"] * found.units
    for unit in range(found.units):
        if found.can_die and (found.dead[unit] or found.silent[unit]):
            words[unit] = "dead" if found.dead[unit] else "undecided"
    return SiteReport(
        site=found.site,
        op=found.op,
        source=found.source,
        producers=found.producers,
        unit_dim=1,
        units=found.units,
        can_die=found.can_die,
        samples=9600,
        positions=9600,
        status=tuple(words),
        activation_rate=found.activation_rate,
        sample_rate=found.activation_rate / 3,
        rate_upper=np.full(found.units, 0.1),
        max_z=found.max_z,
        dormant_score=np.full(found.units, np.inf),
        grad_flow=found.grad_flow,
        grad_dead=np.arange(found.units) % 2 == 0,
        input_dead=np.zeros(found.units, bool),
    )
