"""Enclosure: between what bounds each element of a tensor lies, for every input of the declared box."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch

Tensor = torch.Tensor


@dataclass(frozen=True, slots=True)
class Ball:
    """What is known of the rows of a norm's output y beyond bounds of each element: y = scale * n + shift.

    n has d entries and a Euclidean norm <= `radius`; if `centred`, n is a vector of sum zero and norm <= `radius`, plus
    a vector that is constant, of entries <= `drift`.

    Attributes:
        scale, shift: float64, shape (d,).
        radius: of n, about sqrt(d).
        centred: the mean was subtracted (LayerNorm; RMSNorm does not).
        drift: what rounding of the mean adds to every entry of n alike.
    """

    scale: Tensor
    shift: Tensor
    radius: float
    centred: bool
    drift: float = 0.0


@dataclass(frozen=True, slots=True)
class Trail:
    """How far a tensor is on its way from x to 1 / sqrt(mean(x^2) + eps).

    Attributes:
        step: `square`, `mean` or `inverse`.
        source: identifies x: its memory, its writes so far, its place in it.
        size: entries that the mean is over; 0 before it.
        eps: what was added to the mean, at least.
    """

    step: str
    source: Any
    size: int = 0
    eps: float = 0.0


@dataclass(frozen=True, slots=True)
class Enclosure:
    """Bounds of each element of a tensor: the element lies in [low, high], or is NaN.

    Attributes:
        low, high: float64, of the tensor's shape; infinite where there is no bound.
        reason: why there is no bound, where there is none.
    """

    low: Tensor
    high: Tensor
    ball: Ball | None = field(default=None, kw_only=True)
    trail: Trail | None = field(default=None, kw_only=True)
    reason: str | None = field(default=None, kw_only=True)

    @property
    def magnitude(self) -> Tensor:
        """The largest absolute value of each element."""
        return torch.maximum(self.low.abs(), self.high.abs())

    @property
    def bounded(self) -> bool:
        """True if every element has both bounds."""
        return bool(self.low.isfinite().all() and self.high.isfinite().all())

    @property
    def point(self) -> bool:
        """True if every element has one value only."""
        return bool((self.low == self.high).all())


def hull(*parts: tuple[Tensor, Tensor]) -> Enclosure:
    """Return the smallest enclosure of all parts, element by element."""
    low, high = parts[0]
    for other_low, other_high in parts[1:]:
        low, high = torch.minimum(low, other_low), torch.maximum(high, other_high)
    return Enclosure(low, high)
