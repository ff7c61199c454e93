"""Captures: what the captured steps of a window say of every site that is followed, measured together.

A captured step leaves variants of z on the reference rows of each site: as it is, with the layer as it was, after the
update. All that is ever needed of them is mean and deviation over rows, so that those of all sites are taken at the
step's end, in few operations, and nothing but O(units) is kept until the window ends.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from .transfers import Transfer

Array = NDArray[np.float64]
QUANTITIES = ("weight", "decay", "bias", "upstream", "input", "margin", "std", "own", "kick", "rate", "turn")
"""What a capture measures of each unit: the five parts since the capture before (in units of z), the margin, the
standard deviation of z, the own step in mean z since then and by the update of this step, the activation rate, and how
far that update turned the unit: the spread of its own step over rows, over that of z (or of the layer before a norm).
"""

VARIANTS = ("now", "step", "moved", "starved", "shrunk", "inner", "turned")
"""Variants of z without its bias: as it is; what the update of this step adds; on the rows of the capture before, as it
is, without the features that died since, and as decay alone would have left it; of the layer before a norm, as it is
and what the update adds."""
NOW, STEP, MOVED, STARVED, SHRUNK, INNER, TURNED = range(len(VARIANTS))
_ACTIVE, _BIAS, _FALL = range(2 * len(VARIANTS), 2 * len(VARIANTS) + 3)
_ROWS = 2 * len(VARIANTS) + 3
"""Rows of what is measured: the means of all variants, their deviations, and what stands beside them."""
_LEFT = np.array([NOW, len(VARIANTS) + NOW, _BIAS])
"""Those that the next capture needs."""
_TOGETHER = 1 << 21
"""Elements of the variants that are measured in one go, about: small ones cost launches, large ones memory."""
_KEPT, _ROOMS = 1 << 18, 4
"""Elements up to which the room that they are measured in is kept for the next capture, and how many rooms are."""


@dataclass(slots=True, eq=False)
class Capture:
    """One site in one captured step.

    Attributes:
        columns: where its units stand among those of all sites.
        variants: by number in VARIANTS, those that there are, (rows, units) each.
        active: engaged pairs of each unit (units,), out of `pairs`.
        bias, fall: the bias and what the update of this step added to it, (units,).
    """

    columns: slice
    variants: dict[int, torch.Tensor]
    active: torch.Tensor
    pairs: int
    bias: torch.Tensor
    fall: torch.Tensor | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Captures:
    """The captures of a window, on the host.

    Attributes:
        steps: the captured steps, (captures,).
        columns: where the units of each site stand.
        seen: whether the site of a unit was captured in that step, (captures, units).
        values: QUANTITIES, (captures, len(QUANTITIES), units); NaN where it was not.
    """

    steps: list[int]
    columns: dict[str, slice]
    seen: NDArray[np.bool_]
    values: Array

    def of(self, site: str) -> tuple[list[int], Array]:
        """Return the steps in which a site was captured, and its QUANTITIES in them, (steps, quantities, units)."""
        part = self.columns[site]
        there = np.flatnonzero(self.seen[:, part].all(1))
        return [self.steps[i] for i in there], self.values[there, :, part]


class Captured:
    """The captures of a window that is under way. Memory is O(units) for each."""

    def __init__(self) -> None:
        self.columns: dict[str, slice] = {}
        self._steps: list[int] = []
        self._pending: list[torch.Tensor] = []
        self._places: list[tuple[int, int, slice, float]] = []  # capture, row, columns, what to divide by
        self._plan = Plan([], 0, 0)
        self._rooms: dict[tuple[int, int, torch.dtype, torch.device], torch.Tensor] = {}
        self._before = np.empty((3, 0))  # mean and deviation of z without its bias, and the bias, when captured last

    @property
    def units(self) -> int:
        """Units of all sites."""
        return self._before.shape[1]

    def add_site(self, site: str, units: int) -> slice:
        """Make room for a site; returns the columns of its units."""
        columns = self.columns[site] = slice(self.units, self.units + units)
        self._before = np.concatenate((self._before, np.full((3, units), np.nan)), 1)
        return columns

    def add(self, step: int, captures: Sequence[Capture]) -> None:
        """Measure the sites that one step captured."""
        number = len(self._steps)
        self._steps.append(step)
        groups: dict[tuple[int, torch.dtype, torch.device, int], list[tuple[int, slice, torch.Tensor]]] = {}
        size = 0
        for c in captures:
            for row, z in c.variants.items():
                groups.setdefault((len(z), z.dtype, z.device, size // _TOGETHER), []).append((row, c.columns, z))
                size += z.numel()
            self._keep(c.active, number, _ACTIVE, c.columns, c.pairs)
            self._keep(c.bias, number, _BIAS, c.columns)
            if c.fall is not None:
                self._keep(c.fall, number, _FALL, c.columns)
        for group in groups.values():
            self._pending += _mean_std(self._beside([z for _, _, z in group]))
            for at in (0, len(VARIANTS)):
                self._places += [(number, at + row, columns, 1.0) for row, columns, _ in group]

    def _beside(self, variants: list[torch.Tensor]) -> torch.Tensor:
        """Return copies of tensors (rows, units) side by side, in memory that was used before: new one is slow."""
        like = variants[0]
        key = (len(like), sum(z.shape[1] for z in variants), like.dtype, like.device)
        room = self._rooms.get(key)
        if room is None:
            with torch.inference_mode(False):  # the model may be in it now, and the next time not
                room = torch.empty(key[:2], dtype=like.dtype, device=like.device)
            if room.numel() <= _KEPT:
                if len(self._rooms) >= _ROOMS:
                    self._rooms.clear()
                self._rooms[key] = room
        return torch.cat(variants, 1, out=room)

    def _keep(self, values: torch.Tensor, number: int, row: int, columns: slice, over: float = 1.0) -> None:
        self._pending.append(values)
        self._places.append((number, row, columns, over))

    def close(self) -> Callable[[], Captures]:
        """Return what tells the captures since the last call, once they are on the host: one transfer.

        To be asked before there is another site, and before the captures that follow.
        """
        steps, places, numbers = self._steps, self._places, Transfer(self._pending) if self._pending else None
        self._steps, self._pending, self._places = [], [], []
        return lambda: self._measured(steps, places, numbers)

    def _measured(
        self, steps: list[int], places: list[tuple[int, int, slice, float]], numbers: Transfer | None
    ) -> Captures:
        plan = self._plan
        if plan.places != places or plan.shape != (len(steps), _ROWS, self.units):  # they are the same most of the time
            plan = self._plan = Plan(places, len(steps), self.units)
        table = np.empty(plan.shape)
        table.fill(np.nan)
        if numbers is not None:
            table.put(plan.index, numbers.array())
            for number, row, columns, over in plan.divided:
                table[number, row, columns] /= over
        with np.errstate(over="ignore", invalid="ignore"):  # a run that explodes overflows here, too
            values = _quantities(table, self._earlier(table, plan), plan.rows)
        if not plan.complete:
            np.copyto(values, np.nan, where=~plan.seen[:, None])
        return Captures(steps, dict(self.columns), plan.seen, values)

    def _earlier(self, table: Array, plan: Plan) -> Array:
        """Return what the capture before each one left of each unit, (captures, 3, units)."""
        left = np.concatenate((self._before[None], table.take(_LEFT, 1)))
        if not plan.complete:
            for i, seen in enumerate(plan.seen):
                np.copyto(left[i + 1], left[i], where=~seen)
        self._before = left[-1].copy()
        return left[:-1]


class Plan:
    """Where the numbers that the captures of a window left on the device stand among what was measured.

    Attributes:
        places: of which it was made: capture, row, columns, what to divide by.
        shape: of what was measured, (captures, rows, units).
        index: where each number stands, flat.
        divided: the places of those that are divided.
        rows: the rows of which something was measured.
        seen: whether the site of a unit was captured, (captures, units).
        complete: all were.
    """

    def __init__(self, places: list[tuple[int, int, slice, float]], captures: int, units: int) -> None:
        self.places = places
        self.shape = captures, _ROWS, units
        index = np.arange(captures * _ROWS * units).reshape(self.shape)
        parts = [index[i, row, columns] for i, row, columns, _ in places]
        self.index = np.concatenate(parts) if parts else np.empty(0, np.intp)
        self.divided = [place for place in places if place[3] != 1.0]
        self.rows = frozenset(row for _, row, _, _ in places)
        self.seen = np.zeros((captures, units), bool)
        for i, row, columns, _ in places:
            if row == _BIAS:
                self.seen[i, columns] = True
        self.complete = bool(self.seen.all())


def _mean_std(z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return means and standard deviations over rows, (columns,) each, of what may be overwritten, (rows, columns).

    On a CPU several times faster than `torch.std_mean`, for columns that lie side by side are summed at the speed of
    memory. What is the same in all rows has no deviation, not even by rounding.
    """
    first = z[0].clone()
    z.sub_(first)
    if z.device.type != "cpu":  # where what counts is the number of launches
        deviation, mean = torch.std_mean(z, 0, correction=min(1, len(z) - 1))
        return mean.add_(first), deviation
    mean = z.mean(0)
    deviation = z.sub_(mean).square_().sum(0).div_(max(1, len(z) - 1)).sqrt_()
    return mean.add_(first), deviation


