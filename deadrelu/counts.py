"""Counts: the sufficient statistics of one site.

They merge by + or max, so that calls, batches, windows and ranks are one operation.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from .kernels import Plan, engaged_count, magnitude, maximum, square_sum
from .kinds import Kind


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
        wide = torch.float64 if device.type != "mps" else torch.float32
        with torch.inference_mode(False):  # a model may be in it for a part of its forward pass only
            zeros = torch.zeros(6, units, dtype=wide, device=device)
        self.samples = 0
        self.positions = 0
        self.calls = 0
        self._active, self._active_samples, self._magnitude, self._grad_square, self._grad_max, self._max_z = zeros
        self._max_z.fill_(torch.nan)
        self._grad_positions = 0
        self._output_positions = 0
        self._fired: torch.Tensor | None = None
        self._alone: tuple[torch.Tensor, torch.Tensor] | None = None  # the only call so far: counts, and their sums
        self._row = 0  # where the samples of the next call on a part of the batch begin

    def observe(self, z: torch.Tensor, kind: Kind, plan: Plan, batch: int | None = None) -> None:
        """Count one call: z, before any in-place overwrite, in a forward pass of `batch` samples."""
        counts = engaged_count(z, kind, plan)
        self.add(counts, maximum(z, plan), plan, batch)

    def add(self, counts: torch.Tensor, top: torch.Tensor, plan: Plan, batch: int | None = None) -> torch.Tensor:
        """Add one call whose engaged positions (samples, units) and maxima (units,) are known; return their sums.

        A call on fewer samples than the batch is about those that follow the call before it, and once the batch is full
        about its first ones again: exact where every part of a batch comes once before any comes twice. Where one part
        has all of its calls before the next has any, samples are paired as if it were not so; what never fired is
        silent in either case.
        """
        pairs = plan.sample_count * plan.position_count
        total = counts.sum(0) if pairs < 1 << 24 else counts.sum(0, dtype=self._active.dtype)  # exact in float32
        self._active += total
        torch.fmax(self._max_z, top, out=self._max_z)
        self.positions += pairs
        self.calls += 1
        samples = len(counts)
        whole = batch is None or samples >= batch
        if self._alone is not None:
            self._fired, self._alone = self._alone[0] > 0, None
        elif self._fired is None and plan.batch and whole and plan.position_count == 1:
            self._alone = counts, total  # each pair is a sample
            return total
        fired = counts > 0
        if not plan.batch:  # it lost the batch axis: it fired for some sample
            self._merge(0, fired)
        elif whole:
            self._merge(0, fired)
            self._row = 0
        else:
            start = self._row if batch is None or self._row + samples <= batch else 0
            self._merge(start, fired)
            self._row = start + samples
        return total

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
        self._magnitude += magnitude(h, kind, plan)
        self._output_positions += plan.sample_count * plan.position_count

    def observe_gradient(self, g: torch.Tensor, plan: Plan, *, quick: bool = False) -> None:
        """Add dL/dz of one call; see `square_sum` for `quick`."""
        self._grad_square += square_sum(g, plan, quick=quick)
        torch.fmax(self._grad_max, maximum(g.detach().abs(), plan), out=self._grad_max)
        self._grad_positions += plan.sample_count * plan.position_count

    def end_forward(self) -> None:
        """Close a forward pass: a sample that fired in any of its calls fired once."""
        if self._alone is not None:
            self._active_samples += self._alone[1]
            self.samples += len(self._alone[0])
        elif self._fired is not None:
            self._active_samples += self._fired.sum(0)
            self.samples += len(self._fired)
        self.drop_forward()

    def drop_forward(self) -> None:
        """Forget which samples fired in a forward pass that did not end."""
        self._fired = self._alone = None
        self._row = 0

    def host(self) -> UnitCounts:
        """Return the counts on the host: the one place that waits for the device."""
        values = torch.stack(
            [
                self._active,
                self._active_samples,
                self._max_z,
                self._magnitude,
                self._grad_square,
                self._grad_max,
            ]
        )
        active, samples, top, size, square, grad_max = values.cpu().double().numpy()
        seen = self._grad_positions > 0
        return UnitCounts(
            samples=self.samples,
            positions=self.positions,
            active=np.rint(active).astype(np.int64),
            active_samples=np.rint(samples).astype(np.int64),
            max_z=top,
            magnitude=size if self._output_positions else np.full_like(size, np.nan),
            grad_square=np.fmax(square, np.square(grad_max)) if seen else None,  # tiny squares may have vanished
            grad_max=grad_max if seen else None,
            grad_positions=self._grad_positions,
        )
