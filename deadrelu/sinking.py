"""Sinking: the margins of all units over the last captures, and when those that sink steadily meet zero."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from .captures import QUANTITIES, Captures

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
LEAST, MOST = 8, 16
"""Captures through which a line is drawn: fewer say nothing, older ones tell of another stretch of the training."""
SURE = 5.0
"""Standard errors by which the margin must sink: thousands of units are looked at, again and again."""
FALL = 0.5
"""Part of std z that the margin must have lost along the line."""
STRAIGHT = 0.8
"""Part of its speed over all captures that the own step must keep in the later half: what slows down may stop."""
AHEAD = 2.0
"""How far a line is followed, over what it was drawn through."""
RARE = 0.02
"""A unit whose activation rate was never above this has no margin to speak of."""
_WEIGHT, _DECAY, _BIAS, _MARGIN, _STD, _RATE = map(
    QUANTITIES.index, ("weight", "decay", "bias", "margin", "std", "rate")
)
_SEEN_MARGIN = 2
_WIDE = 2.0


GLANCE, CLEAR, SOME = 0.1, 4.0, 0.05
"""Part of its largest z that a unit loses from one half of a window to the next, the standard errors by which it does,
and the part of a site's units of which that is seen at a glance."""


def sinks(top: Array, parts: Iterable[slice]) -> bool:
    """Return whether some units of a site sink, by the largest z of each step of one window, (steps, units).

    >>> top = np.random.default_rng(0).normal(3.0, 0.3, (50, 40))
    >>> sinks(top, [slice(0, 40)])
    False
    >>> top[:, :4] -= 0.02 * np.arange(50)[:, None]  # one in ten loses a third of it
    >>> sinks(top, [slice(0, 40)])
    True
    """
    half = len(top) // 2
    if half < LEAST:
        return False
    with np.errstate(over="ignore", invalid="ignore"):  # what is not finite does not sink
        before, after = top[:half], top[half:]
        start, fall = before.mean(0), before.mean(0) - after.mean(0)
        noise = np.sqrt(before.var(0) / half + after.var(0) / len(after))
        found = (fall > CLEAR * noise) & (fall > GLANCE * start) & (start > 0)
    return any(np.count_nonzero(found[part]) > max(1, SOME * (part.stop - part.start)) for part in parts)


