"""Looks: what kernels say of one tensor after the other, whichever implementation computes it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch


def wide(device: torch.device) -> torch.dtype:
    """Return the widest float of a device: float64, except where the hardware has none."""
    return torch.float32 if device.type == "mps" else torch.float64


class Sums:
    """What was found in all tensors of one site so far, (units,) each, in the widest float of their device.

    Attributes:
        rows: all of it, (6, units).
        count: engaged positions.
        samples: samples with an engaged position, call by call.
        counts: both of these, (2, units).
        top: the largest pre-activation, NaN aside; NaN until there is one.
        magnitude: sum of |h|.
        square: sum of g^2.
        largest: the largest |g|, NaN aside; 0 until there is one.
    """

    __slots__ = ("_blank", "count", "counts", "largest", "magnitude", "rows", "samples", "square", "top")

    def __init__(self, units: int, device: torch.device) -> None:
        with torch.inference_mode(False):  # a model may be in it for a part of its forward pass only
            self.rows = torch.zeros(6, units, dtype=wide(device), device=device)
            self.count, self.samples, self.top, self.magnitude, self.square, self.largest = self.rows.unbind()
            self.counts = self.rows[:2]
            self.top.fill_(torch.nan)
            self._blank = self.rows.clone()

    @staticmethod
    def clear(sums: Sequence[Sums]) -> None:
        """Forget what was found, in all of them at once."""
        if sums:
            torch._foreach_copy_([s.rows for s in sums], [s._blank for s in sums])


@dataclass(frozen=True, slots=True, eq=False)
class Engaged:
    """Which samples of one call were engaged in which unit.

    Attributes:
        marks: engaged positions (samples, units), or uint8 with a bit per sample, those of 8 samples in a byte.
        sample_count: number of samples.
        rectified: the output was added to the magnitude, too.
        count: engaged positions of each unit (units,), None if they were added to the sums alone.
    """

    marks: torch.Tensor
    sample_count: int
    rectified: bool = False
    count: torch.Tensor | None = None

    @property
    def fired(self) -> torch.Tensor:
        """Return bool (samples, units)."""
        if self.marks.dtype != torch.uint8:
            return self.marks > 0
        shifts = torch.arange(8, dtype=torch.uint8, device=self.marks.device).view(1, 8, 1)
        bits = self.marks.unsqueeze(1).bitwise_right_shift(shifts).bitwise_and_(1)
        return bits.flatten(0, 1)[: self.sample_count].bool()
