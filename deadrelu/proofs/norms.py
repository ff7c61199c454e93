"""Handlers of norms.

(a sd + delta) / sqrt(sd^2 + eps) <= sqrt(a^2 + delta^2 / eps), with a = sqrt(m - 1) the largest deviation of m numbers
in units of their standard deviation (Samuelson 1968) and delta what the mean is rounded by: so a norm of numbers that
are bounded is bounded by about sqrt(m - 1), also where their spread is as small as their rounding. Of numbers without
a bound it is not: in floating point the mean of 1e30 is off by more than any deviation.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod, sqrt

import torch

from .calls import Call, Unfollowed
from .enclosure import Ball, Enclosure, Tensor
from .rounding import outward, roundoff


@dataclass(frozen=True, slots=True)
class Normal:
    """Bounds of normalised numbers.

    Attributes:
        reach: float64, no entry is larger than this.
        stretch: by what factor their length may exceed sqrt(m).
        drift: what the rounding of the mean adds to all of them.
    """

    reach: Tensor
    stretch: Tensor
    drift: Tensor


def normalised(size: int, magnitude: Tensor, eps: float, dtype: torch.dtype) -> Normal:
    """Return bounds of `size` numbers <= `magnitude`, minus their mean, over the root of their variance plus eps."""
    u = roundoff(dtype)
    delta = (size + 8) * u * magnitude
    drift = delta / sqrt(eps) if eps > 0 else torch.full_like(delta, torch.inf)
    slack = 1.0 + (size + 32) * u  # of the variance and its root
    reach = (size - 1 + drift.square()).sqrt() * slack
    return Normal(reach, (1 + drift.square()).sqrt() * slack, drift * slack)


def _affine(call: Call, reach: Tensor, weight: Tensor | None, bias: Tensor | None) -> tuple[Tensor, Tensor]:
    """+-reach * |weight| + bias, rounded."""
    spread = reach if weight is None else reach * weight.abs()
    spread = spread.nan_to_num(0.0, torch.inf) if weight is not None else spread
    shift = torch.zeros_like(spread) if bias is None else bias
    low, high = shift - spread, shift + spread
    step = 4 * roundoff(call.dtype) * (spread + shift.abs())
    step = torch.where(spread == 0, 0.0, step)
    return outward(low - step, high + step, call.dtype)


def layer_norm(call: Call) -> Enclosure:
    """native_layer_norm; over one dimension the rows also lie in a ball, which the next linear layer makes use of."""
    shape = call["normalized_shape"]
    x = call.bounds("input")
    weight, bias = (None if call[key] is None else call.needed(key) for key in ("weight", "bias"))
    size = prod(shape)
    dims = list(range(-len(shape), 0))
    normal = normalised(size, x.magnitude.amax(dims, keepdim=True), float(call["eps"]), call.dtype)
    low, high = _affine(call, normal.reach.expand(call.shape), weight, bias)
    ball = None
    stretch = float(normal.stretch.max())
    if len(shape) == 1 and stretch < torch.inf:
        scale = torch.ones(size, dtype=torch.float64, device=low.device) if weight is None else weight
        shift = 0.0 * scale if bias is None else bias
        ball = Ball(scale, shift, sqrt(size) * stretch, centred=True, drift=float(normal.drift.max()))
    return Enclosure(low, high, ball=ball, reason=x.reason)


def group_norm(call: Call) -> Enclosure:
    """native_group_norm: over the channels of a group and all positions of one sample."""
    x = call.bounds("input")
    weight, bias = (None if call[key] is None else call.needed(key) for key in ("weight", "bias"))
    n, channels, rest, groups = (int(call[key]) for key in ("N", "C", "HxW", "group"))
    size = channels // groups * rest
    magnitude = x.magnitude.reshape(n, groups, size).amax(2)
    normal = normalised(size, magnitude, float(call["eps"]), call.dtype)
    reach = normal.reach.repeat_interleave(channels // groups, 1)
    reach = reach.view(n, channels, *(1,) * (len(call.shape) - 2)).expand(call.shape)
    return Enclosure(*_affine(call, reach, _per_channel(call, weight), _per_channel(call, bias)), reason=x.reason)


def batch_norm(call: Call) -> Enclosure:
    """native_batch_norm and its kin: with running statistics, a line per channel; else over batch and positions."""
    weight, bias = (None if call[key] is None else call.needed(key) for key in ("weight", "bias"))
    x = call.bounds("input")
    eps = float(call["eps"] if "eps" in call.given else call["epsilon"])
    if call.get("training", False):
        size = call["input"].numel() // max(1, call.shape[1])
        dims = [i for i in range(len(call.shape)) if i != 1]
        normal = normalised(size, x.magnitude.amax(dims, keepdim=True), eps, call.dtype)
        reach = normal.reach.expand(call.shape)
        return Enclosure(*_affine(call, reach, _per_channel(call, weight), _per_channel(call, bias)), reason=x.reason)
    if call["running_mean"] is None or call["running_var"] is None:
        raise Unfollowed("it has no running statistics")
    mean, var = call.needed("running_mean"), call.needed("running_var")
    scale = (var + eps).rsqrt()
    if weight is not None:
        scale = scale * weight
    shift = -mean * scale if bias is None else bias - mean * scale
    size = (mean * scale).abs() if bias is None else (mean * scale).abs() + bias.abs()
    scale, shift, size = (_column(call, value) for value in (scale, shift, size))
    ends = [(e * scale).nan_to_num(0.0, torch.inf, -torch.inf) for e in (x.low, x.high)]
    low, high = torch.minimum(*ends), torch.maximum(*ends)
    step = 12 * roundoff(call.dtype)
    down, up = low + shift - step * (low.abs() + size), high + shift + step * (high.abs() + size)
    return Enclosure(*outward(down, up, call.dtype), reason=x.reason)


def _per_channel(call: Call, value: Tensor | None) -> Tensor | None:
    return None if value is None else _column(call, value)


def _column(call: Call, value: Tensor) -> Tensor:
    return value.view(-1, *(1,) * (len(call.shape) - 2))
