"""Trajectories: what moved the margin of each unit since it was last healthy.

A unit is healthy at a capture if its rate is at least a quarter of its own best. The parts are summed from the last
healthy capture to the first one of the silence; that sum is what a death reports as its shares.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .captures import QUANTITIES, Captures

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
PARTS = QUANTITIES[:5]
HEALTHY = 0.25
"""Share of its best rate at which a unit counts as healthy."""
FAINT = 0.02
"""Activation rate up to which an unhealthy unit is all but silent."""
PACE_CAPTURES = 5
"""Captures whose own steps are averaged, about one window: longer than a swing, shorter than a drift."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """The fatal stretch of one unit: from when it was last healthy to the first capture of its silence.

    Attributes:
        parts: the sums of the parts, in the order of PARTS; they add up to `after` - `before`.
        before, after: the margin at both ends.
        kick: largest own step of one update, in units of std z when last healthy.
        steady: own step of the mean update over the last captures, over the largest; None after fewer than three.
        lr: learning rate at that update, NaN if no optimizer holds the weight.
        first, last: the steps at both ends.
    """

    parts: Array
    before: float
    after: float
    kick: float
    steady: float | None
    lr: float
    first: int
    last: int


class _Rows:
    """Where a unit's quantities stand in its column of the state."""

    PARTS = slice(0, 5)  # sums since it was last healthy
    BEFORE, AFTER, KICK, LR, FIRST, NOW, PACE = range(5, 12)  # the stretch under way
    OPEN = slice(0, 12)
    CLOSED = slice(12, 24)  # the stretch as it was at the first capture of the silence
    LATELY = slice(24, 36)  # and at the last healthy one
    STD, BEST, SILENT, LAST = range(36, 40)
    STEPS = slice(40, 40 + PACE_CAPTURES)  # own step of the mean update, by capture, the newest last
    SINGLE = slice(STEPS.stop, STEPS.stop + PACE_CAPTURES)  # own step of the update after each capture
    SINCE = SINGLE.stop  # updates from the capture before to the last one
    SPREAD = SINCE + 1  # standard deviation of z at the last capture
    COUNT = SPREAD + 1


class Trajectories:
    """The paths of all units that are followed, capture by capture. Memory is O(units).

    Attributes:
        kick: what nine in ten units of each site stayed below in the captures taken in last.
    """

    def __init__(self) -> None:
        self._columns: dict[str, slice] = {}
        self._state = np.empty((_Rows.COUNT, 0))
        self._kicks: dict[str, deque[tuple[int, float]]] = {}
        self.kick = 0.0

    def __contains__(self, site: str) -> bool:
        return site in self._kicks

    def parts(self, site: str) -> Array:
        """Return the sums of the parts since each unit was last healthy, (5, units)."""
        return self._state[_Rows.PARTS, self._columns[site]]

    def std(self, site: str) -> Array:
        """Return the standard deviation of z of each unit, when last healthy or at the last capture: the larger."""
        part = self._columns[site]
        return np.fmax(self._state[_Rows.STD, part], self._state[_Rows.SPREAD, part])

    def margin(self, site: str) -> Array:
        """Return the margin of each unit at the last capture, (units,)."""
        return self._state[_Rows.AFTER, self._columns[site]]

    def follow(self, captures: Captures, fired: Mask, rates: Array) -> None:
        """Take in the captures of a window.

        Args:
            captures: the captures, in order.
            fired: which units fired since the capture before, this one included, (captures, units).
            rates: the largest learning rate of the weight since the capture before, and that of the update that
                followed, (captures, 2, units); NaN if no optimizer holds it.
        """
        self._grow(captures)
        self.kick = 0.0
        with np.errstate(over="ignore", invalid="ignore"):  # a run that explodes overflows here, too
            for i, step in enumerate(captures.steps):
                there, seen = captures.seen[i], captures.values[i]
                if there.all():
                    kicks = _advance(self._state, step, seen, fired[i], *rates[i])
                else:
                    kicks = np.zeros(len(there))
                    state = self._state[:, there]
                    kicks[there] = _advance(state, step, seen[:, there], fired[i, there], *rates[i][:, there])
                    self._state[:, there] = state
                for site, part in self._columns.items():
                    if part.start < part.stop and there[part.start]:
                        usual, most = _median_and_most(kicks[part])
                        self._kicks.setdefault(site, deque(maxlen=256)).append((step, usual))
                        self.kick = max(self.kick, most if math.isfinite(most) else np.inf)

    def _grow(self, captures: Captures) -> None:
        more = captures.values.shape[2] - self._state.shape[1]
        if more:
            fresh = np.full((_Rows.COUNT, more), np.nan)
            fresh[_Rows.PARTS], fresh[[_Rows.STD, _Rows.BEST, _Rows.SILENT]] = 0.0, 0.0
            self._state = np.concatenate((self._state, fresh), 1)
            self._columns = captures.columns

    def stretch(self, site: str, unit: int, last_fired: int) -> Stretch | None:
        """Return the stretch in which a unit fell silent after `last_fired`, None if it was never healthy before."""
        rows = _Rows
        state = self._state[:, self._columns[site].start + unit]
        held = state[rows.CLOSED]
        if not held[rows.NOW] > last_fired:  # no capture since it fell silent: the stretch ends with the last one
            held = state[rows.OPEN].copy()
            if held[rows.FIRST] == held[rows.NOW]:  # healthy at the last capture: what moved it until then
                held = state[rows.LATELY].copy()
            held[rows.PACE] = _pace(state[:, None])[0]
        if not np.isfinite(held[rows.BEFORE]):
            return None
        before, after, kick, lr, first, last, pace = map(float, held[rows.BEFORE :])
        steady = pace / kick if kick > 0 and np.isfinite(pace) else None
        return Stretch(held[rows.PARTS].copy(), before, after, kick, steady, lr, int(first), int(last))

    def largest_kick(self, site: str, first: int, last: int) -> float:
        """Return the largest median kick of a site's captures from step `first` to `last`."""
        return max((kick for step, kick in self._kicks.get(site, ()) if first <= step <= last), default=0.0)


