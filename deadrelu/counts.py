"""Counts: the sufficient statistics of one site.

They merge by + or max, so that calls, batches, windows and ranks are one operation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from .kernels import Engaged, Plan, Sums, engaged, magnitude, squares
from .kinds import Kind
from .transfers import Transfer


@dataclass(frozen=True, slots=True, eq=False)
class UnitCounts:
    """What was counted of one site, on the host. Arrays have shape (units,).

    Attributes:
        samples: samples seen.
        positions: (sample, position) pairs seen.
        active: pairs in which the unit was engaged.
        active_samples: samples with an engaged position.
        max_z: largest pre-activation, NaN where there was no other.
        magnitude: sum of |h| over all pairs; NaN where the output was not seen.
        grad_square: sum of (dL/dz)^2, None if no gradient was measured.
        grad_max: largest |dL/dz|, None if no gradient was measured.
        grad_positions: pairs whose gradient was seen.
    """

    samples: int
    positions: int
    active: NDArray[np.int64]
    active_samples: NDArray[np.int64]
    max_z: NDArray[np.float64]
    magnitude: NDArray[np.float64]
    grad_square: NDArray[np.float64] | None
    grad_max: NDArray[np.float64] | None
    grad_positions: int


class SiteCounter:
    """Adds up the calls of one site on their device.

    Memory is O(units), and a number per sample and unit until a forward pass ends.
    """

    def __init__(self, units: int, device: torch.device) -> None:
        self.units, self.device = units, device
        self._sums = Sums(units, device)
        self._begin()

    @staticmethod
    def clear(counters: Sequence[SiteCounter]) -> None:
        """Let all of them begin anew."""
        Sums.clear([counter._sums for counter in counters])
        for counter in counters:
            counter._begin()

    def _begin(self) -> None:
        self.samples = 0
        self.positions = 0
        self.calls = 0
        self._grad_positions = 0
        self._output_positions = 0
        self._fired: torch.Tensor | None = None
        self._alone: Engaged | None = None  # the only call so far: which samples fired need not be known yet
        self._row = 0  # where the samples of the next call on a part of the batch begin

    def observe(
        self, z: torch.Tensor, kind: Kind, plan: Plan, batch: int | None = None, *, output: bool = False
    ) -> bool:
        """Count one call: z, before any in-place overwrite, in a forward pass of `batch` samples.

        Output: what a rectifier makes of z may be counted along; True if it was, and must not be counted again.
        """
        seen = self._observe(z, kind, plan, batch, rectified=output and kind.rectifier)
        return seen.rectified

    def counted(
        self, z: torch.Tensor, kind: Kind, plan: Plan, batch: int | None = None, *, top: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Count one call, as `observe` does; return its engaged positions, (units,). See `kernels.engaged` for top."""
        before = self._sums.count.clone() if self.calls else None
        seen = self._observe(z, kind, plan, batch, top=top)
        if seen.count is not None:
            return seen.count
        return self._sums.count.clone() if before is None else self._sums.count - before

    def _observe(
        self,
        z: torch.Tensor,
        kind: Kind,
        plan: Plan,
        batch: int | None,
        *,
        rectified: bool = False,
        top: torch.Tensor | None = None,
    ) -> Engaged:
        seen = engaged(z, kind, plan, self._sums, rectified=rectified, top=top)
        if seen.rectified:
            self._output_positions += plan.sample_count * plan.position_count
        self._take(seen, plan, batch)
        return seen

    def _take(self, seen: Engaged, plan: Plan, batch: int | None) -> None:
        """Note which samples a call has fired for, once its sums were added.

        A call on fewer samples than the batch is about those that follow the call before it, and once the batch is full
        about its first ones again: exact where every part of a batch comes once before any comes twice. Where one part
        has all of its calls before the next has any, samples are paired as if it were not so; what never fired is
        silent in either case.
        """
        self.positions += plan.sample_count * plan.position_count
        self.calls += 1
        samples = seen.sample_count
        whole = batch is None or samples >= batch or not plan.batch
        if self._alone is None and self._fired is None and whole:
            self._alone = seen
            return
        if self._alone is not None:
            self._fired, self._alone = self._withdrawn(self._alone), None
        fired = self._withdrawn(seen)
        if not plan.batch:  # it lost the batch axis: it fired for some sample
            self._merge(0, fired)
        elif whole:
            self._merge(0, fired)
            self._row = 0
        else:
            start = self._row if batch is None or self._row + samples <= batch else 0
            self._merge(start, fired)
            self._row = start + samples

    def _withdrawn(self, seen: Engaged) -> torch.Tensor:
        """Return which samples fired in a call, bool (samples, units), and count them no longer by themselves."""
        fired = seen.fired
        self._sums.samples.sub_(fired.sum(0))
        return fired

    def _merge(self, start: int, fired: torch.Tensor) -> None:
        """Add which of the samples from `start` on fired, (samples, units)."""
        held, end = self._fired, start + len(fired)
        if held is None:
            self._fired = fired
        elif start == len(held):
            self._fired = torch.cat((held, fired))
        else:
            if end > len(held):
                held = torch.cat((held, held.new_zeros(end - len(held), held.shape[1])))
            if held.is_inference():
                held = held.clone()
            held[start:end] |= fired
            self._fired = held

    def observe_output(self, h: torch.Tensor, kind: Kind, plan: Plan) -> None:
        """Add the output of one call."""
        magnitude(h, kind, plan, self._sums)
        self._output_positions += plan.sample_count * plan.position_count

    def observe_gradient(self, g: torch.Tensor, plan: Plan, *, quick: bool = False) -> None:
        """Add dL/dz of one call; see `kernels.squares` for `quick`."""
        squares(g, plan, self._sums, quick=quick)
        self._grad_positions += plan.sample_count * plan.position_count

    def end_forward(self) -> None:
        """Close a forward pass: a sample that fired in any of its calls fired once."""
        if self._alone is not None:
            self.samples += self._alone.sample_count
            self._alone = None
        elif self._fired is not None:
            self._sums.samples.add_(self._fired.sum(0))
            self.samples += len(self._fired)
        self.drop_forward()

    def drop_forward(self) -> None:
        """Forget which samples fired in a forward pass that did not end."""
        if self._alone is not None:
            self._withdrawn(self._alone)
        self._fired = self._alone = None
        self._row = 0

    def host(self) -> UnitCounts:
        """Return the counts on the host: the one place that waits for the device."""
        return self.hosts([self])[0]

    @staticmethod
    def hosts(counters: Sequence[SiteCounter]) -> list[UnitCounts]:
        """Return the counts of some sites on the host, for which their devices are waited for together."""
        return SiteCounter.leaving(counters)()

    @staticmethod
    def leaving(counters: Sequence[SiteCounter]) -> Callable[[], list[UnitCounts]]:
        """Return what tells the counts as they are now, once they are on the host; the counters may go on."""
        if not counters:
            return list
        tallies = [counter._tally() for counter in counters]
        transfer = Transfer([counter._sums.rows for counter in counters], 1)

        def counts() -> list[UnitCounts]:
            rows = transfer.array()
            whole = np.rint(rows[:2]).astype(np.int64)
            np.fmax(rows[4], np.square(rows[5]), out=rows[4])  # tiny squares may have vanished
            ends = np.cumsum([tally.units for tally in tallies]).tolist()
            parts = [slice(end - tally.units, end) for tally, end in zip(tallies, ends, strict=True)]
            return [t.counts(rows[:, part], whole[:, part]) for t, part in zip(tallies, parts, strict=True)]

        return counts

    def _tally(self) -> Tally:
        alone = None if self._alone is None else self._alone.fired.sum(0)  # of a forward pass that is under way
        return Tally(self.units, self.samples, self.positions, self._output_positions, self._grad_positions, alone)


class Tally(NamedTuple):
    """What a site's counter knows beside its sums.

    Attributes:
        units, samples, positions: of the site, and seen.
        outputs, gradients: positions of which these were seen.
        alone: samples that are to be taken from those that fired, (units,); None for none.
    """

    units: int
    samples: int
    positions: int
    outputs: int
    gradients: int
    alone: torch.Tensor | None

    def counts(self, rows: NDArray[np.float64], whole: NDArray[np.int64]) -> UnitCounts:
        """Return the counts, from the rows of the sums (6, units), and the whole numbers of the first two."""
        _, _, top, size, square, grad_max = rows
        active, samples = whole
        if self.alone is not None:
            samples = samples - self.alone.cpu().numpy()
        seen = self.gradients > 0
        return UnitCounts(
            samples=self.samples,
            positions=self.positions,
            active=active,
            active_samples=samples,
            max_z=top,
            magnitude=size if self.outputs else np.full_like(size, np.nan),
            grad_square=square if seen else None,
            grad_max=grad_max if seen else None,
            grad_positions=self.gradients,
        )
