"""Run: a recorded run, as it was read back. What the view shows of it stands here; cells are read when asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..report import Report
from .codes import RATE, Codes, Scale
from .names import CHANNELS
from .source import Curve

Array = NDArray[np.float64]
Steps = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Cells:
    """The units of one site over time.

    Attributes:
        steps: last step of each recorded window, shape (records,).
        codes: shape (records, channels, units); see `codes.py`.
        scales: of each channel, the scale of each record; None where it was not measured.
    """

    steps: Steps
    codes: Codes
    scales: dict[str, tuple[Scale | None, ...]]

    def scale(self, channel: str) -> Scale | None:
        """Return the scale that holds every record of a channel, None if it never was measured."""
        return RATE if channel == "rate" else Scale.around(self.scales[channel])

    def on(self, channel: str, scale: Scale) -> Codes:
        """Return the codes of a channel on one scale throughout, shape (records, units)."""
        codes = self.codes[:, CHANNELS.index(channel)]
        if channel == "rate":
            return np.ascontiguousarray(codes)
        tables = {s: s.table(scale) for s in self.scales[channel] if s is not None}
        own = (None if s is None else tables[s] for s in self.scales[channel])
        rows = [row if table is None else table[row] for row, table in zip(codes, own, strict=True)]
        return np.stack(rows) if rows else np.empty(codes.shape, np.uint8)


@dataclass(frozen=True, slots=True, eq=False)
class SiteTrack:
    """One site over the recorded windows of its run; arrays of shape (records,), NaN where nothing was seen.

    Attributes:
        site, op, source, producers, units, can_die: as in `SiteSummary`.
        dead_fraction: dead units / units at the end of each window.
        silent_fraction: units that are dead or never fired in the window / units.
        bias_drift: mean of the bias minus what it was in the first window.
        grad_flow: root mean square of dL/dz over all units.
        update_ratio: median over the units of |W' - W| / |W| at one update.
    """

    site: str
    op: str
    source: str | None
    producers: tuple[str, ...]
    units: int
    can_die: bool
    dead_fraction: Array
    silent_fraction: Array
    bias_drift: Array
    grad_flow: Array
    update_ratio: Array


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """One recorded run.

    Attributes:
        name: what it is called.
        steps: last step of each recorded window, ascending, shape (records,).
        sites: in order of first execution.
        dead_fraction: dead units / units of kinds that can die, shape (records,).
        rates: learning rate per parameter group, each of shape (records,).
        loss: the loss, if one was found among the user's scalars.
        report: the final report if the run is finished, else what can be told so far.
        finished: the record holds the final report.
        thinned: what the record leaves out, in words.
        last_step: the last step that the record tells of, -1 if none.
        damage: what cannot be read of it, in words.
        heard: when the last window was written, and how many seconds passed from one to the next, on the average; None
            before the first.
    """

    name: str
    steps: Steps
    sites: tuple[SiteTrack, ...]
    dead_fraction: Array
    rates: dict[str, Array]
    loss: Curve | None
    report: Report
    finished: bool
    thinned: str | None
    last_step: int
    _read: Callable[[str], Cells] = field(repr=False)
    damage: str | None = None
    heard: tuple[float, float] | None = None

    @property
    def deaths(self) -> tuple[dict[str, Any], ...]:
        """Every confirmed death, in order of confirmation."""
        return self.report.deaths

    @property
    def events(self) -> tuple[dict[str, Any], ...]:
        """What happened, in order."""
        return self.report.events

    def cells(self, site: str) -> Cells:
        """Return the units of a site over time.

        Raises:
            InputError: there is no such site, or its cells cannot be read.
        """
        return self._read(site)
