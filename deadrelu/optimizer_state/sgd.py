"""SGD: the silence of each unit of a layer, dated from its momentum buffer.

Without a gradient the buffer shrinks by the momentum a step. With coupled weight decay it keeps a slow mode, a fixed
multiple of the weights, which is taken off first. A buffer has no clock of its own: a unit whose gradient was always
faint looks like one that fell silent, so that only a silence far out of the range of its layer is claimed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch

from .adam import Found, whole
from .claims import Declined, GradientClaim, LayerSilence
from .fading import Flags, Floats

FAINT = math.log(100)
"""How much fainter than the layer's median the last gradients of a unit may have been, in nats."""

LOUD = math.log(5000)
"""How much larger, in nats: a death in a spike."""

SPREAD = math.log(1e4)
"""How far the living units of a layer may lie apart, in nats. A silent one lies further under their median."""

ALONE = math.log(1e9)
"""The same where too few living units are left to show their spread."""

MOVING = 1e-5
"""The part of its own size by which a unit with a recent gradient moves in a step, at least."""

FAINTEST = 1e-7
"""The part of its own size under which a unit's buffer could not move it at a rate of 1."""

_RESOLUTION = 2.0**-19
_CHUNK = 1 << 20
_FITTED = 4


@dataclass(frozen=True, slots=True, eq=False)
class Buffer:
    """The momentum buffer of one parameter, as (units, numbers per unit).

    Attributes:
        values: the buffer.
        w: the parameter's values.
        momentum: lowest and highest that the group has had.
        slow: buffer / weights in the slow mode that coupled weight decay keeps up; 0 without it.
        lr: learning rate.
    """

    values: torch.Tensor
    w: torch.Tensor
    momentum: tuple[float, float]
    slow: float
    lr: float


def slow_mode(
    lr: float, momentum: float, weight_decay: float, dampening: float = 0.0, nesterov: bool = False
) -> float | None:
    """Return buffer / weights of weights that only weight decay moves, once everything faster is gone.

    None if there is no slow mode: the decay is so strong that the weights swing.

    Source: buf' = mu buf + (1 - d) wd w and w' = w - lr buf' (Nesterov: w - lr (wd w + mu buf')) is a linear map of
    (w, buf); its larger eigenvalue lam solves lam^2 - trace lam + det = 0, and there buf = (1 - d) wd / (lam - mu) w.

    >>> round(slow_mode(0.1, 0.9, 5e-4), 8)  # about wd / (1 - mu)
    0.00502524
    >>> slow_mode(0.1, 0.9, 0.0)
    0.0
    """
    push = (1 - dampening) * weight_decay
    if nesterov:
        trace = 1 - lr * weight_decay - lr * momentum * push + momentum
        determinant = momentum * (1 - lr * weight_decay)
    else:
        trace, determinant = 1 + momentum - lr * push, momentum
    root = trace**2 - 4 * determinant
    larger = (trace + math.sqrt(root)) / 2 if root > 0 else momentum
    return push / (larger - momentum) if larger > momentum else None


def read_buffers(parts: list[Buffer]) -> Found:
    """Return the silence of each unit of a layer, whose weight and bias decay by the same momentum."""
    found = Found()
    measured = [_left(part) for part in parts]
    worn = np.all([w for _, w, _ in measured], axis=0)
    # What is too small to tell from the slow mode says nothing while other numbers of the unit do.
    told = sum(np.where(w, 0.0, square) for square, w, _ in measured)
    size = np.sqrt(np.where(worn, np.min([square for square, _, _ in measured], axis=0), told))
    touched = np.any([t for _, _, t in measured], axis=0)
    slow, fast = (-math.log(mu) for mu in reversed(parts[0].momentum))
    if not touched.any():
        found.layer = LayerSilence("never_gradient", None, None)
        found.declined.append(whole("any momentum left"))
        return found
    with np.errstate(divide="ignore"):
        levels = np.log(size)
    never = _never(parts, touched, found)
    living = touched & (levels >= levels.max() - SPREAD)
    nats = _sunk(levels, touched, living)
    moving = _moving(parts, levels, living)
    if math.exp(float(np.median(levels[living]))) < FAINTEST * _size(parts, living):
        found.layer = LayerSilence("no_gradient", None, None)
        found.declined.append(whole("had a gradient for long: its momentum has faded away"))
    dated = []
    for unit in np.flatnonzero(nats > 0):
        age = float(nats[unit])
        steps, low = round(2 * age / (slow + fast)), int((age - FAINT) / fast)
        high = None if worn[unit] or not moving else math.ceil((age + LOUD) / slow)
        dated.append(
            GradientClaim(
                int(unit), "no_gradient", steps, low, high, None, math.exp(-age), bool(worn[unit]) or not moving
            )
        )
    found.claims = sorted([*never, *dated], key=lambda claim: claim.unit)
    return found


