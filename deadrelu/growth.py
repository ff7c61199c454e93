"""Growth: the largest z of one site over the last steps, and whether it grows without bound."""

from __future__ import annotations

from collections import deque
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
    """The largest z of one site over the last steps."""

    def __init__(self) -> None:
        self.said = False
        self._first: float | None = None
        self._tops: deque[float] = deque(maxlen=STEPS)

    def explodes(self, top: Array) -> bool:
        """Take in the largest finite z of each step of a window, (k,), or -inf; True once it grows without bound.

        Every part of the last steps is above the one before, and the largest z far above all of the first window; a
        healthy network that starts out small grows, too, but not beyond a thousand.

        >>> growth = Growth()
        >>> [growth.explodes(1.2 ** np.arange(i, i + 50.0)) for i in (0, 50, 100)]
        [False, True, False]
        """
        self._tops.extend(top[np.isfinite(top)].tolist())
        if self._first is None and self._tops:
            self._first = max(1.0, *self._tops)
        if self.said or self._first is None or len(self._tops) < STEPS:
            return False
        if max(self._tops) <= LONG * self._first:
            return False
        parts = np.array(self._tops).reshape(PARTS, -1).max(1)
        if parts[0] <= 0 or parts[-1] <= LONG * self._first:
            return False
        growth = [np.log(after / before) for before, after in pairwise(parts)]
        self.said = bool(min(growth) > 0 and min(growth) >= EVEN * max(growth))
        return self.said
