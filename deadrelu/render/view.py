"""View: a recorded run as the documents (schema `deadrelu.view/1`) that the TensorBoard tab and the HTML file draw."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..record.codes import Scale
from ..record.names import CHANNELS
from ..record.run import Cells, Run, SiteTrack
from ..report import Report
from .spoken import verdict_view

SCHEMA = "deadrelu.view/1"

_BORN_DEAD = -1


class View:
    """The documents of one run. Each is made when it is first asked for."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self._cells: dict[str, Cells] = {}

    @cached_property
    def document(self) -> dict[str, Any]:
        """The run as a whole, as JSON types."""
        run, report = self.run, self.run.report
        return {
            "schema": SCHEMA,
            "run": run.name,
            "steps": run.steps.tolist(),
            "verdict": verdict_view(report),
            "sites": [_site(track, run) for track in run.sites],
            "dead_fraction": _numbers(run.dead_fraction),
            "rates": {group: _numbers(rates) for group, rates in run.rates.items()},
            "loss": _loss(run),
            "deaths": list(run.deaths),
            "events": list(run.events),
            "causes": dict(Counter(str(death["cause"]) for death in run.deaths).most_common()),
            "thinned": "; ".join(filter(None, (run.thinned, run.damage))) or None,
            "finished": run.finished,
            "heard": None if run.heard is None else {"at": run.heard[0], "every": run.heard[1]},
            "evidence": report.evidence,
            "samples": report.samples,
            "report": {
                "units": report.units,
                "units_can_die": report.units_can_die,
                "dead": report.dead,
                "dead_fraction": report.dead_fraction,
                "silent_fraction": report.silent_fraction,
            },
        }

    @property
    def sites(self) -> Mapping[str, dict[str, Any]]:
        """The document of each site, by name."""
        return _Sites(self)

    def site(self, name: str) -> dict[str, Any]:
        """Return the document of one site, as JSON types.

        Raises:
            InputError: there is no such site, or its cells cannot be read.
        """
        cells = self._read(name)
        channels = {channel: cells.scale(channel) for channel in CHANNELS}
        return {
            "site": name,
            "units": cells.codes.shape[2],
            "steps": cells.steps.tolist(),
            "channels": {channel: None if s is None else _scale(s) for channel, s in channels.items()},
            "death_step": _death_steps(self.run.report, name, cells.codes.shape[2]),
        }

    def cells(self, site: str, channel: str) -> bytes:
        """Return the codes of one channel of a site, records x units in C order.

        Raises:
            InputError: there is no such site or channel, or its cells cannot be read.
        """
        held = self._read(site)
        if channel not in CHANNELS:
            raise InputError(f"no channel {channel!r}; the channels are {', '.join(CHANNELS)}")
        scale = held.scale(channel)
        return held.codes[:, CHANNELS.index(channel)].tobytes() if scale is None else held.on(channel, scale).tobytes()

    def _read(self, site: str) -> Cells:
        if site not in self._cells:
            self._cells = {site: self.run.cells(site)}  # one at a time: a site may take megabytes
        return self._cells[site]


class _Sites(Mapping[str, dict[str, Any]]):
    """The documents of a view's sites, in order of first execution."""

    def __init__(self, view: View) -> None:
        self._view = view

    def __getitem__(self, site: str) -> dict[str, Any]:
        if site not in tuple(self):
            raise KeyError(site)
        return self._view.site(site)

    def __iter__(self) -> Iterator[str]:
        return (track.site for track in self._view.run.sites)

    def __len__(self) -> int:
        return len(self._view.run.sites)


def _site(track: SiteTrack, run: Run) -> dict[str, Any]:
    dead = next((int(site.dead.sum()) for site in run.report.sites if site.site == track.site), 0)
    fraction = _since_dated(track, run)
    return {
        "site": track.site,
        "op": track.op,
        "units": track.units,
        "can_die": track.can_die,
        "producers": list(track.producers),
        "source": track.source,
        "dead": dead,
        "dead_fraction": _numbers(fraction),
        "silent_fraction": _numbers(np.fmax(track.silent_fraction, fraction)),
        "bias_drift": _known(track.bias_drift),
    }


def _since_dated(track: SiteTrack, run: Run) -> NDArray[np.float64]:
    """Return the dead fraction with each unit counted from its death on: it was recorded as dead when that was sure."""
    deaths = [death for death in run.deaths if death["site"] == track.site]
    since = [-1 if death["killed_by_step"] is None else death["killed_by_step"] for death in deaths]
    more = np.zeros(len(run.steps) + 1)
    np.add.at(more, np.searchsorted(run.steps, since, side="right"), 1.0)
    np.add.at(more, np.searchsorted(run.steps, [death["confirmed"] for death in deaths]), -1.0)
    found: NDArray[np.float64] = track.dead_fraction + np.cumsum(more)[:-1] / max(1, track.units)
    return found


def _death_steps(report: Report, site: str, units: int) -> list[int | None]:
    """Return of each unit when the death came that holds at the end: None if it lives, -1 if it was born dead."""
    steps: list[int | None] = [None] * units
    for death in report.deaths:
        if death["site"] == site and death["unit"] < units:
            born = death["killed_by_step"] is None
            date = _BORN_DEAD if born else death["killed_by_step"]
            steps[death["unit"]] = date if death["revived"] is None else None
    return steps


def _loss(run: Run) -> dict[str, Any] | None:
    if run.loss is None:
        return None
    curve = run.loss.thinned()
    return {"tag": curve.tag, "steps": curve.steps.tolist(), "values": _numbers(curve.values)}


def _scale(scale: Scale) -> dict[str, Any]:
    return {"low": scale.low, "high": scale.high, "scale": scale.kind}


def _known(values: NDArray[np.float64]) -> list[float | None] | None:
    return _numbers(values) if np.isfinite(values).any() else None


def _numbers(values: NDArray[np.float64]) -> list[float | None]:
    found: list[float | None] = values.tolist()
    for at in np.flatnonzero(~np.isfinite(values)).tolist():
        found[at] = None
    return found
