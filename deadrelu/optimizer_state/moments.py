"""Moments: what Adam's averages of the gradient (m) and of its square (v) say about each unit.

Without a gradient m shrinks by beta1 a step and sqrt(v) by sqrt(beta2), so that k steps after the last one
r = |m| / sqrt(v) is (beta1 / sqrt(beta2))^k of what it was then. What it was then lies, by Cauchy and Schwarz, at or
under C = (1 - beta1) / sqrt((1 - beta2)(1 - beta1^2 / beta2)): hence the bound
k <= ln(C / r) / ln(sqrt(beta2) / beta1).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from .fading import Flags, Floats

_CHUNK = 1 << 18
_COLUMNS = 2048
_RESOLUTION = 2.0**-21
"""Relative error of m - decay * w in float32, both of them rounded at every step."""


@dataclass(frozen=True, slots=True)
class Decay:
    """How a group's averages decay.

    Attributes:
        beta1: lowest and highest that the group has had.
        beta2: of the square.
    """

    beta1: tuple[float, float]
    beta2: float

    @property
    def rates(self) -> tuple[float, float]:
        """Nats that ln r loses in a step: at least, at most; not positive where r does not fade."""
        low, high = self.beta1
        return tuple(0.5 * math.log(self.beta2) - math.log(beta) for beta in (high, low))  # type: ignore[return-value]

    @property
    def log_ceiling(self) -> float:
        """ln C: no |m| / sqrt(v) is larger, whatever the gradients."""
        low, high = self.beta1
        return math.log1p(-low) - 0.5 * (math.log1p(-self.beta2) + math.log1p(-(high**2) / self.beta2))


@dataclass(frozen=True, slots=True, eq=False)
class Moments:
    """The averages of one parameter, as (units, numbers per unit).

    Attributes:
        m: average of the gradient.
        v: average of its square.
        w: the parameter's values.
        step: updates seen.
        decay: how the averages decay.
    """

    m: torch.Tensor
    v: torch.Tensor
    w: torch.Tensor
    step: int
    decay: Decay

    def chunks(self) -> Iterator[tuple[int, torch.Tensor, torch.Tensor, torch.Tensor]]:
        """Yield (first unit, m, v, w) in float64, a bounded number of units at a time."""
        height = max(1, _CHUNK // max(1, self.m.shape[1]))
        for start in range(0, len(self.m), height):
            part = slice(start, start + height)
            yield start, self.m[part].double(), self.v[part].double(), self.w[part].double()


@dataclass(frozen=True, slots=True, eq=False)
class Levels:
    """What is left of a unit's gradient, per unit; shape (units,) each.

    Attributes:
        fresh: ln of the largest r of its numbers; -inf if it never had a gradient.
        worn: the largest r is that of an m too small for its precision: the silence is at least as long as it says.
        coarse: it is that of an m of reduced precision: right to a twentieth of a nat.
        peak: largest |m|.
        energy: largest v.
        touched: it had a gradient once.
        tiny: some number of it lies under the smallest normal one: such numbers are not flushed to zero here.
        numbers: how many of its numbers had a gradient once.
        decaying: how many of them decay, not gradients, makes up most of v (coupled weight decay).
    """

    fresh: Floats
    worn: Flags
    coarse: Flags
    peak: Floats
    energy: Floats
    touched: Flags
    tiny: Flags
    numbers: Floats
    decaying: Floats


@dataclass(frozen=True, slots=True)
class CoupledDecay:
    """A weight decay that was added to the gradient, and the step size that moves the decaying weights.

    Without a gradient m becomes the average of decay * w over the last steps, in which w moved by lr * m / sqrt(v)
    each.
    """

    weight_decay: float
    lr: float
    eps: float

    def part(self, at: Moments, m: torch.Tensor, v: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        """Return the part of m that the decay alone makes up."""
        beta1, beta2 = at.decay.beta1[1], at.decay.beta2
        filled = 1 - beta1**at.step
        moved = (m / filled) / ((v / (1 - beta2**at.step)).sqrt() + self.eps)
        return self.weight_decay * filled * (w + self.lr * moved / (1 - beta1))


def levels(at: Moments, coupled: CoupledDecay | None = None) -> Levels:
    """Return what is left of each unit's gradient, with the part of a coupled weight decay taken off first."""
    units = len(at.m)
    out = Levels(*(np.zeros(units, dtype=kind) for kind in (float, bool, bool, float, float, bool, bool, float, float)))
    limits = torch.finfo(at.m.dtype)
    # Below the smallest normal number m loses bits step by step: off by 1 / 20 in all at this many units in the last
    # place. What is 0 may have been flushed from anywhere under the smallest normal one.
    coarsest = limits.smallest_normal * limits.eps * 10 / (1 - at.decay.beta1[1])
    for start, m, v, w in at.chunks():
        part = slice(start, start + len(m))
        size = m.abs()
        touched = (v > 0) | (size > 0)
        floor = torch.where(size > 0, coarsest, limits.smallest_normal)
        out.tiny[part] = (_subnormal(v, limits) | _subnormal(m, limits)).any(1).numpy()
        if coupled is not None:
            made = coupled.part(at, m, v, w)
            size = (m - made).abs()
            floor = torch.maximum(floor, max(_RESOLUTION, torch.finfo(at.w.dtype).eps) * made.abs())
            out.decaying[part] = (touched & (v.sqrt() < 3 * coupled.weight_decay * w.abs())).sum(1).numpy()
        worn = size <= floor
        ratio = torch.maximum(size, floor) / v.clamp(min=limits.smallest_normal).sqrt()
        # A square that has underflowed while m has not tells nothing: such a number counts as fresh as can be.
        ratio = torch.where(~worn & (v < limits.smallest_normal), math.exp(at.decay.log_ceiling), ratio)
        fresh, where = torch.where(touched, ratio, 0.0).max(1, keepdim=True)
        out.fresh[part] = fresh[:, 0].log().numpy()
        out.worn[part] = worn.gather(1, where)[:, 0].numpy()
        out.coarse[part] = _subnormal(size, limits).gather(1, where)[:, 0].numpy()
        out.peak[part] = size.amax(1).numpy()
        out.energy[part] = v.amax(1).numpy()
        out.touched[part] = touched.any(1).numpy()
        out.numbers[part] = touched.sum(1).numpy()
    return out


def _subnormal(values: torch.Tensor, limits: torch.finfo) -> torch.Tensor:
    return (values != 0) & (values.abs() < limits.smallest_normal)


def signed(parts: list[Moments], units: NDArray[np.int64]) -> torch.Tensor:
    """Return m / sqrt(v) of some units and of evenly spread numbers, at most 2,048 or so, 0 where there is no v."""
    stride = max(1, -(-sum(part.m.shape[1] for part in parts) // _COLUMNS))
    chosen = torch.from_numpy(units)
    found = []
    for part in parts:
        m, v = part.m[:, ::stride][chosen].double(), part.v[:, ::stride][chosen].double()
        found.append(torch.where(v > 0, m / v.sqrt(), 0.0))
    return torch.cat(found, dim=1)
