"""Interventions: what silenced a unit, told by taking parts of one model state back, one coalition at a time.

Numbers in, numbers out: who runs the model is the caller's business.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from .errors import InputError

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
Part = Literal["weights", "bias", "upstream"]
Coalition = frozenset[Part]
"""The parts that are taken from the later state; the others are those of the earlier one."""
Cause = Literal["weights", "bias", "either", "both", "upstream", "several", "together", "unknown"]

PARTS: tuple[Part, ...] = ("weights", "bias", "upstream")
NONE: Coalition = frozenset()
ALL: Coalition = frozenset(PARTS)
OWN: Coalition = frozenset(("weights", "bias"))
COALITIONS: tuple[Coalition, ...] = tuple(frozenset(c) for n in range(len(PARTS) + 1) for c in combinations(PARTS, n))

MEANING: dict[Cause, str] = {
    "weights": "its own weights alone",
    "bias": "its own bias alone",
    "either": "its own weights alone, and its own bias alone as well",
    "both": "its own weights and bias together, neither alone",
    "upstream": "what comes in alone: parameters before it moved",
    "several": "its own step alone, and what comes in alone as well",
    "together": "its own step and what comes in together, neither alone",
    "unknown": "not settled: on the rows run it was silent before, or fires after",
}


def death_interval(z: Array, speed: Array) -> tuple[Array, Array]:
    """Return the learning rates at which one step silences each unit on the given rows, as (low, high), (units,) each.

    With w <- w - eta d and b <- b - eta d_b at fixed inputs, z_n(eta) = z_n - eta s_n, and the unit is silent on all
    rows exactly for eta in [low, high]:

        low = max over z_n > 0 of (z_n / s_n if s_n > 0 else inf), 0 if no z_n is positive
        high = min over z_n <= 0 with s_n < 0 of z_n / s_n, inf if there is none

    Intervals of parts of the rows intersect: the larger low, the smaller high.

    Args:
        z: pre-activations before the step, (rows, units).
        speed: s_n = d . x_n + d_b, how fast each falls, (rows, units).

    Returns:
        Both ends, NaN where no eta >= 0 silences the unit, and for units with a value that is not finite.
        Without rows every eta does: (0, inf).

    Raises:
        InputError: the two are no matrices of one shape.

    Source: DESIGN of deadrelu, 6.5; two lines per row and a maximum.

    >>> low, high = death_interval(np.array([[1.0], [-1.0]]), np.array([[2.0], [-0.5]]))
    >>> low.tolist(), high.tolist()
    ([0.5], [2.0])
    """
    z, speed = np.asarray(z, np.float64), np.asarray(speed, np.float64)
    if z.ndim != 2 or z.shape != speed.shape:
        raise InputError(f"z has shape {z.shape} and speed {speed.shape}; expected (rows, units) for both")
    with np.errstate(all="ignore"):
        ratio = z / speed
    low = np.where(z > 0, np.where(speed > 0, ratio, np.inf), 0.0).max(0, initial=0.0)
    high = np.where((z <= 0) & (speed < 0), ratio, np.inf).min(0, initial=np.inf)
    none = ~(low <= high) | np.isinf(low) | ~(np.isfinite(z) & np.isfinite(speed)).all(0)
    # -0.0 / -1.0 is 0, but 0.0 / -1.0 is -0.0.
    return np.where(none, np.nan, low), np.where(none, np.nan, high + 0.0)


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """What each unit did on some rows under one coalition.

    Attributes:
        max_z: largest pre-activation, (units,).
        rate: activation rate, in 0..1, (units,).
    """

    max_z: Array
    rate: Array


@dataclass(frozen=True, slots=True, eq=False)
class Interventions:
    """What the eight coalitions of {weights, bias, upstream} showed of the units of one site that died.

    Attributes:
        units: their indices.
        fired: per coalition, which of them fire, (len(units),).
        max_z: per coalition, their largest pre-activation, (len(units),).
        shares: per part, its Shapley share of the change of max z, (len(units),); they sum to the whole change.
    """

    units: tuple[int, ...]
    fired: Mapping[Coalition, Mask]
    max_z: Mapping[Coalition, Array]
    shares: Mapping[Part, Array]

    @property
    def settled(self) -> Mask:
        """They fire with everything from the earlier state and not with everything from the later: a death seen."""
        return self.fired[NONE] & ~self.fired[ALL]

    def sufficient(self, *parts: Part) -> Mask:
        """Return which units these parts alone silence: taken from the later state, the rest from the earlier one."""
        return self.settled & ~self.fired[frozenset(parts)]

    def revives(self, *parts: Part) -> Mask:
        """Return which units revive when these parts alone are taken back: without them there would be no death."""
        return self.settled & self.fired[ALL - frozenset(parts)]

    def cause(self, index: int) -> Cause:
        """Return what silenced the unit at `units[index]`; `MEANING` has it in words."""
        if not self.settled[index]:
            return "unknown"
        own, upstream = bool(self.sufficient(*OWN)[index]), bool(self.sufficient("upstream")[index])
        if own and upstream:
            return "several"
        if upstream:
            return "upstream"
        if not own:
            return "together"
        weights, bias = bool(self.sufficient("weights")[index]), bool(self.sufficient("bias")[index])
        if weights and bias:
            return "either"
        return "weights" if weights else "bias" if bias else "both"


def intervene(units: Sequence[int], run: Callable[[Coalition], Outcome]) -> Interventions:
    """Run all coalitions, and say what each part did to these units.

    Args:
        units: indices of the units that died.
        run: runs the model with the parts of a coalition from the later state and the rest from the earlier one, on
            the same rows each time.

    Source: Shapley 1953, the mean of a part's contribution over all orders in which the parts are exchanged.
    """
    chosen = list(units)
    fired, max_z = {}, {}
    for coalition in COALITIONS:
        outcome = run(coalition)
        fired[coalition], max_z[coalition] = outcome.rate[chosen] > 0, outcome.max_z[chosen]
    return Interventions(tuple(chosen), fired, max_z, {part: _shapley(part, max_z) for part in PARTS})


def _shapley(part: Part, values: Mapping[Coalition, Array]) -> Array:
    n = len(PARTS)
    total = np.zeros_like(values[NONE])
    for coalition in COALITIONS:
        if part not in coalition:
            size = len(coalition)
            weight = math.factorial(size) * math.factorial(n - size - 1) / math.factorial(n)
            with np.errstate(invalid="ignore"):  # inf - inf: the share is not known
                total += weight * (values[coalition | {part}] - values[coalition])
    return total
