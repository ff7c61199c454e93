"""Verdict: a report in plain words, the same on every screen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from ..findings import without_model
from ..report import Report
from .advice import actions, meaning, named
from .claims import Claim, claims
from .remarks import Note, notes, unseen
from .tally import BOTTLENECK_FROM, WEAKENED_FROM, Tally, tally, worst_first
from .words import count, listing, many, percent, rounded

Severity = Literal["healthy", "notice", "harmless", "undecided", "weakened", "bottleneck", "cut off", "NaN"]
SEVERITIES: tuple[Severity, ...] = (
    "healthy",
    "notice",
    "harmless",
    "undecided",
    "weakened",
    "bottleneck",
    "cut off",
    "NaN",
)
"""From the calmest to the loudest. `notice`: nothing silent, but units that are saturated or stuck."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a report says, in sentences. Names in it are free of control characters; markup is not escaped.

    Attributes:
        severity: how loud the screen should be.
        headline: the verdict, in one sentence.
        scope: what was looked at.
        meaning: what the dead units do to the network.
        actions: what can be done; empty unless there is something to mend.
        claims: how sure it is, each with its level of evidence.
        notes: what else was seen.
        unseen: what was not seen, or not as it should be.
    """

    severity: Severity
    headline: str
    scope: str
    meaning: tuple[str, ...]
    actions: tuple[str, ...]
    claims: tuple[Claim, ...]
    notes: tuple[Note, ...]
    unseen: tuple[str, ...]


def judge(report: Report) -> Verdict:
    """Put a report into words."""
    if without_model(report):
        from .examined import judged  # builds on the words here

        return judged(report)
    sites = worst_first(tally(report))
    dead, undecided = sum(t.dead for t in sites), sum(t.undecided for t in sites)
    severity = _severity(sites) if sites else "notice"
    return Verdict(
        severity=severity,
        headline=_headline(report, sites, severity),
        scope=_scope(report),
        meaning=meaning(sites),
        actions=actions(report, sites),
        claims=claims(report, dead=dead, undecided=undecided, nan=sum(t.nan_dead for t in sites)),
        notes=notes(sites),
        unseen=unseen(report),
    )


def _severity(sites: Sequence[Tally]) -> Severity:
    effects = {t.effect for t in sites}
    for severity in reversed(SEVERITIES):
        if severity in effects:
            return severity
    return "notice" if any(t.flat or t.grad_dead or t.infinite for t in sites) else "healthy"


def _headline(report: Report, sites: Sequence[Tally], severity: Severity) -> str:
    if not sites:
        return "No activation was executed: there is nothing to judge."
    if severity == "NaN":
        return _nan(report, sites)
    if not report.units_can_die:
        return _immune(sites)
    dead, undecided = sum(t.dead for t in sites), sum(t.undecided for t in sites)
    if dead:
        return f"{_dead(report, dead, undecided)}: {_where(sites)}."
    if undecided:
        of = f"{count(undecided)} of {many(report.units_can_die, 'unit')} ({percent(report.silent_fraction)})"
        return f"No unit can be called dead yet, but {of} never fired: too few samples to tell."
    flat = _flat(sites)
    if not report.samples:
        return "No dead units were found."
    return f"No dead units: all {count(report.units_can_die)} that can die fired{f', but {flat}' if flat else ''}."


def _nan(report: Report, sites: Sequence[Tally]) -> str:
    hit = [t for t in sites if t.nan]
    units = sum(t.nan for t in hit)
    text = f"NaN in {named(hit)}: {many(units, 'unit')} never saw a number."
    dead, undecided = sum(t.dead for t in sites), sum(t.undecided for t in sites)
    return f"{text} {_dead(report, dead, undecided)}." if dead else text


def _immune(sites: Sequence[Tally]) -> str:
    ops = list(dict.fromkeys(t.op for t in sorted(sites, key=lambda t: t.order)))
    has = "has" if len(ops) == 1 else "have"
    text = f"Nothing here can die: {listing(ops)} {has} no flat part"
    flat = _flat(sites)
    return f"{text}. Of {many(sum(t.units for t in sites), 'unit')}, {flat}." if flat else f"{text}."


def _flat(sites: Sequence[Tally]) -> str:
    states = ((sum(t.saturated for t in sites), "saturated"), (sum(t.stuck_negative for t in sites), "stuck negative"))
    return " and ".join(
        f"{count(number)} {'is' if number == 1 else 'are'} {state}" for number, state in states if number
    )


def _dead(report: Report, dead: int, undecided: int) -> str:
    total = report.units_can_die
    if dead == total > 1:
        return f"All {many(total, 'unit')} that can die are dead"
    verb = "is" if dead == 1 else "are"
    text = f"{count(dead)} of {many(total, 'unit')} ({percent(report.dead_fraction)}) {verb} dead"
    return f"{text} and {count(undecided)} more undecided" if undecided else text


def _where(sites: Sequence[Tally]) -> str:
    """Say in a clause which layers bear the dead units; `sites` are the worst first."""
    cut = [t for t in sites if t.effect == "cut off"]
    if cut:
        return f"{named(cut, 2)} {'is' if len(cut) == 1 else 'are'} dead throughout"
    halved = [t for t in sites if (t.dead_fraction or 0.0) > BOTTLENECK_FROM]
    if halved:
        return f"{named(halved, 2)} lost more than half of {'its' if len(halved) == 1 else 'their'} width"
    worst = sites[0]
    if worst.dead_fraction == BOTTLENECK_FROM:
        return f"{named([worst])} lost half of its width"
    if worst.dead_fraction is None or worst.dead_fraction < WEAKENED_FROM:
        return f"every layer keeps over {rounded(1 - WEAKENED_FROM)} of its width"
    return f"{named([worst])} lost the most, {count(worst.dead)} of {count(worst.units)}"


def _scope(report: Report) -> str:
    mortal = report.units_can_die
    if mortal == report.units:
        can_die = ""
    elif not mortal:
        can_die = " (none can die)"
    else:
        can_die = f" ({count(mortal)} can die)"
    samples = f", {many(report.samples, 'sample')}" if report.samples else ""
    return f"{report.mode}: {many(len(report.sites), 'site')}, {many(report.units, 'unit')}{can_die}{samples}"
