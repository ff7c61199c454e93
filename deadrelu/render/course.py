"""Course: the deaths of a training run, counted. The numbers behind its screens, and no words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..report import Report

_CROWD = 0.8
_TOGETHER = 20
"""Events of one site and cause are one story if they are no further apart than this part of the run."""


@dataclass(frozen=True, slots=True)
class Happening:
    """Deaths, revivals or risks of one site and cause, close together in time.

    Attributes:
        kind: death, revival or risk.
        site: name of the site, as in the report.
        first, last: steps.
        count: different units.
        back: how many of the units that died fire again.
        cause: their cause, None for a revival.
        remedy: what to do, as in the event.
    """

    kind: str
    site: str
    first: int
    last: int
    count: int
    back: int
    cause: str | None
    remedy: str | None


@dataclass(frozen=True, slots=True)
class Course:
    """What became of the units. A unit that died several times counts once, with its last death.

    Attributes:
        died: units that fired and then died.
        born: units that never fired before they were called dead.
        back: how many of both fire again; `died_back` and `born_back` tell them apart.
        again: units that died more than once.
        sites: sites with deaths and how many units they lost, the most first.
        causes: (cause, units, sites) of the units that died or were born dead, the most first.
        steps: the step of each death, in order, those of units that were born dead left out.
        crowd: the shortest stretch of steps with at least four fifths of the last deaths, None without deaths.
        span: first and last of the last deaths, None without deaths.
        end: the last step that the records tell of.
        resolution: steps between observations, the coarsest of all deaths.
        read: how many causes were read off the trajectory; `shown` by an intervention; the rest names none.
        happenings: events, those that belong together made one, the largest first; deaths that were all
            taken back, and revivals, last.
    """

    died: int
    born: int
    died_back: int
    born_back: int
    again: int
    sites: tuple[tuple[str, int], ...]
    causes: tuple[tuple[str, int, tuple[str, ...]], ...]
    steps: tuple[int, ...]
    crowd: tuple[int, int] | None
    span: tuple[int, int] | None
    end: int
    resolution: int
    read: int
    shown: int
    happenings: tuple[Happening, ...]

    @property
    def back(self) -> int:
        """Units that died or were born dead and fire again."""
        return self.died_back + self.born_back


@dataclass(frozen=True, slots=True)
class Timeline:
    """Deaths over steps: bars of `steps_each` steps from step 0 on, and the first of the highest."""

    bars: tuple[int, ...]
    steps_each: int
    highest: int

    @property
    def most(self) -> int:
        """Deaths of the highest bar."""
        return self.bars[self.highest]

    @property
    def heights(self) -> tuple[float, ...]:
        """Each bar over the highest, in 0..1."""
        return tuple(number / self.most if number else 0.0 for number in self.bars)

    @property
    def peak(self) -> tuple[int, int]:
        """First and last step of the highest bar."""
        return self.highest * self.steps_each, (self.highest + 1) * self.steps_each - 1


def follow(report: Report) -> Course:
    """Count the deaths and events of a training report."""
    lives = _lives(report.deaths)
    last = [records[-1] for records in lives.values()]
    fired, born = [d for d in last if not d["born_dead"]], [d for d in last if d["born_dead"]]
    dates = sorted(_date(d) for d in fired)
    causes = Counter(str(d["cause"]) for d in last)
    named = [d["cause_evidence"] for d in last if d["cause"] not in ("born_dead", "unknown")]
    end = max((_end(d) for d in report.deaths), default=0)
    end = max([end, *(int(e["steps"][1]) for e in report.events)])
    return Course(
        died=len(fired),
        born=len(born),
        died_back=sum(d["revived"] is not None for d in fired),
        born_back=sum(d["revived"] is not None for d in born),
        again=sum(len(records) > 1 for records in lives.values()),
        sites=tuple(Counter(str(d["site"]) for d in last).most_common()),
        causes=tuple((c, n, _sites(d for d in last if d["cause"] == c)) for c, n in causes.most_common()),
        steps=tuple(sorted(_date(d) for d in report.deaths if not d["born_dead"])),
        crowd=_crowd(dates),
        span=(dates[0], dates[-1]) if dates else None,
        end=end,
        resolution=max((int(d["resolution"]) for d in report.deaths), default=1),
        read=named.count("trajectory"),
        shown=named.count("intervention"),
        happenings=_happenings(report.events, lives, end),
    )


def timeline(steps: Iterable[int], end: int, most: int) -> Timeline:
    """Count steps in bars of equal length that cover 0 to `end`; there are at most `most` of them.

    >>> timeline([3, 3, 9], 9, 5)
    Timeline(bars=(0, 2, 0, 0, 1), steps_each=2, highest=1)
    """
    each = -(-(end + 1) // most)
    bars = [0] * -(-(end + 1) // each)
    for step in steps:
        bars[step // each] += 1
    return Timeline(tuple(bars), each, bars.index(max(bars)))


Lives = dict[tuple[str, int], list[Mapping[str, Any]]]


def _lives(deaths: Sequence[Mapping[str, Any]]) -> Lives:
    lives: Lives = {}
    for death in sorted(deaths, key=lambda d: int(d["confirmed"])):
        lives.setdefault((death["site"], death["unit"]), []).append(death)
    return lives


def _date(death: Mapping[str, Any]) -> int:
    killed = death["killed_by_step"]
    return int(death["confirmed"] if killed is None else killed)


def _end(death: Mapping[str, Any]) -> int:
    return max(int(death[name]) for name in ("killed_by_step", "confirmed", "revived") if death[name] is not None)


def _sites(deaths: Iterable[Mapping[str, Any]]) -> tuple[str, ...]:
    return tuple(site for site, _ in Counter(str(d["site"]) for d in deaths).most_common())


def _crowd(dates: Sequence[int]) -> tuple[int, int] | None:
    """Return the shortest stretch that holds most of the sorted dates."""
    if not dates:
        return None
    needed = max(1, round(_CROWD * len(dates)))
    stretches = ((dates[i], dates[i + needed - 1]) for i in range(len(dates) - needed + 1))
    return min(stretches, key=lambda s: (s[1] - s[0], s[0]))


def _happenings(events: Sequence[Mapping[str, Any]], lives: Lives, end: int) -> tuple[Happening, ...]:
    together: dict[tuple[Any, ...], list[list[Mapping[str, Any]]]] = {}
    for number, event in enumerate(sorted(events, key=lambda e: tuple(e["steps"]))):
        # The words of a remedy that counts who would live are true of its own units only.
        own = None if event["safe_lr"] is None else number
        groups = together.setdefault((event["kind"], event["site"], event["cause"], own), [])
        if groups and event["steps"][0] - max(e["steps"][1] for e in groups[-1]) <= end // _TOGETHER:
            groups[-1].append(event)
        else:
            groups.append([event])
    found = [_happening(group, lives) for groups in together.values() for group in groups]
    return tuple(sorted((h for h in found if h.count), key=_worth))


def _worth(event: Happening) -> tuple[Any, ...]:
    """Sort key: what mended itself comes last."""
    return event.kind == "revival", event.back == event.count, -event.count, event.first, event.site


def _happening(events: Sequence[Mapping[str, Any]], lives: Lives) -> Happening:
    kind, site = str(events[0]["kind"]), str(events[0]["site"])
    first, last = min(e["steps"][0] for e in events), max(e["steps"][1] for e in events)
    units = {unit for e in events for unit in e["units"]}
    ends = {unit: lives[site, unit][-1] for unit in units if (site, unit) in lives}
    if kind == "risk":  # a unit that then died is told of as a death
        units = {u for u in units if u not in ends or _date(ends[u]) < first}
    source = events[-1] if kind == "risk" else max(events, key=lambda e: len(e["units"]))
    return Happening(
        kind=kind,
        site=site,
        first=first,
        last=last,
        count=len(units),
        back=sum(d["revived"] is not None for d in ends.values()) if kind == "death" else 0,
        cause=source["cause"],
        remedy=source["remedy"],
    )
