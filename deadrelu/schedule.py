"""Schedule: which steps are observed, and which of them are captured.

Every step is observed, unless the user asks for fewer. Captured are the first one and the last one of each full window
(the one after it, if its batch is what was left over of an epoch), so that what fell silent in a window is seen silent
before it is explained. In between it is every tenth observed step, and five of a window at least, as long as the
updates matter: through the first 100 steps, and whenever the last window had several units in it that died together, or
are at risk, or whose largest z sinks, or updates that move units by more than a twentieth of their standard deviation.
In a calm stretch it is every fiftieth, for then little can happen; a rate that rises is captured at once.

All of this depends on the training alone. Only with a bound on the overhead does the clock decide how many steps are
observed, in powers of two.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

DENSE, SPARSE = (5, 10), (1, 50)
"""Captured steps of a window at least, and observed steps from one to the next at most."""
EARLY = 100
"""Steps in which no stretch is calm: rates that are too high kill in these."""
STIR = 0.05
"""Kick (own step of one update, over std z) from which on single updates matter."""
RISE = 1.1
"""Growth of a learning rate from one step to the next that is captured at once."""
SCRAP, FADE, PATIENCE = 4, 0.99, 3
"""A batch that many times smaller than the others is no good for a capture, the memory of which fades by this factor a
step; so many steps later one is captured in any case."""
COARSEST = 1024
"""Steps between observations at most, whatever the overhead."""
EASE = 0.3
"""Part of the bound on the overhead under which twice as many steps are observed again."""


class Schedule:
    """Decides step by step.

    Args:
        every: observe every that many steps.
        length: steps of a window.
        bound: the part of the training's time that may be taken, None for any.

    Attributes:
        every: steps between observations at present.
        room: observed steps of a window.
    """

    def __init__(self, *, every: int, length: int, bound: float | None = None) -> None:
        self.every = every
        self.room = -(-length // every)
        self._length = length
        self._bound = bound
        self._least = every
        self._calm = False
        self._rows = 0.0  # samples of the larger batches
        self._since: float = math.inf  # observed steps since the last captured one
        self._known: Mapping[Any, float] = {}
        self._grids = [(0, every)]  # from this step on, every that many are observed

    def observes(self, step: int) -> bool:
        """Return whether a step is observed."""
        return step % self.every == 0

    def captures(self, observed: int, rates: Mapping[Any, float], rows: int | None = None) -> bool:
        """Return whether the next step to be observed is captured, after `observed` ones of its window.

        To be asked once for each. `rates` are the learning rates as they stand, `rows` the samples of its batch: what
        is left over at the end of an epoch tells little, and the next step is captured instead.
        """
        least, most = SPARSE if self._calm else DENSE
        stride = max(1, min(most, self.room // least))
        known, self._known = self._known, rates
        self._since += 1
        due = self._since >= stride or observed == self.room - 1
        if rows is not None:
            due = due and (SCRAP * rows >= self._rows or self._since >= stride + PATIENCE)
            self._rows = max(float(rows), FADE * self._rows)
        if due or (rates != known and _risen(rates, known)):
            self._since = 0
            return True
        return False

    def full(self, steps: int, observed: int) -> bool:
        """Return whether a window is over after so many steps of the run, and observed ones in it."""
        return steps % self._length == 0 if self._bound is None else observed >= self.room

    def end_window(self, step: int, kick: float, eventful: bool) -> None:
        """Take in how a window went that ended at `step`: its largest usual kick, and whether much happened in it."""
        self._calm = step >= EARLY and not eventful and kick <= STIR

    def adapt(self, step: int, share: float) -> bool:
        """Observe more or fewer steps from `step` on, for the monitor took this share of the time; True if so."""
        if self._bound is None or math.isnan(share):
            return False
        every = self.every
        if share > self._bound:
            wanted = min(share / self._bound, 64.0) * every
            every = min(COARSEST * self._least, self._least * 2 ** math.ceil(math.log2(wanted / self._least)))
        elif share < EASE * self._bound and every > self._least:
            every //= 2
        if every == self.every:
            return False
        self.every = every
        self._grids.append((step, every))
        return True

    def state(self) -> list[list[int]]:
        """Return from which step on every how many were observed, to be resumed with `resume`."""
        return [list(grid) for grid in self._grids]

    def resume(self, step: int, state: list[list[int]]) -> None:
        """Continue at this step a run of which `state` tells what was observed."""
        self._grids = [(int(start), int(every)) for start, every in state] or self._grids
        if self._grids[-1][1] != self.every:
            self._grids.append((step, self.every))

    def resolution(self, step: int) -> int:
        """Return how many steps after an observed one the next one was observed."""
        at = max(i for i, (start, _) in enumerate(self._grids) if start <= step or i == 0)
        following = step + self._grids[at][1]
        for start, every in self._grids[at + 1 :]:
            if start <= following:  # the grid changed until then
                following = -(-start // every) * every
        return following - step


def _risen(rates: Mapping[Any, float], known: Mapping[Any, float]) -> bool:
    return any(rate > RISE * known.get(key, rate) for key, rate in rates.items())
