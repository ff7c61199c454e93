"""Risks: units that are about to die, and activations that are about to overflow."""

from __future__ import annotations

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
        self._warned: NDArray[np.bool_] = np.empty(0, bool)
        self._sinking = Sinking()
        self._growth = Growth()

    def look(self, captures: Captures, observed: Observed, dead: NDArray[np.bool_]) -> list[Event]:
        """Return who is about to die, or to overflow; each unit once until it is out of danger."""
        step = int(observed.steps[-1])
        return self._about_to_die(captures, step, dead) + self._about_to_overflow(observed, step)

    def _about_to_die(self, captures: Captures, step: int, dead: NDArray[np.bool_]) -> list[Event]:
        if not len(captures.steps):
            return []
        self._sinking.follow(captures)
        left = self._sinking.left()
        before, danger = self._warned, np.isfinite(left)
        self._warned = danger
        if not danger.any():
            return []
        before = np.append(before, np.zeros(len(danger) - len(before), bool))
        events = []
        for name, part in captures.columns.items():
            slot = self._window.slots.get(name)
            if slot is None:  # traced in a step that is not observed, and not met since
                continue
            fresh = danger[part] & ~before[part] & ~dead[slot.units] & slot.site.kind.can_die
            if fresh.any():
                units = np.flatnonzero(fresh)
                steps = float(np.median(left[part][units]))
                mover = self._mover(name, self._sinking.mover(part.start + units))
                events.append(risk_event(name, step, units.tolist(), steps, mover))
        return events

    def _about_to_overflow(self, observed: Observed, step: int) -> list[Event]:
        slots = [slot for slot in self._window.slots.values() if slot.site.units]
        if not slots:
            return []
        starts, top = [slot.start for slot in slots], observed.top
        largest = np.maximum.reduceat(top, starts, 1)
        if not np.isfinite(largest).all():
            top = np.where(np.isfinite(top), top, -np.inf)
            largest = np.maximum.reduceat(top, starts, 1)
        events = []
        for i in self._growth.explodes(largest):
            reached = top[:, slots[i].units].max(0)
            events.append(explosion_event(slots[i].site.name, step, int(reached.argmax()), float(reached.max())))
        return events

    def _mover(self, name: str, part: str | None) -> str | None:
        """Return the name of the parameter that a part of the nearest layer is."""
        feeder = self._drift.followers[name].feeder
        return None if part is None else self._drift.groups.name(feeder.bias if part == "bias" else feeder.weight)
