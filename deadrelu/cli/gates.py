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
    from ..report import Report

_OPTION = "--fail-above"


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
class _Share:
    """What a gate looks at: `silent` of `units`, and in words what these units are."""

    site: str | None
    silent: int
    units: int
    words: str


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


def hold(report: Report, gates: Sequence[Gate]) -> None:
    """Say on stderr which gates are exceeded, and leave with status 1 if any is.

    Of a checkpoint without data, units count that are proved dead, that have no gradient, or whose norm's input does
    not vary; what is only likely does not.

    Raises:
        InputError: no site has such a name.
    """
    exceeded = False
    sites = list(_by_site(report)) if gates else []
    for gate in gates:
        if gate.pattern is None:
            shares = [_overall(sites)]
        else:
            shares = [share for share in sites if fnmatchcase(str(share.site), gate.pattern)]
            if not shares:
                raise InputError(f"{gate}: no site has such a name; there are {_few([site.site for site in report])}")
        mortal = [share for share in shares if share.units]
        if not mortal:
            whose = "this model" if gate.pattern is None else f"the sites {gate.pattern}"
            say(f"note: {_OPTION} had nothing to compare: no unit of {whose} is of a kind that can die")
        for share in mortal:
            if share.silent / share.units > gate.limit:
                exceeded = True
                where = f"{share.site}: " if share.site is not None else ""
                count = f"{share.silent} of {share.units} units ({100 * share.silent / share.units:.4g} %)"
                say(f"{where}{count} {share.words}, more than {gate}")
    if exceeded:
        raise typer.Exit(Status.EXCEEDED)


def _by_site(report: Report) -> Iterator[_Share]:
    from ..findings import findings, without_model

    if without_model(report):
        for found in findings(report):
            yield _Share(found.site, int(found.silent.sum()), found.units, "are dead or have no gradient")
        return
    for site in report:
        yield _Share(site.site, int(site.silent.sum()), site.units if site.can_die else 0, "are silent")


def _overall(sites: Sequence[_Share]) -> _Share:
    words = sites[0].words if sites else ""
    mortal = [share for share in sites if share.units]
    return _Share(None, sum(s.silent for s in mortal), sum(s.units for s in mortal), words)


def _few(names: list[str]) -> str:
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
