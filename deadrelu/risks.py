"""Risks: units that are about to die, and activations that are about to overflow."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from .captures import Captures
from .deaths import Event
from .drift import Drift
from .events import explosion_event, risk_event
from .growth import Growth
from .sinking import Sinking
from .windows import Observed, Window


class Risks:
    """Warns once of each danger, and again if it comes back after having passed."""

    def __init__(self, window: Window, drift: Drift) -> None:
        self._window = window
        self._drift = drift
        self._warned: dict[str, NDArray[np.bool_]] = {}
        self._sinking: dict[str, Sinking] = {}
        self._growth: dict[str, Growth] = {}

    def look(self, captures: Mapping[str, Captures], observed: Observed, dead: NDArray[np.bool_]) -> list[Event]:
        """Return who is about to die, or to overflow; each unit once until it is out of danger."""
        events, step = [], int(observed.steps[-1])
        for name, slot in self._window.slots.items():
            if name in captures and slot.site.kind.can_die:
                sinking = self._sinking.setdefault(name, Sinking())
                sinking.follow(captures[name])
                left = sinking.left()
                danger = np.isfinite(left) & ~dead[slot.units]
                fresh = danger & ~self._warned.get(name, np.zeros_like(danger))
                self._warned[name] = danger
                if fresh.any():
                    units = [int(unit) for unit in np.flatnonzero(fresh)]
                    steps = float(np.median(left[fresh]))
                    events.append(risk_event(name, step, units, steps, self._mover(name, sinking.mover(fresh))))
            top = observed.top[:, slot.units]
            if self._growth.setdefault(name, Growth()).explodes(top):
                reached = np.where(np.isfinite(top), top, -np.inf).max(0)
                events.append(explosion_event(name, step, int(reached.argmax()), float(reached.max())))
        return events

    def _mover(self, name: str, part: str | None) -> str | None:
        """Return the name of the parameter that a part of the nearest layer is."""
        feeder = self._drift.followers[name].feeder
        return None if part is None else self._drift.groups.name(feeder.bias if part == "bias" else feeder.weight)