def _advance(state: Array, step: int, seen: Array, fired: Mask, peak: Array, lr: Array) -> Array:
    """Move the state (rows, units) on by one capture, in place. Returns the larger kick of each unit."""
    rows = _Rows
    margin, std, own, kick, rate, turn = seen[len(PARTS) :]
    state[rows.PARTS] += _told(seen[: len(PARTS)])
    own = _told(own)
    np.fmax(state[rows.BEST], rate, out=state[rows.BEST])
    healthy = fired & (rate > 0) & (rate >= HEALTHY * state[rows.BEST])
    well = bool(healthy.all())
    spread = np.where(state[rows.STD] > 0, state[rows.STD], std)
    since = step - state[rows.LAST]
    first = np.isnan(since)
    since[first] = 1
    pace = own / since
    # The own step of one update over std z: the mean since the last capture, and that of this step. One that turns a
    # unit is no blow to one that is all but silent: the last rows that a sinking unit fires on may turn it any time.
    kicks = _over(np.abs((pace, kick)), spread)
    past, present = kicks
    np.maximum(present, turn if well else np.where(healthy | (rate > FAINT), turn, 0.0), out=present)
    pace[first] = np.nan
    paces = state[rows.STEPS.start : rows.SINGLE.stop]
    paces[:-1] = paces[1:]
    state[rows.STEPS.stop - 1], state[rows.SINGLE.stop - 1] = pace, kick
    for row, value in ((rows.AFTER, margin), (rows.NOW, step), (rows.SINCE, since), (rows.SPREAD, std)):
        state[row] = value
    if not well:
        _raise(state, ~healthy, past, peak)
        begins = ~fired & (state[rows.SILENT] == 0)
        if begins.any():
            state[rows.CLOSED, begins] = state[rows.OPEN, begins]
            state[rows.CLOSED.stop - 1, begins] = _pace(state[:, begins])
    np.copyto(state[rows.LATELY], state[rows.OPEN], where=healthy)
    # A healthy unit begins a new stretch, and what this update did to it belongs there.
    np.copyto(state[rows.PARTS], 0.0, where=healthy)
    for row, value in ((rows.STD, std), (rows.BEFORE, margin), (rows.FIRST, step), (rows.KICK, np.nan)):
        np.copyto(state[row], value, where=healthy)
    _raise(state, True, present, lr)
    state[rows.SILENT], state[rows.LAST] = ~fired, step
    larger: Array = np.fmax(past, present)
    return larger


def _told(moves: Array) -> Array:
    """Return moves with those that are not known, since something was not finite, as 0."""
    if math.isnan(np.add.reduce(moves, axis=None)) and np.isnan(moves).any():
        return np.nan_to_num(moves)
    return moves


def _raise(state: Array, units: Mask | bool, kick: Array, lr: Array) -> None:
    """Take over a kick that is larger than those of the stretch so far."""
    larger = units & ~(state[_Rows.KICK] >= kick)
    np.copyto(state[_Rows.KICK], kick, where=larger)
    np.copyto(state[_Rows.LR], lr, where=larger)


def _pace(state: Array) -> Array:
    """Return the own step of the mean update over the last captures, over std z; NaN after fewer than three.

    Captures before the pull set in, at which the unit moved less than half as fast as at its fastest, do not count. Of
    a pull that set in after the capture before the last, it is the updates at these two captures that tell: one that
    goes the same way, and of which it takes at least three to make the move, is one of many.
    """
    own, kicks = state[_Rows.STEPS], state[_Rows.SINGLE][-2:]
    known = np.isfinite(own)
    speed = np.where(known, np.abs(own), 0.0)
    fast = speed >= speed.max(0) / 2
    since = np.maximum.accumulate(fast & known, 0)
    mean = np.abs(np.where(since, own, 0.0).sum(0)) / np.maximum(since.sum(0), 1)
    move = own[-1] * state[_Rows.SINCE]
    with np.errstate(invalid="ignore"):
        alike = (kicks * move > 0) & (np.abs(move) >= 3 * np.abs(kicks))
    late = np.where(alike, np.abs(kicks), 0.0).max(0)
    pace = _over(np.where(since.sum(0) == 1, np.maximum(late, mean / PACE_CAPTURES), mean), state[_Rows.STD])
    pace[known.sum(0) < 2] = np.nan
    return pace


def _median_and_most(values: Array) -> tuple[float, float]:
    """Return the median and what nine in ten stay below, 0 of nothing; faster than numpy's on so few values."""
    if not len(values):
        return 0.0, 0.0
    ordered = values.copy()
    ordered.sort()
    middle = len(values) // 2
    median = ordered[middle] if len(values) % 2 else (ordered[middle - 1] + ordered[middle]) / 2
    return float(median), float(ordered[len(values) * 9 // 10])


def _over(part: Array, whole: Array) -> Array:
    """Return part / whole, 0 where the whole is 0: a unit that never varied has no kick."""
    return np.divide(part, whole, out=np.zeros(part.shape), where=whole > 0)
