"""Lifetimes: when each unit fired last, when its silence sufficed to call it dead, and when it came back.

Steps are counted from 0. Silence is counted in samples: a unit is confirmed dead at the first step at which it has been
silent for `need` samples, and dated back to the step of its last firing. A firing starts the count anew; a dead unit
that fires is revived, and its `need` doubles, so that a living unit of rate 1e-3 is not called dead every now and then.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .rates import samples_needed

NEVER = -1


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn in the life of a unit.

    Attributes:
        unit: index over all units of all sites.
        step: the step at which it was confirmed dead, or at which it fired again.
        last_fired: the last step with a firing before it was confirmed dead, NEVER if there was none.
        alive: True for a revival.
    """

    unit: int
    step: int
    last_fired: int
    alive: bool


class Lifetimes:
    """The lives of units, fed with windows of observations. Memory is O(units)."""

    def __init__(self, *, rate: float = 1e-3, alpha: float = 0.05) -> None:
        self._rate, self._alpha = rate, alpha
        self._base = samples_needed(rate, alpha)
        self.last_fired: NDArray[np.int64] = np.empty(0, np.int64)
        self.samples: NDArray[np.int64] = np.empty(0, np.int64)
        self.silent_since: NDArray[np.int64] = np.empty(0, np.int64)
        self.need: NDArray[np.int64] = np.empty(0, np.int64)
        self.dead: NDArray[np.bool_] = np.empty(0, bool)

    def add_units(self, units: int) -> None:
        """Begin the lives of further units."""
        self.last_fired = np.append(self.last_fired, np.full(units, NEVER))
        self.samples = np.append(self.samples, np.zeros(units, np.int64))
        self.silent_since = np.append(self.silent_since, np.zeros(units, np.int64))
        self.need = np.append(self.need, np.full(units, self._base))
        self.dead = np.append(self.dead, np.zeros(units, bool))

    def silence(self) -> NDArray[np.int64]:
        """Return the samples since each unit fired last, shape (units,)."""
        return self.samples - self.silent_since

    def expect(self, rate: NDArray[np.float64]) -> None:
        """Raise `need` of the units whose sample rate is known, (units,), NaN or 0 where it is not.

        A unit of rate r needs at least ln(alpha) / ln(1 - r / 10) samples of silence.
        """
        rare = (rate > 0) & (rate < 11 * self._rate) & ~self.dead  # from 10 times on `need` is no more than it was
        if rare.any():
            need = np.ceil(math.log(self._alpha) / np.log1p(-rate[rare] / 10))
            self.need[rare] = np.maximum(self.need[rare], need.astype(np.int64))

    def update(self, steps: NDArray[np.int64], fired: NDArray[np.bool_], samples: NDArray[np.int64]) -> list[Turn]:
        """Live through a window of observed steps. Returns the turns in it, in order of time.

        Args:
            steps: the steps, ascending, shape (k,).
            fired: whether each unit fired, shape (k, units).
            samples: samples that each unit saw, shape (k, units); 0 where its site was not executed.
        """
        if not len(steps):
            return []
        now = self.samples + np.add.reduce(samples)
        # Most units fire at every step, and nothing can happen to them.
        busy = np.logical_and.reduce(fired) & ~self.dead
        np.copyto(self.last_fired, steps[-1], where=busy)
        np.copyto(self.silent_since, now, where=busy)
        # Nor to those that never fire, if they are dead, or have not been silent for long enough.
        late = ~self.dead & (now - self.silent_since >= self.need)
        (units,) = (~busy & (late | np.logical_or.reduce(fired))).nonzero()
        turns = self._quiet(units, steps, fired[:, units], samples[:, units]) if len(units) else []
        self.samples = now
        return turns

    def _quiet(
        self,
        units: NDArray[np.int64],
        steps: NDArray[np.int64],
        fired: NDArray[np.bool_],
        samples: NDArray[np.int64],
    ) -> list[Turn]:
        """Live through a window: units that were silent in some step, or are dead."""
        before = self.samples[units]
        once = np.logical_or.reduce(fired)
        # Most have not been silent for long enough by far, even if it had been at one stretch.
        silent = before - self.silent_since[units] + np.add.reduce(np.where(fired, 0, samples))
        turning = np.where(self.dead[units], once, silent >= self.need[units])
        turns: list[Turn] = []
        calm = np.flatnonzero(once & ~turning)
        if len(calm):
            last = len(steps) - 1 - fired[::-1, calm].argmax(0)
            self.last_fired[units[calm]] = steps[last]
            total = before[calm] + np.add.accumulate(samples[:, calm])
            self.silent_since[units[calm]] = total[last, np.arange(len(calm))]
        if turning.any():
            total = before[turning] + np.add.accumulate(samples[:, turning])
            turns = self._turning(units[turning], steps, fired[:, turning], samples[:, turning], total)
        return turns

    def _turning(
        self,
        units: NDArray[np.int64],
        steps: NDArray[np.int64],
        fired: NDArray[np.bool_],
        samples: NDArray[np.int64],
        total: NDArray[np.int64],
    ) -> list[Turn]:
        """Live through a window step by step: units that may be confirmed dead in it, or come back."""
        last, since, need, dead = self.last_fired[units], self.silent_since[units], self.need[units], self.dead[units]
        turns: list[Turn] = []
        for i, step in enumerate(steps):
            on = fired[i]
            revived = on & dead
            if revived.any():
                turns += [Turn(int(units[j]), int(step), int(last[j]), True) for j in np.flatnonzero(revived)]
                need[revived] *= 2
                dead &= ~revived
            last[on] = step
            since[on] = total[i, on]
            confirmed = ~dead & (total[i] - since >= need) & (samples[i] > 0)
            if confirmed.any():
                turns += [Turn(int(units[j]), int(step), int(last[j]), False) for j in np.flatnonzero(confirmed)]
                dead |= confirmed
        self.last_fired[units], self.silent_since[units], self.need[units], self.dead[units] = last, since, need, dead
        return turns

    def state(self, part: slice) -> dict[str, NDArray[Any]]:
        """Return the lives of some units, to be resumed with `resume`."""
        return {name: getattr(self, name)[part].copy() for name in _FIELDS}

    def resume(self, part: slice, state: dict[str, NDArray[Any]]) -> None:
        """Continue lives that `state` told of."""
        for name in _FIELDS:
            getattr(self, name)[part] = state[name]


_FIELDS = ("last_fired", "samples", "silent_since", "need", "dead")
