"""Growth: the largest z of each site over the last steps, and whether it grows without bound."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
LONG = 1e3
"""An explosion is said once the largest z is that many times the largest of the first window, or of 1."""
STEPS, PARTS = 40, 4
"""Steps that are looked at for it, and the parts of them, each of which must be above the one before."""
EVEN = 0.25
"""Part of the largest growth (a logarithm) that the others must have: one jump is not growth."""


class Growth:
    """The largest z of each site over the last steps."""

    def __init__(self) -> None:
        self._tops: Array = np.empty((STEPS, 0))  # where it was finite, the newest last; -inf before that
        self._first: Array = np.empty(0)  # the largest of the first window, NaN before it
        self._said: set[int] = set()

    def explodes(self, top: Array) -> list[int]:
        """Take in the largest finite z of each site at each step of a window, (k, sites), or -inf.

        Returns the sites that have begun to grow without bound: every part of the last steps is above the one before,
        and the largest z far above all of the first window; a healthy network that starts out small grows, too, but
        not beyond a thousand. Further sites may join.

        >>> growth = Growth()
        >>> [growth.explodes(1.2 ** np.arange(i, i + 50.0)[:, None]) for i in (0, 50, 100)]
        [[], [0], []]
        """
        self._take(top)
        most = np.maximum.reduce(self._tops)
        fresh = np.isnan(self._first) & (most > -np.inf)
        np.copyto(self._first, np.maximum(1.0, most), where=fresh)
        large = np.flatnonzero(most > LONG * self._first).tolist()
        found = [site for site in large if site not in self._said and self._grows(site)]
        self._said.update(found)
        return found

    def _take(self, top: Array) -> None:
        more = top.shape[1] - len(self._first)
        if more:
            self._tops = np.pad(self._tops, ((0, 0), (0, more)), constant_values=-np.inf)
            self._first = np.append(self._first, np.full(more, np.nan))
        last = top[-STEPS:]
        finite = np.isfinite(last)
        if len(last) == STEPS and finite.all():
            self._tops = last
            return
        finite = np.isfinite(top)
        for site, held in enumerate(self._tops.T):
            held[:] = np.append(held, top[finite[:, site], site])[-STEPS:]

    def _grows(self, site: int) -> bool:
        tops = self._tops[:, site]
        parts = tops.reshape(PARTS, -1).max(1)
        if not np.isfinite(tops[0]) or parts[0] <= 0 or parts[-1] <= LONG * self._first[site]:
            return False
        growth = [np.log(after / before) for before, after in pairwise(parts)]
        return bool(min(growth) > 0 and min(growth) >= EVEN * max(growth))
