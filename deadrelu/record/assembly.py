"""Assembly: the rows of a record put together into a `Run`, as far as they go."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..report import Report
from . import names
from .codes import Scale
from .ending import unpacked
from .rebuilt import rebuilt, told_of
from .run import Array, Cells, Run, SiteTrack, Steps
from .sessions import Sessions, document
from .source import Curve, Row, Source
from .thinning import said, stride

_DAMAGED = (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError, zlib.error)


@dataclass(frozen=True, slots=True, eq=False)
class _Windows:
    """The windows that were recorded: places in the run, steps, documents, lines (windows, sites, COLUMNS), times."""

    places: NDArray[np.int64]
    steps: Steps
    told: Sequence[dict[str, Any]]
    sessions: NDArray[np.int64]
    lines: Array
    times: Array

    @property
    def count(self) -> int:
        """Windows of the run so far, recorded or not."""
        return int(self.places[-1]) + 1 if len(self.places) else 0

    @property
    def heard(self) -> tuple[float, float] | None:
        """When the last one was written, and the mean time from one of the last ones to the next."""
        if not len(self.times):
            return None
        latest = self.times[-10:]
        return float(latest[-1]), float(latest[-1] - latest[0]) / max(1, len(latest) - 1)


def assemble(name: str, source: Source, where: str, *, loss: Curve | None = None) -> Run:
    """Return the run that a source holds.

    Args:
        name: what the run is called.
        source: where its rows are.
        where: how a message names the source.
        loss: what to show if the source has no loss.

    Raises:
        InputError: the record is damaged.
    """
    try:
        return _assemble(name, source, where, loss)
    except _DAMAGED as error:
        raise _damaged(where, error) from None


def _assemble(name: str, source: Source, where: str, loss: Curve | None) -> Run:
    rows = source.rows([names.SITES, names.WINDOW, names.LINES, names.HAPPENED, names.REPORT])
    sessions = Sessions(rows.get(names.SITES, ()))
    windows = _windows(rows, sessions)
    kept = _evenly(windows.places, windows.count)
    told = sessions.valid(rows.get(names.HAPPENED, ()))
    happened, steps = told_of([document(row) for row in told]), [row.step for row in told]
    read = _reader(source, sessions, windows, where)
    final = _final(
        sessions.valid(rows.get(names.REPORT, ())), after=max([-1, *windows.steps[-1:].tolist(), *steps[-1:]])
    )
    samples = int(windows.told[-1]["samples"]) if windows.told else 0
    found = sessions.sites()
    if final is None:
        final, finished = rebuilt(found, _latest(source, sessions, windows), happened, samples), False
    else:
        finished = True
    own = source.loss()
    waiting = max(((int(told["waiting"]), int(told["bound"])) for told in windows.told), default=(0, 0))
    ends = [int(windows.steps[-1]) if len(windows.steps) else -1, *(int(e["steps"][1]) for e in final.events)]
    return Run(
        name=name,
        steps=windows.steps[kept],
        sites=tuple(_track(site, sessions, windows, kept) for site in found.values()),
        dead_fraction=_floats([windows.told[i]["dead_fraction"] for i in kept]),
        rates=_rates([windows.told[i]["rates"] for i in kept]),
        loss=(own if own is not None else loss),
        report=final,
        finished=finished,
        thinned=said(windows.count, *waiting),
        damage=source.damage(),
        heard=windows.heard,
        last_step=max(ends),
        _read=read,
    )


def _windows(rows: dict[str, list[Row]], sessions: Sessions) -> _Windows:
    told_at = {
        row.step: (sessions.of(row), document(row), row.wall_time) for row in sessions.valid(rows.get(names.WINDOW, ()))
    }
    lines_at = {row.step: row.content for row in sessions.valid(rows.get(names.LINES, ()))}
    steps = [step for step in told_at if step in lines_at]
    found = [told_at[step] for step in steps]
    places, base, before = [], 0, None
    for session, told, _ in found:
        # The windows of a resumed run are counted on from those before.
        if before is not None and session != before:
            base = places[-1] + 1 - int(told["window"])
        places.append(base + int(told["window"]))
        before = session
    most = max((len(lines_at[step]) for step in steps), default=0)
    lines = np.full((len(steps), most, len(names.COLUMNS)), np.nan)
    for i, step in enumerate(steps):
        held = np.asarray(lines_at[step], np.float64)
        lines[i, : len(held)] = held[:, : len(names.COLUMNS)]
    return _Windows(
        places=np.array(places, np.int64),
        steps=np.array(steps, np.int64),
        told=[told for _, told, _ in found],
        sessions=np.array([session for session, _, _ in found], np.int64),
        lines=lines,
        times=np.array([time for _, _, time in found], np.float64),
    )


def _evenly(places: NDArray[np.int64], windows: int) -> NDArray[np.intp]:
    """Return which records are shown: the first of each stretch of windows as long as the stride, and the last."""
    if not len(places):
        return np.empty(0, np.intp)
    _, first = np.unique(places // stride(windows), return_index=True)
    return np.union1d(first, [len(places) - 1])


def _track(site: dict[str, Any], sessions: Sessions, windows: _Windows, kept: NDArray[np.intp]) -> SiteTrack:
    lines = _lines(site["site"], sessions, windows)[kept]
    columns: dict[str, Any] = {name: lines[:, i] for i, name in enumerate(names.COLUMNS[:5])}
    return SiteTrack(**site, **columns)


def _lines(site: str, sessions: Sessions, windows: _Windows) -> Array:
    """Return the lines of one site, shape (windows, COLUMNS)."""
    lines = np.full((len(windows.steps), len(names.COLUMNS)), np.nan)
    for session, number in sessions.numbers(site).items():
        if number < windows.lines.shape[1]:
            own = windows.sessions == session
            lines[own] = windows.lines[own, number]
    return lines


def _reader(source: Source, sessions: Sessions, windows: _Windows, where: str) -> Callable[[str], Cells]:
    def read(site: str) -> Cells:
        if site not in sessions.sites():
            raise InputError(f"no site {site!r} in {where}; the sites are {', '.join(sessions.sites()) or 'none'}")
        try:
            return _cells(source.rows(sorted(_tags(sessions, site))), sessions, windows, site)
        except _DAMAGED as error:
            raise _damaged(where, error) from None

    return read


def _tags(sessions: Sessions, site: str) -> dict[str, int]:
    return {names.cells_tag(number): number for number in sessions.numbers(site).values()}


def _latest(source: Source, sessions: Sessions, windows: _Windows) -> dict[str, Cells]:
    """Return the last record of every site, in one request."""
    tags = {tag for site in sessions.sites() for tag in _tags(sessions, site)}
    found = source.rows(sorted(tags), 1)
    return {site: _cells(found, sessions, windows, site) for site in sessions.sites()}


def _cells(found: Mapping[str, Sequence[Row]], sessions: Sessions, windows: _Windows, site: str) -> Cells:
    numbers, tags = sessions.numbers(site), _tags(sessions, site)
    shape = (len(names.CHANNELS), sessions.sites()[site]["units"])
    held = [
        row
        for tag in tags
        for row in found.get(tag, ())
        if isinstance(row.content, np.ndarray) and row.content.dtype == np.uint8 and row.content.shape == shape
        if numbers.get(sessions.of(row), -1) == tags[tag]
    ]
    rows = sessions.valid(held)
    steps = np.array([row.step for row in rows], np.int64)
    told = np.isin(steps, windows.steps)  # the rest belongs to windows that were not read whole
    rows, at = (
        [row for row, known in zip(rows, told, strict=True) if known],
        np.searchsorted(windows.steps, steps[told]),
    )
    kept = _evenly(windows.places[at], windows.count)
    lines = _lines(site, sessions, windows)[at[kept]]
    return Cells(
        steps=windows.steps[at[kept]],
        codes=np.stack([rows[i].content for i in kept]) if len(kept) else np.empty((0, *shape), np.uint8),
        scales={
            "grad": tuple(_scale(low, high, "log") for low, high in lines[:, 5:7].tolist()),
            "bias": tuple(_scale(low, high, "linear") for low, high in lines[:, 7:9].tolist()),
        },
    )


def _scale(low: float, high: float, kind: Any) -> Scale | None:
    sane = np.isfinite(low) and np.isfinite(high) and low < high and (low > 0 or kind == "linear")
    return Scale(low, high, kind) if sane else None


def _final(rows: Sequence[Row], after: int) -> Report | None:
    """Return the final report, None if it is of a step before `after`: the run went on."""
    if not rows or rows[-1].step < after:
        return None
    held = rows[-1].content
    if not isinstance(held, bytes):
        raise ValueError("the final report is an array")
    return unpacked(held)


def _rates(told: Sequence[dict[str, Any]]) -> dict[str, Array]:
    groups = dict.fromkeys(group for rates in told for group in rates)
    return {str(group): _floats([rates.get(group) for rates in told]) for group in groups}


def _floats(values: Sequence[float | None]) -> Array:
    return np.array([np.nan if value is None else float(value) for value in values], np.float64)


def _damaged(where: str, error: Exception) -> InputError:
    return InputError(
        f"{where}: the record is damaged, or was not written by deadrelu ({type(error).__name__}: {error}); "
        "what TensorBoard shows of the folder may still be right"
    )
