"""Handlers of sums, means, extremes, norms, softmax and pooling."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch

from .calls import Call, Unfollowed
from .enclosure import Enclosure, Tensor, Trail
from .rounding import FUNCTION_ULPS, largest, outward, roundoff, smallest


def _dims(call: Call) -> list[int]:
    """The dimensions that are reduced; all if none is named."""
    ndim = call["self"].ndim
    named = call.get("dim")
    if named is None or (isinstance(named, Sequence) and not len(named)):
        return list(range(ndim))
    dims = [named] if isinstance(named, int) else list(named)
    return [d % ndim for d in dims] if ndim else []


def _kept(call: Call) -> bool:
    return bool(call.get("keepdim", False))


def _added(call: Call, x: Enclosure, scale: float, terms: int, add: object = None) -> Enclosure:
    """Sum over the dimensions, times `scale`: off by at most (terms + 2) u times the sum of absolute values."""
    dims, keep = _dims(call), _kept(call)
    low, high, size = (t.sum(dims, keepdim=keep) if dims else t for t in (x.low, x.high, x.magnitude))
    return summed(call, low * scale, high * scale, size * scale, terms, size > largest(call.dtype))


def summed(call: Call, low: Tensor, high: Tensor, size: Tensor, terms: int, over: Tensor) -> Enclosure:
    """Return bounds of a sum of `terms` numbers of one sign pattern, given real-arithmetic bounds; signs are kept."""
    margin = (terms + 4) * roundoff(call.dtype) * size + smallest(call.dtype) * (size != 0)
    margin = torch.where(margin.isfinite(), margin, 0.0)
    up, down = high + margin, low - margin
    up = torch.where(high <= 0, up.clamp(max=0), up)
    down = torch.where(low >= 0, down.clamp(min=0), down)
    # A sum of numbers of both signs that may overflow may be NaN or infinite.
    wild = over & (low < 0) & (high > 0)
    return Enclosure(torch.where(wild, -torch.inf, down), torch.where(wild, torch.inf, up))


def total(call: Call) -> Enclosure:
    x = call.bounds("self")
    terms = prod(x.low.shape[d] for d in _dims(call))
    if not call.dtype.is_floating_point:
        dims = _dims(call)
        return Enclosure(x.low.sum(dims, keepdim=_kept(call)), x.high.sum(dims, keepdim=_kept(call)))
    return _signs(call, x, _added(call, x, 1.0, terms))


def _signs(call: Call, x: Enclosure, found: Enclosure) -> Enclosure:
    """Of numbers <= 0 the sum is <= 0, and of numbers >= 0 it is >= 0."""
    dims, keep = _dims(call), _kept(call)
    if not dims:
        return found
    low, high = x.low.amin(dims, keepdim=keep), x.high.amax(dims, keepdim=keep)
    return Enclosure(
        torch.where(low >= 0, found.low.clamp(min=0), found.low),
        torch.where(high <= 0, found.high.clamp(max=0), found.high),
    )


def mean(call: Call) -> Enclosure:
    x = call.bounds("self")
    dims = _dims(call)
    terms = prod(x.low.shape[d] for d in dims)
    if not terms:
        raise Unfollowed("it is the mean of nothing")
    found = _signs(call, x, _added(call, x, 1.0 / terms, terms))
    trail = None
    if x.trail is not None and x.trail.step == "square" and dims == [x.low.ndim - 1] and _kept(call):
        trail = Trail("mean", x.trail.source, terms)
    return Enclosure(found.low, found.high, trail=trail)


def cumulated(call: Call) -> Enclosure:
    x, dim = call.bounds("self"), call["dim"]
    if not call.dtype.is_floating_point:
        return Enclosure(x.low.cumsum(dim), x.high.cumsum(dim))
    terms = x.low.shape[dim] if x.low.ndim else 1
    low, high, size = (t.cumsum(dim) for t in (x.low, x.high, x.magnitude))
    return summed(call, low, high, size, terms, size > largest(call.dtype))


def extreme(call: Call) -> tuple[Enclosure | None, ...]:
    """amax, amin, max, min, with the index of it where there is one."""
    x = call.read("self")
    biggest = call.name in ("amax", "max")
    if "other" in call.given:
        raise Unfollowed("it is no reduction")
    dims, keep = _dims(call), _kept(call)
    if not dims:
        return (x,)
    low, high = ((t.amax if biggest else t.amin)(dims, keepdim=keep) for t in (x.low, x.high))
    first = Enclosure(low, high, reason=x.reason)
    if len(call.outs) == 1:
        return (first,)
    return first, _index(call.outs[1], x.low.shape[dims[0]])


def _index(out: Tensor, size: int) -> Enclosure:
    low = torch.zeros(out.shape, dtype=torch.float64, device=out.device)
    return Enclosure(low, low + max(0, size - 1))


def place_of(call: Call) -> Enclosure:
    """argmax, argmin, argsort: some index."""
    dim = call.get("dim")
    size = call["self"].numel() if dim is None else call["self"].shape[dim]
    return _index(call.outs[0], size)


def sorted_values(call: Call) -> tuple[Enclosure, Enclosure]:
    """sort, topk: the k-th largest rises with every entry."""
    x = call.read("self")
    if call.name == "topk":
        if not call["sorted"]:
            raise Unfollowed("its order is unspecified")
        low, high = (t.topk(call["k"], call["dim"], call["largest"])[0] for t in (x.low, x.high))
    else:
        low, high = (t.sort(dim=call["dim"], descending=call["descending"])[0] for t in (x.low, x.high))
    return Enclosure(low, high, reason=x.reason), _index(call.outs[1], x.low.shape[call["dim"]])


def any_of(call: Call) -> Enclosure:
    """any, all: of a mask, its largest or smallest entry."""
    if call["self"].dtype != torch.bool:
        raise Unfollowed("it is no mask")
    x = call.read("self")
    dims, keep = _dims(call), _kept(call)
    if not dims or not x.low.numel():
        raise Unfollowed("it asks about no number")
    if call.name == "any":
        return Enclosure(x.low.amax(dims, keepdim=keep), x.high.amax(dims, keepdim=keep))
    return Enclosure(x.low.amin(dims, keepdim=keep), x.high.amin(dims, keepdim=keep))


def variance(call: Call) -> tuple[Enclosure, ...]:
    """var, std, var_mean: at most a quarter of the squared range, in units of the correction."""
    x = call.bounds("self")
    dims, keep = _dims(call), _kept(call)
    terms = prod(x.low.shape[d] for d in dims)
    correction = call.get("correction")
    left = terms - (1.0 if correction is None else float(correction))
    if left <= 0:
        raise Unfollowed("it is the variance of too few numbers")
    low, high = x.low.amin(dims, keepdim=keep), x.high.amax(dims, keepdim=keep)
    u = (terms + 32) * roundoff(call.dtype)
    spread = (high - low) + 2 * u * torch.maximum(low.abs(), high.abs())
    top = spread.square() / 4 * terms / left * (1 + u) + smallest(call.dtype)
    if call.name.startswith("std"):
        top = top.sqrt() * (1 + u)
    found = Enclosure(torch.zeros_like(top), top)
    return (found, mean_of(call, x, dims, keep, terms)) if len(call.outs) > 1 else (found,)


def mean_of(call: Call, x: Enclosure, dims: list[int], keep: bool, terms: int) -> Enclosure:
    low, high, size = (t.sum(dims, keepdim=keep) / terms for t in (x.low, x.high, x.magnitude))
    return summed(call, low, high, size, terms, size * terms > largest(call.dtype))


def length(call: Call) -> Enclosure:
    """linalg_vector_norm: of order 1, 2 or infinity."""
    x = call.bounds("self")
    order = float(call["ord"])
    dims, keep = _dims(call), _kept(call)
    terms = prod(x.low.shape[d] for d in dims)
    inside = torch.where((x.low <= 0) & (x.high >= 0), 0.0, torch.minimum(x.low.abs(), x.high.abs()))
    if order == 2:
        low, high = (t.square().sum(dims, keepdim=keep).sqrt() for t in (inside, x.magnitude))
    elif order == 1:
        low, high = (t.sum(dims, keepdim=keep) for t in (inside, x.magnitude))
    elif order == torch.inf:
        low, high = (t.amax(dims, keepdim=keep) for t in (inside, x.magnitude))
    else:
        raise Unfollowed(f"its order is {order}")
    floor = terms**0.5 * smallest(call.dtype) ** 0.5  # squares may be flushed to zero
    low, high = outward(low, high, call.dtype, 2.0 * (terms + 8))
    return Enclosure((low - floor).clamp(min=0), high + floor)


def softmax(call: Call) -> Enclosure:
    """exp(x_i) / sum of exp(x_j): largest where x_i is high and all others are low."""
    x, dim = call.bounds("self"), call["dim"]
    n = x.low.shape[dim] if x.low.ndim else 1
    sure = x.high.isfinite().all()
    ceiling = 1.0 + 8 * roundoff(call.dtype)
    if not bool(sure):
        return Enclosure(torch.zeros_like(x.low), torch.full_like(x.high, ceiling))
    others_low, others_high = _others(x.low, dim), _others(x.high, dim)
    low, high = (x.low - others_high).sigmoid().nan_to_num(0.0), (x.high - others_low).sigmoid().nan_to_num(1.0)
    # exp is off by a few roundoffs of its value and of its argument, which is over -110 where it is not zero
    step = (2 * (n + 16) + 240) * roundoff(call.dtype) + 8 * roundoff(torch.float64) * (1 + float(x.high.abs().max()))
    low, high = low * (1 - step) - smallest(call.dtype), high * (1 + step) + smallest(call.dtype)
    return Enclosure(low.clamp(min=0), high.clamp(max=ceiling))


def _others(t: Tensor, dim: int) -> Tensor:
    """log of the sum of exp of all other entries, added up from both sides: a difference would cancel."""
    if not t.ndim:
        return torch.full_like(t, -torch.inf)
    n = t.shape[dim]
    nothing = torch.full_like(t.narrow(dim, 0, 1), -torch.inf)
    before = torch.cat((nothing, t.narrow(dim, 0, n - 1).logcumsumexp(dim)), dim)
    after = torch.cat((t.narrow(dim, 1, n - 1).flip(dim).logcumsumexp(dim).flip(dim), nothing), dim)
    return torch.logaddexp(before, after)


def pooled_maximum(call: Call) -> tuple[Enclosure | None, ...]:
    """max_pool*_with_indices, adaptive_max_pool*: the same pooling of both bounds."""
    x = call.read("self")
    settings = {key: value for key, value in call.given.items() if key not in ("self", "out", "indices")}
    function = getattr(torch.ops.aten, call.name)

    def pooled(bound: Tensor) -> Tensor:
        got = function(bound.contiguous(), **settings)
        result: Tensor = got[0] if isinstance(got, tuple) else got
        return result

    # Infinities are ordered like numbers, but a window of padding alone has none: that would be an error of the model.
    return Enclosure(pooled(x.low), pooled(x.high), reason=x.reason), None


def pooled_mean(call: Call) -> Enclosure:
    """avg_pool*, adaptive_avg_pool*, interpolation: means with weights >= 0, which rise with every entry."""
    x = call.bounds("self")
    settings = {key: value for key, value in call.given.items() if key not in ("self", "out")}
    if (settings.get("divisor_override") or 1) < 0:
        raise Unfollowed("it divides by a negative number")
    function = getattr(torch.ops.aten, call.name)

    def pooled(bound: Tensor) -> Tensor:
        result: Tensor = function(bound.contiguous(), **settings)
        return result

    unknown_low, unknown_high = x.low.isinf(), x.high.isinf()
    low, high, size = (
        pooled(torch.where(t.isfinite(), t, 0.0)) for t in (x.low, x.high, x.magnitude.nan_to_num(posinf=0.0))
    )
    low = torch.where(pooled(unknown_low.double()) > 0, -torch.inf, low)
    high = torch.where(pooled(unknown_high.double()) > 0, torch.inf, high)
    terms = x.low[0, 0].numel() if x.low.ndim > 2 else x.low.numel()
    kernel = settings.get("kernel_size")
    if isinstance(kernel, Sequence):
        terms = prod(kernel) ** (3 if len(kernel) == 1 else 1)
    return summed(call, low, high, size, terms, size > largest(call.dtype))


def interpolated(call: Call) -> Enclosure:
    """upsample_linear, bilinear, trilinear: means of at most eight neighbours; their places are rounded too."""
    found = pooled_mean(call)
    x = call.bounds("self")
    low, high = x.low.amin(), x.high.amax()
    if not bool(low.isfinite() and high.isfinite()):
        raise Unfollowed("its input is unbounded")
    span = (high - low) * 64 * max(call["self"].shape[2:]) * roundoff(torch.float32)
    return Enclosure((found.low - span).clamp(min=float(low - span)), found.high + span)


def logsumexp(call: Call) -> Enclosure:
    x = call.bounds("self")
    dims, keep = _dims(call), _kept(call)
    low, high = (t.logsumexp(dims, keepdim=keep) for t in (x.low, x.high))
    n = prod(x.low.shape[d] for d in dims)
    step = (2 * n + 4 * FUNCTION_ULPS) * roundoff(call.dtype)
    size = x.magnitude.nan_to_num(posinf=0.0).amax(dims, keepdim=keep) + 1.0
    return Enclosure(*outward(low - step * size, high + step * size, call.dtype))
