"""Risks: units that are about to die, and activations that are about to overflow."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from .deaths import Event
from .drift import Drift
from .events import explosion_event, risk_event
from .trajectories import Trajectories
from .windows import Observed, Window


class Risks:
    """Warns once of each danger, and again if it comes back after having passed."""

    def __init__(self, window: Window, drift: Drift, paths: Trajectories) -> None:
        self._window = window
        self._drift = drift
        self._paths = paths
        self._warned: dict[str, NDArray[np.bool_]] = {}
        self._largest: dict[str, list[float]] = {}
        self._exploded: set[str] = set()

    def look(self, observed: Observed, dead: NDArray[np.bool_]) -> list[Event]:
        """Return who is about to die, or to overflow; each unit once until it is out of danger."""
        events, step = [], int(observed.steps[-1])
        for name, slot in self._window.slots.items():
            if name in self._paths and slot.site.kind.can_die:
                left = self._paths.sinking(name)
                danger = np.isfinite(left) & ~dead[slot.units]
                fresh = danger & ~self._warned.get(name, np.zeros_like(danger))
                self._warned[name] = danger
                if fresh.any():
                    units = [int(unit) for unit in np.flatnonzero(fresh)]
                    steps = float(np.median(left[fresh]))
                    events.append(risk_event(name, step, units, steps, self._mover(name, fresh)))
            if self._explodes(name, observed.top[:, slot.units]):
                top = np.nanmax(observed.top[:, slot.units], 0)
                events.append(explosion_event(name, step, int(top.argmax()), float(top.max())))
        return events

    def _mover(self, name: str, units: NDArray[np.bool_]) -> str | None:
        """Return the parameter that lowered the margin of these units most."""
        feeder = self._drift.followers[name].feeder
        weight, _, bias, _, _ = self._paths.parts(name)[:, units].sum(1)
        return (
            self._drift.groups.name(feeder.bias if bias < weight else feeder.weight) if min(weight, bias) < 0 else None
        )

    def _explodes(self, name: str, top: NDArray[np.float64]) -> bool:
        """True once, when the largest z is a thousand times the first and doubled in each of three windows."""
        finite = top[np.isfinite(top)]
        largest = self._largest.setdefault(name, [])
        largest.append(float(finite.max()) if len(finite) else np.nan)
        if len(largest) < 4 or largest[0] <= 0 or name in self._exploded:
            return False
        grows = all(later > 2 * before for before, later in pairwise(largest[-4:]))
        if grows and largest[-1] > 1e3 * largest[0]:
            self._exploded.add(name)
        del largest[1:-4]
        return name in self._exploded
