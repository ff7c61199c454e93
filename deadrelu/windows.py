"""Window: what every unit reached at every step of a stretch of training, kept on the device until the stretch ends.

One row per observed step holds, for each unit of each site, its *reach*: the largest pre-activation, or, for kinds that
are flat on both sides, how far inside of its intervals the unit came. Reading it back is one transfer per window.
Memory is O(units) times the length of the window.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import isnan
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from .counts import SiteCounter
from .kernels import Plan, maximum, reach, top
from .kinds import Kind
from .sites import Site
from .transfers import Transfer

_LOOK = 8
"""Steps after which every unit is looked at for NaN on a CPU, where looking is free of waiting but not of time."""
Ring = tuple[torch.device, torch.dtype]


LOWEST = -torch.inf


class Live:
    """What the units of one site have reached since it was read.

    Attributes:
        parts: the reach, and the largest z if that is another; -inf before anything was met, (units,) each.
        blank: what they are reset to.
        batched: each sample of the batch is one of the site's.
    """

    def __init__(self, site: Site, units: int, batched: bool, dtype: torch.dtype, device: torch.device) -> None:
        self.site, self.batched = site, batched
        wide = torch.float64 if dtype == torch.float64 else torch.float32
        with torch.inference_mode(False):
            self.blank = torch.full((units,), LOWEST, device=device, dtype=wide)
            self.parts = [self.blank.clone() for _ in range(1 if site.kind.positive else 2)]


@dataclass(slots=True)
class Slot:
    """Where one site stands in a window.

    Attributes:
        site: the site.
        start: index of its first unit over all units of all sites.
        row: index of its first column in its ring.
        ring: the device and dtype that its reach is kept on.
        low: a unit fired if its reach is above this.
        counter: the dearer counts of the present window.
        counted: the samples that it saw in each step of the window.
        rows: where its reach of each step is kept, (columns,) each.
        addresses: of these rows in memory.
        first: that of its first unit, a float for each step; None off the CPU, and without units.
        seen_at: the last step of the window in which it was executed.
        samples: the samples that it saw in the forward pass that runs.
        part: how much of the batch the calls on parts of it have come through.
        rare: no captured step of the last window met it.
        captured: one of this window did.
        compiled: compiled code fills its rows, also in steps in which it did not run: with -inf.
    """

    site: Site
    start: int
    row: int
    ring: Ring
    low: float
    counter: SiteCounter
    counted: list[int]
    rows: tuple[torch.Tensor, ...] = ()
    addresses: tuple[int, ...] = ()
    first: memoryview | None = None
    seen_at: int = -1
    samples: int = 0
    part: int = 0
    rare: bool = True
    captured: bool = False
    compiled: bool = False

    @property
    def columns(self) -> int:
        """Columns of its ring: kinds that are flat on both sides also keep the largest z, which tells no firing."""
        return self.site.units if self.site.kind.positive else 2 * self.site.units

    @property
    def wants_counts(self) -> bool:
        """A site that no captured step meets is counted in the first step of the window in which it runs."""
        return self.rare and not self.counter.samples

    @property
    def units(self) -> slice:
        """Its units among those of all sites."""
        return slice(self.start, self.start + self.site.units)


class Met(Protocol):
    """A call of a site, on so many samples."""

    @property
    def slot(self) -> Slot: ...

    @property
    def samples(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Observed:
    """A window on the host.

    Attributes:
        steps: the observed steps, (k,).
        top: the largest z of each unit, (k, units); -inf where its site was not executed, NaN where z was all NaN.
        fired: whether it fired, (k, units).
        samples: samples that each unit saw, (k, units).
    """

    steps: NDArray[np.int64]
    top: NDArray[np.float64]
    fired: NDArray[np.bool_]
    samples: NDArray[np.int64]


class Window:
    """Collects the reach of every unit, step by step.

    Attributes:
        slots: where each site stands, by name.
        units: of all sites.
        counted: every site has counts of this window.
    """

    def __init__(self, length: int) -> None:
        self.slots: dict[str, Slot] = {}
        self.units = 0
        self._length = length
        self._rings: dict[Ring, torch.Tensor] = {}
        self._steps: list[int] = []
        self._touched: list[Slot] = []
        self._careful = False
        self._low = np.zeros(0)  # what a unit's reach must be above to fire
        self.counted = False
        self._unsure = 0  # steps of the window in which what is NaN may have been so in part only

    def __len__(self) -> int:
        return len(self._steps)

    def slot(self, site: Site, z: torch.Tensor) -> Slot:
        """Return the place of a site, made on first sight."""
        held = self.slots.get(site.name)
        if held is not None:
            return held
        # In float32 a tiny float64 would round to a tie.
        where = (z.device, torch.float64 if z.dtype == torch.float64 else torch.float32)
        ring = self._rings.get(where)
        low = site.kind.intervals[0][0] if site.kind.positive else 0.0
        counted = [0] * self._length
        row = 0 if ring is None else ring.shape[1]
        held = Slot(site, self.units, row, where, low, SiteCounter(site.units, z.device), counted)
        with torch.inference_mode(False):  # a model may be in it now, and the ring outlasts that
            room = torch.full((self._length, held.columns), -torch.inf, device=where[0], dtype=where[1])
            ring = self._rings[where] = room if ring is None else torch.cat((ring, room), 1)
            self.slots[site.name] = held
            self.counted = False
            self.units += site.units
            for slot in self.slots.values():
                if slot.ring == where:
                    slot.rows = ring[:, slot.row : slot.row + slot.columns].unbind(0)
                    slot.addresses = tuple(row.data_ptr() for row in slot.rows)
                    if where[0].type == "cpu" and slot.site.units:
                        slot.first = ring[:, slot.row].numpy().data
        return held

    def begin_step(self, step: int) -> None:
        """Begin to observe a step."""
        self._steps.append(step)

    def row(self) -> int:
        """Return the row of the present step, if largest z may be written into it as they are, else -1."""
        if self._careful:
            return -1
        if not self.counted:
            self.counted = not any(slot.wants_counts for slot in self.slots.values())
        return len(self._steps) - 1 if self.counted else -1

    def met(self, calls: Iterable[Met]) -> None:
        """The largest z of these calls, each the only one of its site in this step, was written into its row."""
        k, touched = len(self._steps) - 1, self._touched
        for call in calls:
            slot = call.slot
            slot.seen_at, slot.samples = k, call.samples
            touched.append(slot)

    def take(self, kept: Iterable[tuple[Slot, Live, int]]) -> None:
        """Take in what compiled code has kept of some sites in this step, each on so many samples."""
        k = len(self._steps) - 1
        places: list[torch.Tensor] = []
        parts: list[torch.Tensor] = []
        for slot, live, samples in kept:
            places += slot.rows[k].chunk(len(live.parts))
            parts += live.parts
            slot.compiled = True
            if not slot.samples:
                self._touched.append(slot)
            slot.seen_at, slot.samples = k, samples
        if parts:
            torch._foreach_copy_(places, parts)  # one launch for all sites

    def observe(self, slot: Slot, kind: Kind, z: torch.Tensor, plan: Plan, batch: int | None) -> torch.Tensor | None:
        """Take in the reach of one call, z detached; several calls in a step are one observation.

        Returns the largest z of each unit, NaN if one is, (units,), if that is what was taken in.

        A call on fewer samples than the `batch` is about those that follow the call before it, until that is full.
        """
        k = len(self._steps) - 1
        target = slot.rows[k]
        first = slot.seen_at != k
        slot.seen_at = k
        if not slot.samples:
            self._touched.append(slot)
        rows = plan.sample_count
        if batch is not None and rows < batch and plan.batch:
            rows = slot.part = slot.part + rows if slot.part + rows <= batch else rows
        if rows > slot.samples:
            slot.samples = rows
        plain = plan.plain and kind.positive and not self._careful
        if plain and first and z.dtype == target.dtype and not (plan.slender and z.is_cpu):
            written = reach(z, plan, target)
            if written is None or not written.into(z, target.data_ptr()):
                torch.amax(z, plan.over, out=target)
            return target
        positive = slot.site.kind.positive
        depths = target if positive else target[: slot.site.units]
        reached = z if kind.positive else depth(z, kind.intervals)
        # One reduction instead of several that look for NaN, each of which would be a launch.
        largest = top if plain or (plan.plain and not (z.is_cpu or self._careful)) else maximum
        self._put(depths, largest(reached, plan), first)
        if not positive:
            self._put(target[slot.site.units :], largest(z, plan), first)
        return None

    def _put(self, target: torch.Tensor, value: torch.Tensor, first: bool) -> None:
        if first:
            target.copy_(value)
        else:  # a NaN that hid the largest of one call must be seen, also if the other calls have none
            larger = torch.fmax if self._careful else torch.maximum
            larger(target, value.to(target.dtype), out=target)

    def end_forward(self) -> list[Slot]:
        """Note the samples that each site saw in a forward pass that ends; returns the sites that ran in it."""
        touched, self._touched = self._touched, []
        k = len(self._steps) - 1
        for slot in touched:
            slot.counted[k] += slot.samples
            slot.samples = slot.part = 0
        return touched

    def distrust(self, slot: Slot) -> None:
        """Forget what was seen of a site in the present step."""
        k = len(self._steps) - 1
        slot.rows[k].fill_(-torch.inf)
        slot.counted[k] = 0

    def end_step(self) -> None:
        """Once a NaN was seen, look for the largest of the others from now on.

        What is NaN anywhere in a layer's input is NaN in its first unit, too.
        """
        if self._careful:
            return
        k = len(self._steps)
        for slot in self.slots.values():
            if slot.first is not None and isnan(slot.first[k - 1]):
                self._careful, self._unsure = True, k
                return
        if k % _LOOK == 0 or k == self._length:
            for ring in self._rings.values():
                if ring.device.type == "cpu" and bool(ring[max(0, k - _LOOK) : k].isnan().any()):
                    self._careful, self._unsure = True, k

    @property
    def distant(self) -> bool:
        """What was observed comes to the host while the training goes on."""
        return any(ring.is_cuda for ring in self._rings.values())

    def close(self) -> Callable[[], Observed]:
        """Begin a new window; returns what tells of this one, once it is on the host.

        To be asked once, before there is another site, and before the window that follows is closed.
        """
        k, slots = len(self._steps), self.slots.values()
        sent = {where: Transfer([ring[:k]], 0) for where, ring in self._rings.items()}
        counted = np.array([slot.counted[:k] for slot in slots], np.int64).reshape(len(slots), k)
        samples = counted.T.repeat([slot.site.units for slot in slots], 1)
        for slot in slots:
            slot.counted[:k] = [0] * k
            slot.seen_at = -1
            slot.rare, slot.captured = not slot.captured, False
        for ring in self._rings.values():
            ring.fill_(-torch.inf)
        steps, sure = np.array(self._steps, np.int64), self._unsure if self._careful else k
        self._steps, self._unsure = [], 0
        self.counted = False
        return lambda: self._observed(sent, steps, samples, sure)

    def _observed(
        self, sent: dict[Ring, Transfer], steps: NDArray[np.int64], samples: NDArray[np.int64], sure: int
    ) -> Observed:
        """Return what has arrived; in the first `sure` steps NaN hid what else there was."""
        reach, top = self._host(sent, len(steps))
        for slot in self.slots.values():
            if slot.compiled and slot.site.units:
                samples[np.isneginf(top[:, slot.units]).all(1), slot.units] = 0
        if sure:
            self._doubt(reach, top, samples, sure)
        with np.errstate(invalid="ignore"):
            fired = reach > self._low
        return Observed(steps, top, fired, samples)

    def _host(self, sent: dict[Ring, Transfer], steps: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return reach and largest z, (steps, units) each; one array if they are the same."""
        if len(self._low) != self.units:
            self._low = np.zeros(self.units)
            for slot in self.slots.values():
                self._low[slot.units] = slot.low
        rings = {where: transfer.array() for where, transfer in sent.items()}
        if len(rings) == 1 and all(slot.site.kind.positive for slot in self.slots.values()):
            (kept,) = rings.values()  # whose columns are the units in order
            return kept, kept
        reach, top = np.empty((2, steps, self.units))
        for slot in self.slots.values():
            kept = rings[slot.ring][:, slot.row : slot.row + slot.columns]
            reach[:, slot.units] = kept[:, : slot.site.units]
            top[:, slot.units] = kept[:, -slot.site.units :] if slot.site.units else 0.0
        return reach, top

    def _doubt(
        self, reach: NDArray[np.float64], top: NDArray[np.float64], samples: NDArray[np.int64], sure: int
    ) -> None:
        """Take units with a NaN for not seen in the first `sure` steps, unless nothing but NaN is left of them after.

        Until the first NaN is met, the largest z is taken, which is NaN if a single one is.
        """
        if not math.isnan(np.maximum.reduce(reach[:sure], axis=None, initial=-np.inf)):
            return
        nan = np.isnan(reach[:sure])
        if not self._careful:  # nor was it in the steps that have come since
            self._careful, self._unsure = True, len(self._steps)
        if sure < len(reach):
            nan &= ~np.isnan(reach[sure])
        for array, value in ((reach, -np.inf), (top, -np.inf), (samples, 0)):
            array[:sure][nan] = value


def depth(z: torch.Tensor, intervals: Sequence[tuple[float, float]]) -> torch.Tensor:
    """Return how far z is inside of open intervals: above 0 if and only if it is in one; NaN where z is."""
    (low, high), *others = intervals
    inside = torch.minimum(z - low, high - z)
    for low, high in others:
        inside = torch.maximum(inside, torch.minimum(z - low, high - z))
    return inside
