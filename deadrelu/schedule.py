"""Schedule: which steps are observed, and which of them are captured.

Every step is observed, unless the user asks for fewer. Captured are five steps of a window of fifty, as long as the
updates matter: through the first 500 steps, and whenever the last window had an event in it or updates that move units
by more than a twentieth of their standard deviation. In a calm stretch two do, for then little can happen between them;
a learning rate that rises is captured at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

DENSE, SPARSE = 5, 2
"""Captured steps of a window."""
EARLY = 500
"""Steps in which no stretch is calm: rates that are too high kill in these."""
STIR = 0.05
"""Kick (own step of one update, over std z) from which on single updates matter."""
RISE = 1.1
"""Growth of a learning rate from one step to the next that is captured at once."""


class Schedule:
    """Decides step by step; what it decides depends on the training alone, not on the clock.

    Args:
        every: observe every that many steps.
        length: steps of a window.
    """

    def __init__(self, *, every: int, length: int) -> None:
        self.every = every
        self.room = -(-length // every)
        """Steps of a window that are observed."""
        self._calm = False
        self._known: Mapping[Any, float] = {}

    def observes(self, step: int) -> bool:
        """Return whether a step is observed."""
        return step % self.every == 0

    def captures(self, observed: int, rates: Mapping[Any, float]) -> bool:
        """Return whether the next step to be observed is captured, after `observed` ones of its window.

        `rates` are the learning rates as they stand.
        """
        stride = max(1, self.room // (SPARSE if self._calm else DENSE))
        known, self._known = self._known, rates
        return observed % stride == 0 or (self._calm and rates != known and _risen(rates, known))

    def end_window(self, step: int, kick: float, eventful: bool) -> None:
        """Take in how a window went that ended at `step`: its largest usual kick, and whether it had events."""
        self._calm = step >= EARLY and not eventful and kick <= STIR


def _risen(rates: Mapping[Any, float], known: Mapping[Any, float]) -> bool:
    return any(rate > RISE * known.get(key, rate) for key, rate in rates.items())
