"""Trajectory: what moved the margin of each unit of a site since it was last healthy.

A unit is healthy at a capture if its rate is at least a quarter of its own best. The parts are summed from the last
healthy capture to the first one of the silence; that sum is what a death reports as its shares.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .drift import QUANTITIES, Captures

Array = NDArray[np.float64]
PARTS = QUANTITIES[:5]
RISK_CAPTURES = 6
RISK_SURE = 6.0
RISK_RATE = 0.05
PACE_CAPTURES = 5
"""Captures whose own steps are averaged, about one window: longer than a swing, shorter than a drift."""
HEALTHY = 0.25
"""Share of its best rate at which a unit counts as healthy."""


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


class Trajectory:
    """The path of the units of one site, (units,) each, capture by capture.

    Attributes:
        parts: sums of the parts since each unit was last healthy, (5, units).
        std: standard deviation of z when last healthy.
        best: best activation rate so far.
        margins: (step, margin of each unit) of the last captures, newest last.
        kicks: (step, median kick over the units) of the last captures.
    """

    def __init__(self, units: int) -> None:
        self.parts = np.zeros((len(PARTS), units))
        self.std = np.zeros(units)
        self.best = np.zeros(units)
        self.margins: list[tuple[int, Array]] = []
        self.kicks: deque[tuple[int, float]] = deque(maxlen=256)
        # Per unit: margin when last healthy, margin now, largest kick, its learning rate, step when last healthy, now,
        # pace.
        self._open = np.full((7, units), np.nan)
        self._closed = np.full((len(PARTS) + 7, units), np.nan)
        self._steps: deque[Array] = deque(maxlen=PACE_CAPTURES)
        self._lately = self._closed.copy()
        self._silent = np.zeros(units, bool)
        self._last: int | None = None

    def follow(self, captures: Captures, fired: list[NDArray[np.bool_]], lr: list[tuple[float, float]]) -> None:
        """Take in the captures of a window.

        Args:
            captures: the captures, in order.
            fired: per capture, which units fired since the one before, this one included, (units,).
            lr: per capture, the largest learning rate of the weight since the one before, and that of the update that
                followed; NaN if no optimizer holds it.
        """
        for step, values, active, rates in zip(captures.steps, captures.values, fired, lr, strict=True):
            with np.errstate(over="ignore", invalid="ignore"):  # a run that explodes overflows here, too
                self._step(step, dict(zip(QUANTITIES, values, strict=True)), active, *rates)

    def stretch(self, unit: int, last_fired: int) -> Stretch | None:
        """Return the stretch in which a unit fell silent after `last_fired`, None if it was never healthy before."""
        closed = self._closed[:, unit]
        if not closed[-2] > last_fired:  # no capture since it fell silent: the stretch ends with the last one
            closed = np.concatenate([self.parts[:, unit], self._open[:, unit]])
            if self._open[4, unit] == self._open[5, unit]:  # healthy at the last capture: what moved it until then
                closed = self._lately[:, unit]
        parts, (before, after, kick, lr, first, last, pace) = closed[: len(PARTS)], closed[len(PARTS) :]
        if not np.isfinite(before):
            return None
        steady = float(pace / kick) if kick > 0 and np.isfinite(pace) else None
        return Stretch(parts, float(before), float(after), float(kick), steady, float(lr), int(first), int(last))

    def _step(self, step: int, seen: dict[str, Array], fired: NDArray[np.bool_], peak: float, lr: float) -> None:
        self.parts += np.stack([np.nan_to_num(seen[name]) for name in PARTS])
        self.best = np.fmax(self.best, seen["rate"])
        healthy = fired & (seen["rate"] > 0) & (seen["rate"] >= HEALTHY * self.best)
        begins = ~fired & ~self._silent
        self._silent = ~fired
        past, present = self._kick(step, seen)
        self._open[1], self._open[5], self._open[6] = seen["margin"], step, self._pace(step, seen)
        self._raise(~fired | ~healthy, past, peak)
        self._closed[:, begins] = np.concatenate([self.parts, self._open])[:, begins]
        self._lately[:, healthy] = np.concatenate([self.parts, self._open])[:, healthy]
        # A healthy unit begins a new stretch, and what this update did to it belongs there.
        self.parts[:, healthy] = 0
        self.std[healthy] = seen["std"][healthy]
        self._open[0, healthy], self._open[4, healthy] = seen["margin"][healthy], step
        self._open[2, healthy] = np.nan
        self._raise(np.ones_like(fired), present, lr)
        self.kicks.append((step, float(np.median(np.fmax(past, present)))))
        self.margins = [*self.margins[-7:], (step, seen["margin"])]
        self._last = step

    def _raise(self, units: NDArray[np.bool_], kick: Array, lr: float) -> None:
        """Take over a kick that is larger than those of the stretch so far."""
        larger = units & ~(self._open[2] >= kick)
        self._open[2, larger], self._open[3, larger] = kick[larger], lr

    def _pace(self, step: int, seen: dict[str, Array]) -> Array:
        """Return the own step of the mean update over the last captures, over std z; NaN after fewer than three."""
        if self._last is not None:
            self._steps.append(np.nan_to_num(seen["own"]) / (step - self._last))
        if len(self._steps) < 2:
            return np.full_like(self.std, np.nan)
        spread = np.where(self.std > 0, self.std, seen["std"])
        return _over(np.abs(np.mean(self._steps, axis=0)), spread)

    def _kick(self, step: int, seen: dict[str, Array]) -> tuple[Array, Array]:
        """Return the own step of one update over std z: the mean since the last capture, and that of this step."""
        since = 1 if self._last is None else step - self._last
        spread = np.where(self.std > 0, self.std, seen["std"])
        past = _over(np.abs(np.nan_to_num(seen["own"])) / since, spread)
        return past, np.maximum(_over(np.abs(seen["kick"]), spread), seen["turn"])

    def sinking(self) -> Array:
        """Return in how many steps the margin of each unit reaches zero, (units,); NaN where it does not sink steadily.

        Steadily: the slope of a line through the last captures is beyond its standard error by far, the margin has
        come down to one std z of the healthy unit, and the line meets zero within as many steps as it spans, twice.
        """
        found = np.full(self.parts.shape[1], np.nan)
        if len(self.margins) < RISK_CAPTURES:
            return found
        steps = np.array([step for step, _ in self.margins], float)
        values = np.stack([margin for _, margin in self.margins])
        at = steps - steps.mean()
        slope = (at[:, None] * values).sum(0) / (at**2).sum()
        rest = values - values.mean(0) - at[:, None] * slope
        error = np.sqrt((rest**2).sum(0) / (len(steps) - 2) / (at**2).sum())
        now = values[-1]
        left = np.divide(now, -slope, out=np.full_like(now, np.inf), where=slope < 0)
        near = (now > 0) & (now <= self.std) & (left <= 2 * (steps[-1] - steps[0]))
        sure = (slope < -RISK_SURE * error) & (values[0] - now > self.std / 2) & (self.best > RISK_RATE)
        found[near & sure] = left[near & sure]
        return found

    def largest_kick(self, first: int, last: int) -> float:
        """Return the largest median kick of the captures from step `first` to `last`."""
        return max((kick for step, kick in self.kicks if first <= step <= last), default=0.0)


def _over(part: Array, whole: Array) -> Array:
    """Return part / whole, 0 where the whole is 0: a unit that never varied has no kick."""
    return np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)
