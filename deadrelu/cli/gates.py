"""Gates: the fractions of silent units that `--fail-above` lets pass, overall or site by site."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

import typer

from ..errors import InputError
from .exits import Status, say
from .values import parse_fraction

if TYPE_CHECKING:
    from ..differences import Difference, Timeline
    from ..report import Report

_OPTION = "--fail-above"
_COUNTED = "are dead or have no gradient"


@dataclass(frozen=True, slots=True)
class Gate:
    """One limit.

    Attributes:
        pattern: of the sites' names (`fnmatch`), each of which is held to the limit; None: the report as a whole.
        limit: in 0..1; only what is strictly greater exceeds it.
    """

    pattern: str | None
    limit: float

    def __str__(self) -> str:
        return f"{_OPTION} {f'{self.pattern}=' if self.pattern is not None else ''}{100 * self.limit:.4g} %"


@dataclass(frozen=True, slots=True)
class Share:
    """What a gate looks at.

    Attributes:
        site: its name, None for all sites together.
        silent: how many of the units are silent.
        units: of a kind that can die; 0 for a site whose silence is not known.
        words: what the silent units are.
        unsure: there may be more, in which case nothing tells.
    """

    site: str | None
    silent: int
    units: int
    words: str
    unsure: bool = False


def parse_gate(text: str) -> Gate:
    """Return the gate that `5%`, `0.05` or `fc*=10%` stands for.

    >>> parse_gate("fc*=10%")
    Gate(pattern='fc*', limit=0.1)

    Raises:
        InputError: it is none.
    """
    pattern, sign, fraction = text.rpartition("=")
    if sign and not pattern.strip():
        raise InputError(f"{_OPTION} {text!r} names no site; write 5% for all units, or fc*=10% for each site fc*")
    return Gate(pattern.strip() if sign else None, parse_fraction(fraction, _OPTION))


def hold(sites: Sequence[Share], gates: Sequence[Gate]) -> None:
    """Say on stderr which gates are exceeded, and leave with status 1 if any is.

    Raises:
        InputError: no site has such a name.
    """
    exceeded = False
    unsure = [str(share.site) for share in sites if share.unsure] if gates else []
    if unsure:
        say(f"note: {_OPTION} does not count what is not known: which units of {_few(unsure)} have a gradient")
    for gate in gates:
        if gate.pattern is None:
            shares = [_overall(sites)]
        else:
            shares = [share for share in sites if fnmatchcase(str(share.site), gate.pattern)]
            if not shares:
                raise InputError(
                    f"{gate}: no site has such a name; there are {_few([str(share.site) for share in sites])}"
                )
        mortal = [share for share in shares if share.units]
        if not mortal:
            whose = "this model" if gate.pattern is None else f"the sites {gate.pattern}"
            say(f"note: {_OPTION} had nothing to compare: no unit of {whose} can die, as far as is known")
        for share in mortal:
            if share.silent / share.units > gate.limit:
                exceeded = True
                where = f"{share.site}: " if share.site is not None else ""
                count = f"{share.silent} of {share.units} units ({100 * share.silent / share.units:.4g} %)"
                say(f"{where}{count} {share.words}, more than {gate}")
    if exceeded:
        raise typer.Exit(Status.EXCEEDED)


def of_report(report: Report) -> Iterator[Share]:
    """Yield what a report says of each site.

    Of a checkpoint without data, units count that are proved dead, that have no gradient, or whose norm's input does
    not vary; what is only likely does not.
    """
    from ..findings import findings, silent_layers, without_model

    if without_model(report):
        whole = silent_layers(report)
        for found in findings(report):
            yield Share(found.site, int(found.silent.sum()), found.units, _COUNTED, found.site in whole)
        return
    for site in report:
        yield Share(site.site, int(site.silent.sum()), site.units if site.can_die else 0, "are silent")


def of_difference(found: Difference) -> Iterator[Share]:
    """Yield what the new state is like, site by site; without data layer by layer."""
    for site in found.sites:
        yield Share(site.site, site.silent[1], site.units if site.can_die else 0, "are silent in the new state")
    for layer in () if found.sites else found.layers:
        silent = layer.counted[1]
        units, words = 0 if silent is None else layer.units, f"{_COUNTED} in the new state"
        yield Share(layer.layer, silent or 0, units, words, silent is None)


def of_timeline(found: Timeline) -> Iterator[Share]:
    """Yield what the last checkpoint is like, site by site; without data layer by layer."""
    words = "are silent" if found.evidence == "data" else _COUNTED
    for one, silent in zip(found.series, found.moments[-1].silent, strict=True):
        units = 0 if silent is None else one.units
        yield Share(one.site, silent or 0, units, f"{words} in the last checkpoint", silent is None)


def _overall(sites: Sequence[Share]) -> Share:
    words = sites[0].words if sites else ""
    mortal = [share for share in sites if share.units]
    return Share(None, sum(s.silent for s in mortal), sum(s.units for s in mortal), words)


def _few(names: list[str]) -> str:
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
