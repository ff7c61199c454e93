"""Window: what every unit reached at every step of a stretch of training, kept on the device until the stretch ends.

One row per observed step holds, for each unit of each site, its *reach*: the largest pre-activation, or, for kinds that
are flat on both sides, how far inside of its intervals the unit came. Reading it back is one transfer per window.
Memory is O(units) times the length of the window.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from .counts import SiteCounter
from .kernels import Plan, maximum
from .kinds import Kind
from .sites import Site

Ring = tuple[torch.device, torch.dtype]


@dataclass(slots=True)
class Slot:
    """Where one site stands in a window.

    Attributes:
        site: the site.
        start: index of its first unit over all units of all sites.
        row: index of its first unit among those of its ring.
        ring: the device and dtype that its reach is kept on.
        low: a unit fired if its reach is above this.
        counter: the dearer counts of the present window.
        seen_at: the last step in which it was executed.
    """

    site: Site
    start: int
    row: int
    ring: Ring
    low: float
    counter: SiteCounter
    seen_at: int = -1

    @property
    def units(self) -> slice:
        """Its units among those of all sites."""
        return slice(self.start, self.start + self.site.units)


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
    """Collects the reach of every unit, step by step."""

    def __init__(self, length: int) -> None:
        self.slots: dict[str, Slot] = {}
        self.units = 0
        self._length = length
        self._rings: dict[Ring, torch.Tensor] = {}
        self._steps: list[int] = []
        self._samples: list[dict[str, int]] = []
        self._careful = False

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
        row = 0 if ring is None else ring.shape[1]
        # Kinds that are flat on both sides also keep the largest z, which does not tell whether they fired.
        columns = site.units if site.kind.positive else 2 * site.units
        room = torch.full((self._length, columns), -torch.inf, device=where[0], dtype=where[1])
        self._rings[where] = room if ring is None else torch.cat((ring, room), 1)
        low = site.kind.intervals[0][0] if site.kind.positive else 0.0
        held = Slot(site, self.units, row, where, low, SiteCounter(site.units, z.device))
        self.slots[site.name] = held
        self.units += site.units
        return held

    def begin_step(self, step: int) -> None:
        """Begin to observe a step."""
        self._steps.append(step)
        self._samples.append({})

    def observe(self, slot: Slot, kind: Kind, z: torch.Tensor, plan: Plan) -> None:
        """Take in the reach of one call; several calls in a step are one observation."""
        k = len(self._steps) - 1
        target = self._rings[slot.ring][k, slot.row : slot.row + slot.site.units]
        first = slot.seen_at != self._steps[-1]
        slot.seen_at = self._steps[-1]
        axes = (*plan.positions, *plan.batch)
        plain = plan.expand is None and len(plan.units) == 1 and kind.positive and axes and not self._careful
        if plain and first and z.dtype == target.dtype:
            torch.amax(z, axes, out=target)
            return
        self._put(target, z.amax(axes) if plain else maximum(_depth(z, kind), plan), first)
        if not slot.site.kind.positive:
            beside = slice(slot.row + slot.site.units, slot.row + 2 * slot.site.units)
            self._put(self._rings[slot.ring][k, beside], maximum(z, plan), first)

    @staticmethod
    def _put(target: torch.Tensor, value: torch.Tensor, first: bool) -> None:
        if first:
            target.copy_(value)
        else:
            torch.fmax(target, value.to(target.dtype), out=target)

    def count(self, slot: Slot, rows: int) -> None:
        """Note that a site saw `rows` more samples in the present step."""
        held = self._samples[-1]
        held[slot.site.name] = held.get(slot.site.name, 0) + rows

    def distrust(self, slot: Slot) -> None:
        """Forget what was seen of a site in the present step."""
        columns = slot.site.units if slot.site.kind.positive else 2 * slot.site.units
        self._rings[slot.ring][len(self._steps) - 1, slot.row : slot.row + columns].fill_(-torch.inf)
        self._samples[-1].pop(slot.site.name, None)

    def end_step(self) -> None:
        """Once a NaN was seen, look for the largest of the others from now on (on a CPU, where looking is free)."""
        if not self._careful:
            k = len(self._steps) - 1
            self._careful = any(r.device.type == "cpu" and bool(r[k].isnan().any()) for r in self._rings.values())

    def close(self) -> Observed:
        """Return what was observed and begin a new window: the one place that waits for the device."""
        k = len(self._steps)
        reach = np.full((k, self.units), -np.inf)
        top = np.full((k, self.units), -np.inf)
        samples = np.zeros((k, self.units), np.int64)
        low = np.zeros(self.units)
        rings = {where: ring[:k].cpu().double().numpy() for where, ring in self._rings.items()}
        for name, slot in self.slots.items():
            reach[:, slot.units] = rings[slot.ring][:, slot.row : slot.row + slot.site.units]
            beside = slot.row if slot.site.kind.positive else slot.row + slot.site.units
            top[:, slot.units] = rings[slot.ring][:, beside : beside + slot.site.units]
            low[slot.units] = slot.low
            for i, seen in enumerate(self._samples):
                samples[i, slot.units] = seen.get(name, 0)
        steps = np.array(self._steps, np.int64)
        for ring in self._rings.values():
            ring.fill_(-torch.inf)
        self._steps, self._samples = [], []
        with np.errstate(invalid="ignore"):
            fired = reach > low
        return Observed(steps, top, fired, samples)


def _depth(z: torch.Tensor, kind: Kind) -> torch.Tensor:
    """Return how far z is inside of the intervals of a kind: z itself if engaged means above one bound."""
    if kind.positive:
        return z
    inside = [torch.minimum(z - low, high - z) for low, high in kind.intervals]
    depth = inside[0]
    for other in inside[1:]:
        depth = torch.maximum(depth, other)
    return depth
