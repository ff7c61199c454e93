"""Story: what happened in training, in plain words."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ..report import Report
from .advice import effects, named
from .claims import Claim
from .course import Course, Happening, Timeline, follow
from .tally import tally, worst_first
from .verdict import SEVERITIES, Severity, Verdict, judge
from .words import ceiling, clean, count, elide, listing, many, percent, spoken

EVENTS_SHOWN = 6
_REMEDY_WIDTH = 240

CAUSES: dict[str, str] = {
    "born_dead": "silence from the first step on",
    "learning_rate": "too high a learning rate",
    "bias_drift": "a falling bias",
    "weight_drift": "drifting weights",
    "weight_decay": "weight decay",
    "input_shift": "inputs that moved",
    "upstream_death": "the death of units upstream",
    "non_finite": "NaN or infinity",
    "unknown": "an unknown cause",
}


@dataclass(frozen=True, slots=True)
class Telling:
    """One event, and what to do about it (empty: nothing)."""

    text: str
    remedy: str


@dataclass(frozen=True, slots=True)
class Story:
    """What a training report says, in sentences. Names in it are free of control characters; markup is not escaped.

    Attributes:
        verdict: the verdict, what it means, how sure it is and what was not seen; `actions` are left to the events.
        course: the numbers.
        causes: units per cause, and the words for it with the sites.
        events: what happened, the largest first.
        more: the events that are not told; empty if all are.
        dates: how sharp the dates are; empty without deaths.
        reasons: how the causes are known; empty without any.
    """

    verdict: Verdict
    course: Course
    causes: tuple[tuple[int, str], ...]
    events: tuple[Telling, ...]
    more: str
    dates: str
    reasons: str


def tell(report: Report) -> Story:
    """Put a training report into words."""
    course = follow(report)
    told, rest = course.happenings[:EVENTS_SHOWN], course.happenings[EVENTS_SHOWN:]
    return Story(
        verdict=_verdict(report, course),
        course=course,
        causes=tuple((n, f"{in_words(c)} ({listing(spoken(sites), 2)})") for c, n, sites in course.causes),
        events=tuple(_telling(h) for h in told),
        more=_more(rest),
        dates=_dates(course),
        reasons=_reasons(course),
    )


def in_words(cause: str) -> str:
    """Return what killed a unit, to stand after "died of".

    >>> in_words("bias_drift")
    'a falling bias'
    """
    return CAUSES.get(cause, elide([clean(cause)], 40)[0])


def when(first: int, last: int) -> str:
    """Return a stretch of steps in words.

    >>> when(948, 948), when(948, 1012)
    ('at step 948', 'at steps 948 to 1,012')
    """
    return f"at step {count(first)}" if first == last else f"at steps {count(first)} to {count(last)}"


def over_time(course: Course, bars: Timeline) -> str:
    """Say what the bars of a timeline stand for."""
    first, last = bars.peak
    text = f"{many(len(course.steps), 'death')} over the steps, {many(bars.steps_each, 'step')} a bar; the highest: "
    text += f"{count(bars.most)} {when(first, min(last, course.end))}."
    if course.again:
        text += f" {many(course.again, 'unit')} died more than once."
    return text


def _verdict(report: Report, course: Course) -> Verdict:
    verdict = judge(report)
    sites = worst_first(tally(report))
    risks = sum(h.count for h in course.happenings if h.kind == "risk")
    severity: Severity = verdict.severity
    if course.died or course.born or risks:
        severity = max(severity, "notice", key=SEVERITIES.index)
    headline = _headline(report, course, risks) or verdict.headline
    nan = [t for t in sites if t.nan]
    if nan and headline != verdict.headline:
        headline = f"NaN in {named(nan)}. {headline}"
    return replace(
        verdict,
        severity=severity,
        headline=headline,
        meaning=effects(sites),
        actions=() if course.happenings else verdict.actions,
        claims=_claims(report, sum(t.dead for t in sites), sum(t.undecided for t in sites)),
    )


def _headline(report: Report, course: Course, risks: int) -> str:
    """Return the verdict in a sentence; empty where that of an audit will do."""
    total = report.units_can_die
    if course.died or course.born:
        return _of_the_deaths(course, total)
    if not total or report.dead or not report.samples:
        return ""
    doomed = f", but {many(risks, 'unit')} came close to it" if risks else ""
    quiet = report.silent
    if quiet:
        verb = f"{count(quiet)} of {many(total, 'unit')} ({percent(report.silent_fraction)}) did not fire of late"
        return f"No unit died{doomed}; {verb}." if doomed else f"No unit died, but {verb}."
    return f"No unit died{doomed}." if doomed else f"No unit died: all {count(total)} that can die fire."


def _of_the_deaths(course: Course, total: int) -> str:
    where = listing(spoken([site for site, _ in course.sites]), 2)
    units = course.died or course.born
    who = f"{count(units)} of {many(total, 'unit')} ({percent(units / total if total else None)})"
    if not course.died:
        return f"{who} {'was' if units == 1 else 'were'} born dead in {where}{_back(course.born_back, units)}."
    text = f"{who} died in {where}{_date(course)}{_cause(course)}{_back(course.died_back, units)}"
    if course.born:
        text += f"; {count(course.born)} more {'was' if course.born == 1 else 'were'} born dead"
        text += _back(course.born_back, course.born).replace(";", ",")
    return f"{text}."


def _date(course: Course) -> str:
    assert course.span is not None
    assert course.crowd is not None
    (first, last), crowd = course.span, course.crowd
    if 4 * (crowd[1] - crowd[0]) <= last - first and first != last:
        return f", most {when(*crowd)}"
    return f" {when(first, last)}"


def _cause(course: Course) -> str:
    causes = [(n, c) for c, n, _ in course.causes if c != "born_dead"]
    if not causes:
        return ""
    most, cause = causes[0]
    if most == course.died:
        return f", of {in_words(cause)}"
    return f", most of {in_words(cause)}" if 2 * most > course.died else ", of several causes"


def _back(back: int, of: int) -> str:
    if not back:
        return ""
    if back == of:
        return f"; {'it' if of == 1 else 'all'} came back"
    return f"; {count(back)} came back"


def _claims(report: Report, dead: int, undecided: int) -> tuple[Claim, ...]:
    if not report.units_can_die:
        return ()
    found = []
    if dead:
        each = "the dead unit" if dead == 1 else "each dead unit"
        known = report.confidence
        if known is None:
            found.append(Claim(report.evidence, f"{each} stayed silent to the end."))
        else:
            text = f"{each} stayed silent for {count(known.needed)} samples or more, to the end: it fires in under "
            text += f"{ceiling(known.rate)} of samples, with {round(100 * (1 - known.alpha), 6):g} % confidence."
            found.append(Claim(report.evidence, text))
    if undecided:
        text = f"{many(undecided, 'unit')} did not fire in the last window: too short a silence to say more."
        found.append(Claim("undecided", text))
    if not found and report.samples:
        found.append(Claim("seen", "each of them fired in the last window: a fact, not an estimate."))
    return tuple(found)


def _telling(event: Happening) -> Telling:
    (site,) = spoken([event.site])
    units = f"{many(event.count, 'unit')} of {site}"
    one, at = event.count == 1, when(event.first, event.last)
    remedy = elide([clean(event.remedy or "")], _REMEDY_WIDTH)[0]
    if event.kind == "revival":
        return Telling(f"{units} came back {at}.", "")
    if event.kind == "risk":
        text = f"{units} came close to dying {at} and {'has' if one else 'have'} not died since"
    elif event.cause == "born_dead":
        text = f"{units} {'was' if one else 'were'} born dead"
    else:
        text = f"{units} died {at}, of {in_words(event.cause or 'unknown')}"
    if event.back:
        text += f" ({'it' if one else 'all' if event.back == event.count else count(event.back)} came back)"
    return Telling(f"{text}:" if remedy else f"{text}.", f"{remedy}." if remedy else "")


def _more(rest: tuple[Happening, ...]) -> str:
    if not rest:
        return ""
    nouns = {"death": "death", "risk": "close call", "revival": "revival"}
    counts = {kind: sum(h.count for h in rest if h.kind == kind) for kind in nouns}
    parts = [many(n, nouns[kind]) for kind, n in counts.items() if n]
    return f"And {listing(parts)} in smaller events: see report.events."


def _dates(course: Course) -> str:
    if not course.steps:
        return ""
    each = "the step" if course.resolution == 1 else f"{count(course.resolution)} steps"
    return f"exact to {each} of the last firing; where firings were rare, as blurred as they were far apart."


def _reasons(course: Course) -> str:
    parts = []
    if course.read:
        parts.append(
            "read off the trajectory: what moved the upper tail of the unit's input from its last healthy state to its "
            "death"
        )
    if course.shown:
        parts.append("shown by intervention: alive after the same update at a lower rate")
    if len(parts) == 2:
        return f"{count(course.read)} {parts[0]}; {count(course.shown)} {parts[1]}."
    return f"{parts[0]}." if parts else ""
