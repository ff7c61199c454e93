"""Units: those of all sites of a window, one after the other, so that a window costs a few passes over one array."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


class Units:
    """Which units belong to which site. A site without units has no place in it, and NaN for whatever is asked of it.

    Args:
        units: units of each site.
    """

    def __init__(self, units: Sequence[int]) -> None:
        self.units = np.array(units, np.intp)
        self.starts = np.cumsum(self.units) - self.units
        self._filled = np.flatnonzero(self.units)

    def join(self, parts: Iterable[NDArray[Any] | None]) -> Array:
        """Return the arrays of the sites as one; None becomes NaN."""
        held = [
            np.full(n, np.nan) if part is None else part for part, n in zip(parts, self.units.tolist(), strict=True)
        ]
        return np.concatenate(held, dtype=np.float64) if held else np.empty(0)

    def mask(self, parts: Iterable[NDArray[np.bool_]]) -> NDArray[np.bool_]:
        """Return the masks of the sites as one."""
        held = list(parts)
        return np.concatenate(held, dtype=bool) if held else np.empty(0, bool)

    def part(self, site: int) -> slice:
        """Return where the units of a site are."""
        return slice(int(self.starts[site]), int(self.starts[site] + self.units[site]))

    def spread(self, values: NDArray[Any]) -> NDArray[Any]:
        """Return the value of each unit's site."""
        return np.repeat(values, self.units)

    def lowest(self, values: Array) -> Array:
        """Return the least value of each site."""
        return self._reduced(np.minimum, values)

    def highest(self, values: Array) -> Array:
        """Return the largest value of each site."""
        return self._reduced(np.maximum, values)

    def mean(self, values: NDArray[Any]) -> Array:
        """Return the mean of the finite values of each site, NaN where there are none.

        >>> Units([2, 0, 1]).mean(np.array([1.0, np.nan, 3.0])).tolist()
        [1.0, nan, 3.0]
        """
        known = np.isfinite(values)
        total = self._reduced(np.add, np.where(known, values, 0.0))
        count = self._reduced(np.add, known.astype(np.float64))
        found: Array = np.divide(total, count, out=np.full(len(total), np.nan), where=count > 0)
        return found

    def _reduced(self, ufunc: np.ufunc, values: Array) -> Array:
        found = np.full(len(self.units), np.nan)
        if len(self._filled):
            found[self._filled] = ufunc.reduceat(values, self.starts[self._filled])
        return found
