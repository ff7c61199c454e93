"""Remarks: what else was seen, and what was not seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Literal

from ..report import Report
from .advice import named
from .tally import Tally
from .words import clean, count, elide, listing, many, spoken

_REASON_WIDTH = 160
_REASONS = 4

Topic = Literal["infinite", "saturated", "stuck_negative", "grad_dead", "input_dead", "rare", "always_on", "dormant"]

_REMARKS: dict[Topic, tuple[str, str]] = {
    "infinite": ("reached", "+infinity before the activation"),
    "saturated": ("is|are", "saturated: a slope under 0.001 on everything seen"),
    "stuck_negative": ("is|are", "stuck negative: never on the positive side, so linear"),
    "grad_dead": ("is|are", "active, yet the gradient is exactly 0 on everything seen"),
    "input_dead": ("is|are", "fed nothing but zeros: look at what comes before"),
    "rare": ("fires|fire", "rarely: in under 1 % of samples"),
    "always_on": ("is|are", "always on, so linear"),
    "dormant": ("is|are", "dormant (dead ones included): output at most a tenth of the layer's mean"),
}
"""Loudest first: the verb for one and for many, and what follows it."""


@dataclass(frozen=True, slots=True)
class Note:
    """Something else that was seen: `topic` is the field of `Tally` that it counts."""

    topic: Topic
    text: str


def notes(sites: Sequence[Tally]) -> tuple[Note, ...]:
    """Say what else was seen, one note per topic that any unit has; sites with the most such units are named."""
    found = []
    for topic, (verbs, words) in _REMARKS.items():
        number = attrgetter(topic)
        hit = sorted((t for t in sites if number(t)), key=number, reverse=True)
        total = sum(number(t) for t in hit)
        if topic == "dormant" and total <= sum(t.silent for t in sites):
            continue  # silent units are dormant by definition: nothing new
        if hit:
            verb = verbs.split("|")[0 if total == 1 else -1]
            found.append(Note(topic, f"{many(total, 'unit')} {verb} {words} ({named(hit, 2)})."))
    return tuple(found)


def unseen(report: Report) -> tuple[str, ...]:
    """Say what the report did not see, or not as it should be seen."""
    coverage = report.coverage
    lines = []
    if coverage.uncalled:
        lines.append(f"Never called: {listing(spoken(coverage.uncalled, 'module'))}.")
    lines += _reasons(coverage.unsupported)
    if coverage.batch_lost:
        lines.append(f"Batch axis lost, each call counted as one sample: {listing(spoken(coverage.batch_lost))}.")
    flat = [site.site for site in report.sites if site.unit_dim is None]
    if flat:
        lines.append(f"No unit axis left, counted as one unit each: {listing(spoken(flat))}.")
    if coverage.merged:
        names = spoken([name for name, _ in coverage.merged])
        parts = [f"{name} ({count(calls)})" for name, (_, calls) in zip(names, coverage.merged, strict=True)]
        lines.append(f"Several calls in one forward pass, counted as one site: {listing(parts)}.")
    return tuple(lines)


def _reasons(unsupported: Sequence[tuple[str, str]]) -> list[str]:
    """Say what could not be seen and why, one line per reason."""
    parts: dict[str, list[str]] = {}
    for name, reason in unsupported:
        parts.setdefault(elide([clean(reason)], _REASON_WIDTH)[0], []).append(name)
    lines = [f"{listing(spoken(names, 'module'))}: {reason.rstrip('.')}." for reason, names in parts.items()]
    if len(lines) > _REASONS:
        more = sum(len(names) for names in list(parts.values())[_REASONS:])
        lines[_REASONS:] = [f"{many(more, 'more part')} of the model could not be seen: see report.coverage."]
    return lines
