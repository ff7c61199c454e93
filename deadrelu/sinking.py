"""Sinking: the margins of all units over the last captures, and when those that sink steadily meet zero."""

from __future__ import annotations

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
_SEEN_MARGIN, _SEEN_STD = 2, 3
_WIDE = 2.0
_ROOM = MOST + LEAST
"""Captures that there is room for: when it is full, the last ones move to the front."""
_ROUGHLY = 0.9
"""What a glance leaves for rounding, as a factor."""

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
    before, after = top[:half], top[half:]
    with np.errstate(over="ignore", invalid="ignore"):  # what is not finite does not sink
        start = np.add.reduce(before) / half
        fall = start - np.add.reduce(after) / len(after)
        found = (fall > GLANCE * start) & (start > 0)
        sites = _of_some(found, parts)
        if sites:  # the noise is dear, and in most windows no site gets here
            found &= fall > CLEAR * np.sqrt(before.var(0) / half + after.var(0) / len(after))
    return bool(_of_some(found, sites))


def _of_some(found: Mask, parts: Iterable[slice]) -> list[slice]:
    """Return the sites of which some units were found."""
    if np.count_nonzero(found) <= 1:
        return []
    return [part for part in parts if np.count_nonzero(found[part]) > max(1, SOME * (part.stop - part.start))]


class Sinking:
    """The margins of all units over the last captures. Memory is O(units).

    What the layer's own steps do to a margin is known nearly exactly, because each is measured on one set of rows; what
    the inputs do is hidden in the noise of drawing other rows. So the own part is followed as it is, and the rest as
    far as it is beyond its noise.
    """

    def __init__(self) -> None:
        self._end = 0  # of what is held, in order of time
        self._steps: Array = np.empty(_ROOM)
        self._seen: Array = np.empty((4, _ROOM, 0))  # weight and bias part, margin, std z; (4, captures, units)
        self._best: Array = np.empty(0)

    def follow(self, captures: Captures) -> None:
        """Take in the captures of a window; a site that one of them did not see has none of that step."""
        values = captures.values[-MOST:]
        more = values.shape[2] - self._seen.shape[2]
        if more:
            self._seen = np.pad(self._seen, ((0, 0), (0, 0), (0, more)), constant_values=np.nan)
            self._best = np.append(self._best, np.zeros(more))
        if not len(values):
            return
        now = self._room(len(values))
        self._steps[now] = captures.steps[-MOST:]
        with np.errstate(over="ignore", invalid="ignore"):
            np.add(values[:, _WEIGHT], values[:, _DECAY], out=self._seen[0, now])
        for row, quantity in ((1, _BIAS), (_SEEN_MARGIN, _MARGIN), (_SEEN_STD, _STD)):
            self._seen[row, now] = values[:, quantity]
        np.fmax(self._best, np.fmax.reduce(values[:, _RATE]), out=self._best)

    def _room(self, captures: int) -> slice:
        """Make room for so many captures, MOST at most, after the last ones, and return where."""
        start = self._end
        if start + captures > _ROOM:
            start = MOST - captures
            kept = slice(self._end - start, self._end)
            self._steps[:start], self._seen[:, :start] = self._steps[kept], self._seen[:, kept]
        self._end = start + captures
        return slice(start, self._end)

    @property
    def _last(self) -> slice:
        """Where the last captures stand, MOST of them or as many as there are."""
        return slice(max(0, self._end - MOST), self._end)

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
        steps, history = self._steps[self._last], self._seen[:, self._last]
        if len(steps) < LEAST:
            return found
        with np.errstate(over="ignore", invalid="ignore"):  # a run that explodes overflows here, too
            units = np.flatnonzero(_may_sink(steps, history) & (self._best > RARE))
            if not len(units):
                return found
            history = history[:, :, units]
            seen = ~np.isnan(history[_SEEN_MARGIN])
            if seen.all():
                found[units] = _left(steps, history)
                return found
            codes = (1 << np.arange(len(seen))) @ seen
            for code in np.unique(codes):  # units that were seen in the same captures
                alike = codes == code
                there = seen[:, alike.argmax()]
                found[units[alike]] = _left(steps[there], history[:, there][:, :, alike])
        return found

    def mover(self, units: NDArray[np.bool_] | NDArray[np.intp]) -> str | None:
        """Return which part of the layer, `weight` or `bias`, lowered these margins most; None if none did."""
        weight, bias = np.nan_to_num(self._seen[:2, self._last][:, 1:, units]).sum((1, 2))
        return None if min(weight, bias) >= 0 else "bias" if bias < weight else "weight"


