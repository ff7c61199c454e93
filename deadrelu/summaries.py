"""Summary: what one window of a training run tells of every site, for whoever keeps a record of the run."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .deaths import Death, Event

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class SiteSummary:
    """One site in one window; arrays have shape (units,), NaN says that nothing was seen.

    Attributes:
        site: name of the site.
        op: canonical kind, such as `relu`.
        source: `file:line` of a functional call, None for a module.
        producers: the ops with parameters that made z.
        can_die: the slope of this kind is exactly zero somewhere.
        dead: confirmed dead at the end of the window.
        silent: never fired in the window.
        activation_rate: active pairs / all pairs, over the steps of the window that were counted.
        grad_flow: root mean square of dL/dz, None where no gradient was measured.
        max_z: largest pre-activation in the window.
        margin: mean + 2 std of z over the reference rows of the last capture, None where the site is not followed.
        bias: the additive parameter that feeds z directly, None if there is none.
        update_ratio: |W' - W| / |W| of each unit's weights by the last update that was captured, None if not measured.
    """

    site: str
    op: str
    source: str | None
    producers: tuple[str, ...]
    can_die: bool
    dead: NDArray[np.bool_]
    silent: NDArray[np.bool_]
    activation_rate: Array
    grad_flow: Array | None
    max_z: Array
    margin: Array | None = None
    bias: Array | None = None
    update_ratio: Array | None = None

    @property
    def units(self) -> int:
        """Number of units."""
        return len(self.dead)

    @property
    def dead_fraction(self) -> float | None:
        """Dead units / units, None for kinds that cannot die."""
        return float(self.dead.mean()) if self.can_die and self.units else None


@dataclass(frozen=True, slots=True, eq=False)
class Summary:
    """One window of a run.

    Attributes:
        first, last: its first and last observed step.
        sites: the sites so far, in order of first execution.
        rates: largest learning rate of the window per parameter group, so that a spike of one step shows; `"0"`, or
            `"1/0"` (optimizer/group) with several optimizers. Empty without an optimizer.
        dead_fraction: dead units / units of kinds that can die, None if there are none.
        deaths: confirmed in this window.
        revived: deaths of earlier windows, or of this one, that were taken back in it.
        events: what happened in it.
    """

    first: int
    last: int
    sites: tuple[SiteSummary, ...]
    rates: dict[str, float]
    dead_fraction: float | None
    deaths: tuple[Death, ...] = ()
    revived: tuple[Death, ...] = ()
    events: tuple[Event, ...] = ()
