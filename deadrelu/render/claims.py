"""Claims: how sure a report is, in words. One claim per level of evidence; the levels are never mixed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ..report import Confidence, Level, Report
from .words import ceiling, clean, count, many

Standing = Literal["proved", "exhaustive", "statistical", "optimizer", "heuristic", "seen", "undecided"]
"""A level of evidence for death, or: seen to be alive, or not known yet."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A sentence about how sure something is, and what that rests on."""

    standing: Standing
    text: str


def claims(report: Report, *, dead: int, undecided: int, nan: int = 0) -> tuple[Claim, ...]:
    """Return what the report is sure of: first of the dead units, then of those that may be dead.

    Args:
        report: where the level of evidence and the confidence stand.
        dead: number of dead units.
        undecided: number of undecided units.
        nan: how many of the dead ones never saw a number.
    """
    if not report.units_can_die:
        return ()
    found = []
    if dead and dead == nan:
        found.append(Claim(report.evidence, "no dead unit fired, but neither did one of them see a number."))
    elif dead:
        found.append(Claim(report.evidence, _of_the_dead(report, dead, undecided)))
    if undecided:
        found.append(Claim("undecided", _of_the_undecided(report, undecided)))
    if not found:
        found.append(_of_the_living(report))
    return tuple(found)


def _of_the_dead(report: Report, dead: int, undecided: int) -> str:
    each = "the dead unit" if dead == 1 else "each dead unit"
    level: Level = report.evidence
    if level == "statistical":
        return _bounds(report, dead, undecided)
    if level == "exhaustive":
        return (
            f"{each} was silent on all {many(report.samples, 'sample')} of the data set, which was declared to be "
            "complete. This says nothing about other data."
        )
    if level == "proved":
        domains = {str(claim["domain"]) for site in report.sites for claim in site.claims if claim.get("domain")}
        domain = f" ({clean(domains.pop())})" if len(domains) == 1 else ""
        who = each.replace("each", "a")
        return f"no input of the declared domain{domain} can make {who} fire: the weights forbid it."
    if level == "optimizer":
        return (
            f"the optimizer state shows that no gradient reached {each} of late. A living unit whose consumers are "
            "all dead looks the same: audit it on data to be sure."
        )
    return f"{each} is likely to be rare, judged by the norm's beta and gamma alone: audit it on data to be sure."


def _bounds(report: Report, dead: int, undecided: int) -> str:
    each = "the dead unit" if dead == 1 else "each dead unit"
    known = report.confidence
    if known is None:
        return f"{each} was silent in everything seen ({many(report.samples, 'sample')})."
    sure = f"with {_confidence(known)} confidence"
    if known.bound is None or known.bound > known.rate:
        # The fewest samples were seen by a site whose units are undecided; the dead ones have at least `needed`.
        seen = f"{count(known.needed)} samples or more"
        return f"{each} fires in under {ceiling(known.rate)} of samples, {sure} ({seen}, none fired)."
    text = f"{each} fires in under {ceiling(known.bound)} of samples, {sure}"
    text += f" ({many(known.seen, 'sample')}, none fired)"
    silent = dead + undecided
    if known.joint_bound is not None and silent > 1:
        which = "both" if silent == 2 else f"all {count(silent)}{' silent units' if undecided else ''}"
        text += f"; {which} at once: under {ceiling(known.joint_bound)}"
    return text + "."


def _of_the_undecided(report: Report, undecided: int) -> str:
    known = report.confidence
    who = many(undecided, "unit")
    they = "it" if undecided == 1 else "they"
    if known is None:
        return f"{who} never fired, but what was seen is too little to call {they.replace('they', 'them')} dead."
    text = f"{who} never fired, but {many(known.seen, 'sample')} {'is' if known.seen == 1 else 'are'} too few to tell"
    if known.bound is not None:
        text += f": {they} may fire in up to {ceiling(known.bound)} of samples ({_confidence(known)} confidence)"
    text += ". "
    if known.missing:
        text += f"Run on {count(known.missing)} more, or "
    else:
        text += "Run on more, or "
    return text + "declare the data to be complete (exhaustive=True, --exhaustive)."


def _of_the_living(report: Report) -> Claim:
    if not report.samples:
        return Claim(report.evidence, "no unit could be shown to be dead, which does not show that all are alive.")
    return Claim("seen", f"each of them fired within {many(report.samples, 'sample')}: a fact, not an estimate.")


def _confidence(known: Confidence) -> str:
    return f"{round(100 * (1 - known.alpha), 6):g} %"
