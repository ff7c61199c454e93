"""Plan: along which axes a tensor is reduced, so that units and samples are left."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import torch


@dataclass(frozen=True, slots=True)
class Plan:
    """How to bring a tensor to (samples, units), positions reduced away.

    Attributes:
        expand: the shape in which every axis has one role; None if the tensor has it already.
        units: axes of the expanded tensor that enumerate the units, outermost first.
        batch: axes that enumerate the samples, outermost first; empty if the call counts as one sample.
        positions: the remaining axes.
        shape: the expanded shape.
    """

    expand: tuple[int, ...] | None
    units: tuple[int, ...]
    batch: tuple[int, ...]
    positions: tuple[int, ...]
    shape: tuple[int, ...]

    @property
    def unit_count(self) -> int:
        return prod(self.shape[i] for i in self.units)

    @property
    def sample_count(self) -> int:
        return prod(self.shape[i] for i in self.batch)

    @property
    def position_count(self) -> int:
        """Positions of one sample."""
        return prod(self.shape[i] for i in self.positions)

    def view(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return `tensor` with one role per axis."""
        return tensor if self.expand is None else tensor.reshape(self.expand)

    def matrix(self, reduced: torch.Tensor) -> torch.Tensor:
        """Return what is left after the positions were reduced away, as (samples, units)."""
        kept = [i for i in range(len(self.shape)) if i not in self.positions]
        order = [kept.index(i) for i in (*self.batch, *self.units)]
        if order != list(range(len(order))):
            reduced = reduced.permute(order)
        return reduced.reshape(self.sample_count, self.unit_count)
