"""Codes: what a channel says of a unit in a window, in one byte.

0: the recorder says that the unit is dead. 255: not measured. 1 to 254: a value on the scale of the channel. On a
logarithmic scale 1 is nothing (of `rate`: silent throughout the window), and whatever is more is at least 2. So dead
never looks like rare, nor rare like silent.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from .units import Units

Array = NDArray[np.float64]
Codes = NDArray[np.uint8]

DEAD, LOWEST, HIGHEST, UNSEEN = 0, 1, 254, 255
_STEPS = HIGHEST - LOWEST
_SMALLEST, _LARGEST = 1e-300, 1e300

Kind = Literal["log", "linear"]


@dataclass(frozen=True, slots=True)
class Scale:
    """What the codes 1 and 254 stand for; what lies beyond has the code at the end.

    The value of code c is `low + (c - 1) / 253 * (high - low)`, or `low * (high / low) ** ((c - 1) / 253)`.
    """

    low: float
    high: float
    kind: Kind

    @classmethod
    def around(cls, scales: Iterable[Scale | None]) -> Scale | None:
        """Return the scale that holds all of these, None without any."""
        known = [scale for scale in scales if scale is not None]
        if not known:
            return None
        return cls(min(s.low for s in known), max(s.high for s in known), known[0].kind)

    def encode(self, values: Array) -> Codes:
        """Return the codes of values; NaN becomes 255."""
        return encode(values, self.low, self.high, self.kind)

    def values(self) -> Array:
        """Return the value of each code, shape (256,); NaN for dead and unseen."""
        part = (np.arange(256) - LOWEST) / _STEPS
        if self.kind == "log":
            held = np.exp(math.log(self.low) + part * (math.log(self.high) - math.log(self.low)))
        else:
            held = self.low + part * (self.high - self.low)
        held[[DEAD, UNSEEN]] = np.nan
        return held

    def table(self, other: Scale) -> Codes:
        """Return the code on the `other` scale for each code on this one, shape (256,)."""
        codes = other.encode(self.values())
        codes[DEAD] = DEAD
        if self.kind == "log":
            codes[LOWEST] = LOWEST
        return codes


RATE = Scale(1e-4, 1.0, "log")
"""The scale of every activation rate."""


def encode(values: Array, low: Array | float, high: Array | float, kind: Kind) -> Codes:
    """Return the codes of values on scales from `low` to `high`, which broadcast against them; NaN becomes 255."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        if kind == "log":
            start, end = np.log(low), np.log(high)
            place = (np.log(values) - start) * (_STEPS / (end - start)) + LOWEST
            place = np.where(values > 0, np.maximum(place, LOWEST + 1), np.where(values == 0, LOWEST, np.nan))
        else:
            place = (values - low) * (_STEPS / np.subtract(high, low)) + LOWEST
        codes = np.clip(np.rint(place), LOWEST, HIGHEST)
        codes[np.isnan(codes)] = UNSEEN
    return codes.astype(np.uint8)


def rate_codes(rate: Array, silent: NDArray[np.bool_], dead: NDArray[np.bool_]) -> Codes:
    """Return the codes of activation rates (units,): 0 if dead, 1 if silent throughout the window.

    >>> rate_codes(np.array([0.0, 0.0, 0.0, 1.0]), np.array([1, 1, 0, 0], bool), np.array([1, 0, 0, 0], bool)).tolist()
    [0, 1, 2, 254]
    """
    codes = np.maximum(RATE.encode(rate), LOWEST + 1)
    codes[silent] = LOWEST
    codes[dead] = DEAD
    return codes


def ends(values: Array, units: Units, kind: Kind) -> tuple[Array, Array]:
    """Return for each site the ends of the scale that reaches over its values, NaN where there are none to reach over.

    Args:
        values: of the units of all sites, shape (units,); left out is what is not finite, or has no logarithm.
        units: which are whose.
        kind: how the scale runs.
    """
    known = (values >= _SMALLEST if kind == "log" else values >= -_LARGEST) & (values <= _LARGEST)
    low = units.lowest(np.where(known, values, np.inf))
    high = units.highest(np.where(known, values, -np.inf))
    low[low > high] = high[np.isneginf(high)] = np.nan
    with np.errstate(invalid="ignore"):
        if kind == "log":  # one step below the smallest: code 1 is nothing
            narrow = high <= low * (1 + 1e-12)
            return np.where(narrow, low / 2, low * np.exp(np.log(low / high) / (_STEPS - 1))), high
        narrow = high - low <= np.maximum(1e-30, 1e-12 * np.abs(low))  # too little for 253 steps
        margin = np.where(narrow, np.maximum(1e-6, 1e-3 * np.abs(low)), 0.0)
    return low - margin, high + margin


def channel_codes(values: Array, dead: NDArray[np.bool_], units: Units, kind: Kind) -> tuple[Codes, Array, Array]:
    """Return the codes of the units of all sites, each site on its own scale, and the ends of the scales.

    Scales reach over living units. Where a site has nothing to reach over, a value of 0 has the code of nothing.
    """
    low, high = ends(np.where(dead, np.nan, values), units, kind)
    none = np.isnan(low)
    start, end = units.spread(np.where(none, 1.0, low)), units.spread(np.where(none, 2.0, high))
    codes = encode(values, start, end, kind)
    if none.any():
        nothing = (values >= 0) & (values < _SMALLEST) & (kind == "log")
        codes = np.where(units.spread(none) & ~nothing, UNSEEN, codes).astype(np.uint8)
    codes[dead] = DEAD
    return codes, low, high
