"""Plan: along which axes a tensor is reduced, so that units and samples are left."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import prod
from typing import Any

import torch

FOLDED = 512
"""Rows from which on a reduction to few units is folded."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How to bring a tensor to (samples, units), positions reduced away.

    Attributes:
        expand: the shape in which every axis has one role; None if the tensor has it already.
        units: axes of the expanded tensor that enumerate the units, outermost first.
        batch: axes that enumerate the samples, outermost first; empty if the call counts as one sample.
        positions: the remaining axes.
        shape: the expanded shape.
        over: the axes that a full reduction goes over.
        plain: the units are one axis of the tensor as it is, and something is left to reduce.
        is_matrix: the tensor is (samples, units) as it is.
        slender: the units are one axis, and so few that a reduction to them is slow where they lie side by side.
        unit_count: number of units.
        sample_count: number of samples.
        position_count: positions of one sample.
        memo: what a kernel has worked out for this plan, once.
    """

    expand: tuple[int, ...] | None
    units: tuple[int, ...]
    batch: tuple[int, ...]
    positions: tuple[int, ...]
    shape: tuple[int, ...]
    over: tuple[int, ...] = field(init=False)
    plain: bool = field(init=False)
    is_matrix: bool = field(init=False)
    slender: bool = field(init=False)
    unit_count: int = field(init=False)
    sample_count: int = field(init=False)
    position_count: int = field(init=False)
    memo: dict[Any, Any] = field(init=False, repr=False, compare=False, default_factory=dict)

    def __post_init__(self) -> None:
        set_ = object.__setattr__  # asked for at every call of every activation: computed once
        set_(self, "over", (*self.positions, *self.batch))
        set_(self, "plain", self.expand is None and len(self.units) == 1 and bool(self.over))
        set_(self, "is_matrix", self.plain and self.batch == (0,) and self.units == (1,) and not self.positions)
        for name, axes in (("unit", self.units), ("sample", self.batch), ("position", self.positions)):
            set_(self, f"{name}_count", prod(self.shape[i] for i in axes))
        rows = self.sample_count * self.position_count
        few = 1 < self.unit_count < 128 and self.unit_count % 32 != 0
        set_(self, "slender", self.plain and few and rows >= FOLDED)

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