class Sinking:
    """The margins of all units over the last captures. Memory is O(units).

    What the layer's own steps do to a margin is known nearly exactly, because each is measured on one set of rows; what
    the inputs do is hidden in the noise of drawing other rows. So the own part is followed as it is, and the rest as
    far as it is beyond its noise.
    """

    def __init__(self) -> None:
        self._steps: deque[int] = deque(maxlen=MOST)
        self._seen: Array = np.empty((0, 4, 0))  # weight and bias part, margin, std z; (captures, 4, units)
        self._best: Array = np.empty(0)

    def follow(self, captures: Captures) -> None:
        """Take in the captures of a window; a site that one of them did not see has none of that step."""
        values = captures.values[-MOST:]
        more = values.shape[2] - self._seen.shape[2]
        if more:
            self._seen = np.pad(self._seen, ((0, 0), (0, 0), (0, more)), constant_values=np.nan)
            self._best = np.append(self._best, np.zeros(more))
        with np.errstate(over="ignore", invalid="ignore"):
            seen = values[:, [_WEIGHT, _BIAS, _MARGIN, _STD]]
            seen[:, 0] += values[:, _DECAY]
        self._steps.extend(captures.steps)
        self._seen = np.concatenate((self._seen[max(0, len(self._seen) + len(seen) - MOST) :], seen))
        if len(values):
            self._best = np.fmax(self._best, values[:, _RATE].max(0, initial=0.0, where=~np.isnan(values[:, _RATE])))

    def left(self) -> Array:
        """Return in how many steps each margin meets zero, (units,); NaN where it does not sink steadily.

        >>> values = np.zeros((10, len(QUANTITIES), 2))
        >>> values[1:, QUANTITIES.index("bias"), 0] = -0.1  # one unit sinks, by 0.01 a step
        >>> values[:, QUANTITIES.index("margin"), 0] = 1.9 - 0.1 * np.arange(10)
        >>> values[:, [QUANTITIES.index("std"), QUANTITIES.index("rate")]] = 1.0
        >>> sinking = Sinking()
        >>> seen = np.ones((10, 2), bool)
        >>> sinking.follow(Captures(list(range(0, 100, 10)), {"relu": slice(0, 2)}, seen, values))
        >>> sinking.left().round(6)
        array([100.,  nan])
        """
        found = np.full(len(self._best), np.nan)
        steps = np.array(self._steps, float)
        seen = ~np.isnan(self._seen[:, _SEEN_MARGIN])
        if seen.all():
            self._look(steps, slice(None), found)
        else:
            codes = (1 << np.arange(len(seen))) @ seen
            for code in np.unique(codes):
                units = np.flatnonzero(codes == code)
                mask = seen[:, units[0]]
                self._look(steps[mask], units, found, mask)
        return found

    def _look(
        self, steps: Array, units: slice | NDArray[np.intp], found: Array, captures: slice | Mask = slice(None)
    ) -> None:
        """Find out about units that were all seen in the same captures."""
        if len(steps) < LEAST:
            return
        at, span = steps - steps.mean(), steps[-1] - steps[0]
        history = self._seen[captures][:, :, units]
        with np.errstate(over="ignore", invalid="ignore"):  # a run that explodes overflows here, too
            slope, noise = _line(at, history[:, _SEEN_MARGIN])
            margin = history[:, _SEEN_MARGIN].mean(0) + slope * at[-1]
            near = margin <= _WIDE * AHEAD * span * -slope  # at a glance; what is far off need not be looked at
            falling = np.flatnonzero((slope < -SURE * noise) & near & (self._best[units] > RARE))
            if len(falling):
                weight, bias, margin, std = history[:, :, falling].swapaxes(0, 1)
                left = _meets_zero(at, span, np.nan_to_num(weight) + np.nan_to_num(bias), margin, std)
                found[np.arange(len(found))[units][falling]] = left

    def mover(self, units: NDArray[np.bool_] | NDArray[np.intp]) -> str | None:
        """Return which part of the layer, `weight` or `bias`, lowered these margins most; None if none did."""
        weight, bias = np.nan_to_num(self._seen[1:, :2, units]).sum((0, 2))
        return None if min(weight, bias) >= 0 else "bias" if bias < weight else "weight"


def _meets_zero(at: Array, span: float, own: Array, margin: Array, std: Array) -> Array:
    """Return in how many steps the margins (k, units) that sink steadily meet zero; NaN for the others."""
    moved = np.concatenate((np.zeros_like(own[:1]), np.cumsum(own[1:], 0)))
    rest, noise = _line(at, margin - moved)
    rest = np.sign(rest) * np.maximum(np.abs(rest) - 2 * noise, 0)
    half = len(at) // 2
    slope = _line(at, moved)[0] + rest
    late = _line(at[half:] - at[half:].mean(), moved[half:])[0] + rest
    now = margin.mean(0) + slope * at[-1]
    left = np.divide(now, -slope, out=np.full_like(now, np.inf), where=slope < 0)
    steady = (slope < 0) & (late <= STRAIGHT * slope) & (-slope * span > FALL * np.median(std, 0))
    return np.where(steady & (now > 0) & (left <= AHEAD * span), left, np.nan)


def _line(at: Array, values: Array) -> tuple[Array, Array]:
    """Return slope and standard error of the line through values (k, units) at (k,), whose mean is 0."""
    square = (at**2).sum()
    slope = (at[:, None] * values).sum(0) / square
    rest = values - values.mean(0) - at[:, None] * slope
    return slope, np.sqrt((rest**2).sum(0) / max(1, len(at) - 2) / square)