def _may_sink(steps: Array, history: Array) -> Mask:
    """Return which units may meet zero, (units,), at a glance: few calls, for all units, after every window.

    What `_left` demands of the fall is compared with the larger of two: that of the margin, and that by the layer's
    own part. Between their slopes lies the one that it takes. A unit that was not seen in all captures may.
    """
    at = _centred(steps)
    own = np.add.accumulate(at[:0:-1])[::-1]  # what each capture but the first adds to a sum lasts until the end
    weight, bias, margin, std = history
    slope: Array = np.minimum(at.dot(margin), own.dot(weight[1:] + bias[1:])) / at.dot(at)
    fall = slope * (steps[0] - steps[-1])
    calm: Mask = fall <= _ROUGHLY * FALL * np.minimum.reduce(std)  # not so of NaN
    return ~calm


def _left(steps: Array, history: Array) -> Array:
    """Return in how many steps the margins of units meet zero, (units,), NaN where they do not sink steadily.

    History: weight and bias part, margin and std z of units that all of these captures have seen, (4, k, units).
    """
    if len(steps) < LEAST:
        return np.full(history.shape[2], np.nan)
    at, span, half = _centred(steps), steps[-1] - steps[0], len(steps) // 2
    parts, margin, std = history[:2], history[_SEEN_MARGIN], np.sort(history[_SEEN_STD], 0)
    own = np.add.reduce(np.where(np.isnan(parts), 0.0, parts))
    own[0] = 0.0
    moved = np.add.accumulate(own)
    (slope, rest, pull), (noise, doubt, _) = _line(at, np.array((margin, margin - moved, moved)))
    mean = np.add.reduce(margin) / len(at)
    near = mean + slope * at[-1] <= _WIDE * AHEAD * span * -slope
    sure = (slope < -SURE * noise) & near
    rest = np.sign(rest) * np.maximum(np.abs(rest) - 2 * doubt, 0)
    slope, late = pull + rest, _slope(_centred(steps[half:]), moved[half:]) + rest
    now = mean + slope * at[-1]
    left: Array = np.divide(now, -slope, out=np.full_like(now, np.inf), where=slope < 0)
    median = (std[half] + std[(len(at) - 1) // 2]) / 2
    steady: Mask = (slope < 0) & (late <= STRAIGHT * slope) & (-slope * span > FALL * median)
    left[~(sure & steady & (now > 0) & (left <= AHEAD * span))] = np.nan
    return left


def _centred(steps: Array) -> Array:
    at: Array = steps - np.add.reduce(steps) / len(steps)
    return at


def _slope(at: Array, values: Array) -> Array:
    """Return the slopes of the lines through values (..., k, units) at (k,), whose mean is 0."""
    return np.asarray(at.dot(values) / at.dot(at))


def _line(at: Array, values: Array) -> tuple[Array, Array]:
    """Return slope and standard error of the lines through values (..., k, units) at (k,), whose mean is 0."""
    slope, k = _slope(at, values), len(at)
    rest = values - np.add.reduce(values, -2, keepdims=True) / k - at[:, None] * slope[..., None, :]
    return slope, np.sqrt(np.add.reduce(rest * rest, -2) / max(1, k - 2) / at.dot(at))
