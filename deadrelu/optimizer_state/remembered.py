"""Remembered: one parameter, what its optimizer keeps of it, and the settings of its group."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch


@dataclass(frozen=True, slots=True, eq=False)
class Remembered:
    """One parameter as a checkpoint holds it.

    Attributes:
        values: the parameter itself.
        state: its entry in `state` of `optimizer.state_dict()`; empty if it has none.
        group: its entry in `param_groups`; None if no optimizer holds the parameter.
    """

    values: torch.Tensor
    state: Mapping[str, Any] = field(default_factory=dict)
    group: Mapping[str, Any] | None = None

    def number(self, name: str, default: float | None = None) -> float | None:
        """Return a setting of the group as a number; None if it is missing or none."""
        return number((self.group or {}).get(name, default))

    def momentum_range(self, name: str, now: float) -> tuple[float, float]:
        """Return the lowest and the highest momentum that the group has had, as far as its scheduler wrote them there.

        A cyclic scheduler (OneCycleLR, CyclicLR) moves the momentum, or the first of the betas, between two values that
        it keeps in the group; only its present value stands under `name`.
        """
        cycled = [self.number("base_momentum"), self.number("max_momentum")]
        known = [now, *(value for value in cycled if value is not None)]
        return min(known), max(known)


def number(value: object) -> float | None:
    """Return a plain number or a tensor of one element as a finite float; None for anything else."""
    if isinstance(value, torch.Tensor):
        if value.numel() != 1 or value.is_complex() or value.is_meta:
            return None
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if math.isfinite(value) else None


def rows(values: torch.Tensor, unit_dim: int) -> torch.Tensor:
    """Return `values` as (units, numbers per unit)."""
    moved = values.detach().movedim(unit_dim, 0)
    return moved.reshape(moved.shape[0], -1)