def _quantities(table: Array, before: Array, rows: Container[int]) -> Array:
    """Return QUANTITIES (captures, quantities, units) from what was measured and what the captures before left.

    Rows: those of which something was measured. A part that cannot be told, for want of a capture before, is 0.
    """
    table, before = table.swapaxes(0, 1), before.swapaxes(0, 1)
    means, stds = table[: len(VARIANTS)], table[len(VARIANTS) : 2 * len(VARIANTS)]
    bias, std = table[_BIAS], stds[NOW]
    reach = 2 * stds
    reach += means
    values = np.zeros((table.shape[1], len(QUANTITIES), table.shape[2]))
    weight, decay, fell, upstream, drawn, margin, spread, own, kick, rate, turn = values.swapaxes(0, 1)
    np.add(reach[NOW], bias, out=margin)
    np.add(means[STEP], table[_FALL], out=kick)
    spread[:], rate[:] = std, table[_ACTIVE]
    np.fmax(_over(stds[STEP], std), _over(stds[TURNED], stds[INNER]) if TURNED in rows else 0.0, out=turn)
    if MOVED not in rows:
        return values
    then, moved = before[0] + 2 * before[1], reach[MOVED]
    if SHRUNK in rows:
        decay[:] = _or(reach[SHRUNK] - then, 0.0)
    starved = _or(reach[STARVED], moved) if STARVED in rows else moved
    # A bias adds the same to every row: its part does not depend on the order in which weight and bias move.
    np.subtract(bias, before[2], out=fell)
    np.subtract(moved, then, out=weight)
    weight -= decay
    np.subtract(starved, moved, out=upstream)
    np.subtract(margin, bias, out=drawn)
    drawn -= starved
    np.subtract(means[MOVED], before[0], out=own)
    own += fell
    if math.isnan(np.add.reduce(own, axis=None)):
        untold = np.isnan(means[MOVED]) | np.isnan(before[0])
        for part in (weight, decay, fell, upstream, drawn, own):
            part[untold] = 0.0
    return values


def _or(values: Array, other: Array | float) -> Array:
    return np.where(np.isnan(values), other, values)


def _over(part: Array, whole: Array) -> Array:
    return np.divide(part, whole, out=np.zeros(part.shape), where=whole > 0)