def _moving(parts: list[Buffer], levels: Floats, living: Flags) -> bool:
    """Return whether the units to compare with move at all, or are perhaps as silent, only for less long."""
    return parts[0].lr * math.exp(float(np.median(levels[living]))) > MOVING * _size(parts, living)


def _size(parts: list[Buffer], chosen: Flags) -> float:
    """Return the median norm of some units' parameters."""
    units = torch.from_numpy(np.flatnonzero(chosen))
    return float(np.median(np.sqrt(sum(part.w[units].double().square().sum(1).numpy() for part in parts))))


def _sunk(levels: Floats, touched: Flags, living: Flags) -> Floats:
    """Return how far the silent units lie under the median of the living, in nats; 0 for all others."""
    usual = float(np.median(levels[living]))
    spread = 6 * 1.4826 * float(np.median(np.abs(levels[living] - usual)))
    enough = living.sum() >= max(2, 0.05 * len(levels))
    needed = max(SPREAD, spread) if enough else ALONE
    nats = usual - levels
    return np.where(touched & (nats >= needed), nats, 0.0)


def _never(parts: list[Buffer], touched: Flags, found: Found) -> list[GradientClaim]:
    """Return the units whose buffer is 0 throughout: its age, and how long it has been so, no buffer tells.

    A buffer that shrinks by rounding does not reach 0 while the momentum is over 1/2. On a machine that flushes tiny
    numbers to zero it does, hundreds of steps after the last gradient.
    """
    if touched.all():
        return []
    if parts[0].momentum[0] <= 0.5:
        reason = "a momentum of 1/2 or less rounds to 0 what it remembers: a buffer of zeros tells nothing"
        found.declined.append(Declined("no_memory", reason))
        return []
    return [GradientClaim(int(unit), "never_gradient", None, 0, None, None) for unit in np.flatnonzero(~touched)]


def _left(part: Buffer) -> tuple[Floats, Flags, Flags]:
    """Return per unit the square of what is left of the buffer, if that is too small to tell, and if there is any."""
    units, numbers = part.values.shape
    square, worn, touched = np.zeros(units), np.zeros(units, dtype=bool), np.zeros(units, dtype=bool)
    smallest = float(torch.finfo(part.values.dtype).tiny)
    height = max(1, _CHUNK // max(1, numbers))
    for start in range(0, units, height):
        rows = slice(start, start + height)
        buffer, w = part.values[rows].double(), part.w[rows].double()
        made = _slow_part(part, buffer, w)
        left = (buffer - made).norm(dim=1)
        floor = torch.clamp(max(_RESOLUTION, torch.finfo(part.w.dtype).eps) * made.norm(dim=1), min=smallest)
        touched[rows] = (buffer != 0).any(1).numpy()
        worn[rows] = (left <= floor).numpy()
        square[rows] = torch.where((buffer != 0).any(1), torch.maximum(left, floor).square(), 0.0).numpy()
    return square, worn, touched


def _slow_part(part: Buffer, buffer: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    """Return the part of the buffer that weight decay alone keeps up.

    A learning rate that changes moves the factor a little, alike for all numbers of a silent unit: its own factor is
    fitted where it has enough numbers, and believed where it is near the one that follows from the settings.
    """
    if part.slow == 0:
        return torch.zeros_like(buffer)
    factor = torch.full((len(w), 1), part.slow, dtype=torch.float64)
    if w.shape[1] >= _FITTED:
        own = (buffer * w).sum(1, keepdim=True) / w.square().sum(1, keepdim=True)
        factor = torch.where((own - part.slow).abs() <= 0.3 * part.slow, own, factor)
    return factor * w
