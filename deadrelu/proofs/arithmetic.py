"""Handlers of elementwise arithmetic, comparisons and choices."""

from __future__ import annotations

from dataclasses import replace

import torch

from .calls import Call, Unfollowed
from .calls import cast as cast_bounds
from .enclosure import Ball, Enclosure, Tensor, Trail, hull
from .rounding import outward


def _rounded(call: Call, low: Tensor, high: Tensor, ulps: float = 2.0) -> Enclosure:
    return Enclosure(*outward(low, high, call.dtype, ulps))


def _product(a: Enclosure, b: Enclosure) -> tuple[Tensor, Tensor]:
    """The extremes of a product are at the ends; an unknown factor times an exact zero is zero, or NaN."""
    ends = [(x * y).nan_to_num(0.0, torch.inf, -torch.inf) for x in (a.low, a.high) for y in (b.low, b.high)]
    low, high = ends[0], ends[0]
    for end in ends[1:]:
        low, high = torch.minimum(low, end), torch.maximum(high, end)
    return low, high


def _sum(call: Call, a: Enclosure, b: Enclosure, sign: float) -> Enclosure:
    """a + alpha b; what is NaN of infinities has no bound."""
    alpha = call.get("alpha", 1)
    if alpha != 1:
        scaled = call.within(alpha)
        b = Enclosure(*outward(*_product(b, scaled), call.dtype))
    if sign < 0:
        b = Enclosure(-b.high, -b.low)
    return _rounded(call, a.low + b.low, a.high + b.high)


def add(call: Call) -> Enclosure:
    a, b = call.bounds("self"), call.bounds("other")
    found = _sum(call, a, b, 1.0)
    return replace(found, ball=_moved(call, a, b), trail=_with_eps(a, b))


def _moved(call: Call, a: Enclosure, b: Enclosure) -> Ball | None:
    """A norm's output plus a constant row."""
    for one, other in ((a, b), (b, a)):
        if one.ball is not None and call.get("alpha", 1) == 1 and _is_row(other, one.ball, call):
            return replace(one.ball, shift=one.ball.shift + other.low.reshape(-1))
    return None


def _is_row(found: Enclosure, ball: Ball, call: Call) -> bool:
    d = len(ball.scale)
    rows = found.low.numel() == 1 or (found.low.numel() == d and found.low.shape[-1] == d)
    return rows and found.point and tuple(call.shape[-1:]) == (d,)


def _with_eps(a: Enclosure, b: Enclosure) -> Trail | None:
    for one, other in ((a, b), (b, a)):
        if one.trail is not None and one.trail.step == "mean" and other.low.numel() == 1 and bool(other.low >= 0):
            return replace(one.trail, eps=one.trail.eps + float(other.low))
    return None


def sub(call: Call) -> Enclosure:
    return _sum(call, call.bounds("self"), call.bounds("other"), -1.0)


def rsub(call: Call) -> Enclosure:
    return _sum(call, call.bounds("other"), call.bounds("self"), -1.0)


def mul(call: Call) -> Enclosure:
    a, b = call.bounds("self"), call.bounds("other")
    same = call.source("self")
    if same is not None and same == call.source("other"):
        return square(call)
    found = _rounded(call, *_product(a, b))
    ball = _normalised(call, a, b) or _normalised(call, b, a, turned=True) or _scaled(call, a, b)
    if ball is None:
        return found
    reach = ball.radius * ball.scale.abs()
    low, high = outward(ball.shift - reach, ball.shift + reach, call.dtype, 8.0)
    return Enclosure(torch.maximum(found.low, low), torch.minimum(found.high, high), ball=ball)


def _normalised(call: Call, a: Enclosure, b: Enclosure, *, turned: bool = False) -> Ball | None:
    """x times 1 / sqrt(mean(x^2) + eps): rows of norm under sqrt(d), whatever x is (Zhang & Sennrich 2019)."""
    trail = b.trail
    if trail is None or trail.step != "inverse" or trail.eps <= 0 or trail.source is None:
        return None
    if trail.source != call.source("other" if turned else "self") or call.shape[-1] != trail.size:
        return None
    if b.low.shape != (*a.low.shape[:-1], 1):
        return None
    d = trail.size
    slack = 1.0 + 4.0 * (d + 16) * torch.finfo(call.dtype).eps
    ones = torch.ones(d, dtype=torch.float64, device=a.low.device)
    return Ball(ones, 0.0 * ones, d**0.5 * slack, centred=False)


def _scaled(call: Call, a: Enclosure, b: Enclosure) -> Ball | None:
    for one, other in ((a, b), (b, a)):
        if one.ball is not None and _is_row(other, one.ball, call):
            row = other.low.reshape(-1)
            return replace(one.ball, scale=one.ball.scale * row, shift=one.ball.shift * row)
    return None


def square(call: Call) -> Enclosure:
    x = call.bounds("self")
    inside = torch.where((x.low <= 0) & (x.high >= 0), 0.0, torch.minimum(x.low.abs(), x.high.abs()))
    found = _rounded(call, inside.square(), x.magnitude.square())
    return replace(found, trail=Trail("square", call.source("self")))


def power(call: Call) -> Enclosure:
    """x ** p for a number p."""
    p = call["exponent"]
    if isinstance(p, Tensor):
        raise Unfollowed("its exponent is a tensor")
    if not isinstance(call["self"], Tensor):
        raise Unfollowed("its base is a number")
    if p == 2:
        return square(call)
    if p == 1:
        return call.bounds("self")
    if p == 0:
        raise Unfollowed("its power is 0")
    x = call.bounds("self")
    whole = float(p).is_integer() and p > 0
    if whole:
        parts = [(x.low**p, x.low**p), (x.high**p, x.high**p)]
        if p % 2 == 0:
            middle = torch.zeros_like(x.low).clamp(min=x.low, max=x.high)
            parts.append((middle**p, middle**p))
    elif p > 0:
        parts = [(e.clamp(min=0) ** p, e.clamp(min=0) ** p) for e in (x.low, x.high)]
    else:
        if bool((x.low <= 0).any()):
            raise Unfollowed("a negative power of what may be zero")
        parts = [(e**p, e**p) for e in (x.low, x.high)]
    found = hull(*parts)
    return _rounded(call, found.low, found.high, 64.0)


def div(call: Call) -> Enclosure:
    if call.get("rounding_mode") is not None:
        raise Unfollowed("it rounds its quotient")
    a, b = call.bounds("self"), call.bounds("other")
    away = (b.low > 0) | (b.high < 0)
    # 1/b of what may be flushed to zero has no bound either
    away &= torch.minimum(b.low.abs(), b.high.abs()) > torch.finfo(call.dtype).tiny
    inverse = Enclosure(torch.where(away, 1.0 / b.high, -torch.inf), torch.where(away, 1.0 / b.low, torch.inf))
    low, high = _product(a, inverse)
    unknown = ~away
    low, high = torch.where(unknown, -torch.inf, low), torch.where(unknown, torch.inf, high)
    return _rounded(call, low, high, 4.0)


def reciprocal(call: Call) -> Enclosure:
    x = call.bounds("self")
    away = ((x.low > 0) | (x.high < 0)) & (torch.minimum(x.low.abs(), x.high.abs()) > torch.finfo(call.dtype).tiny)
    return _rounded(call, torch.where(away, 1.0 / x.high, -torch.inf), torch.where(away, 1.0 / x.low, torch.inf), 4.0)


def rsqrt(call: Call) -> Enclosure:
    x = call.bounds("self")
    high = torch.where(x.low > torch.finfo(call.dtype).tiny, x.low, 0.0) ** -0.5
    found = _rounded(call, x.high.clamp(min=0) ** -0.5, high, 64.0)
    return replace(found, trail=_inverted(x))


def _inverted(x: Enclosure) -> Trail | None:
    return replace(x.trail, step="inverse") if x.trail is not None and x.trail.step == "mean" else None


def addcmul(call: Call) -> Enclosure:
    a, x, y = call.bounds("self"), call.bounds("tensor1"), call.bounds("tensor2")
    low, high = outward(*_product(x, y), call.dtype, 4.0)
    low, high = outward(*_product(Enclosure(low, high), call.within(call["value"])), call.dtype, 4.0)
    return _rounded(call, a.low + low, a.high + high)


def maximum(call: Call) -> Enclosure:
    a, b = call.bounds("self"), call.bounds("other")
    return Enclosure(torch.maximum(a.low, b.low), torch.maximum(a.high, b.high))


def minimum(call: Call) -> Enclosure:
    a, b = call.bounds("self"), call.bounds("other")
    return Enclosure(torch.minimum(a.low, b.low), torch.minimum(a.high, b.high))


def clamp(call: Call) -> Enclosure:
    """clamp, clamp_min, clamp_max: a bound may be a number or a tensor; the upper one wins."""
    x = call.bounds("self")
    low, high = x.low, x.high
    if call.get("min") is not None:
        floor = call.bounds("min")
        low, high = torch.maximum(low, floor.low), torch.maximum(high, floor.high)
    if call.get("max") is not None:
        ceiling = call.bounds("max")
        low, high = torch.minimum(low, ceiling.low), torch.minimum(high, ceiling.high)
    return Enclosure(low, high)


def _either(mask: Enclosure, yes: Enclosure, no: Enclosure) -> Enclosure:
    """Where the mask is sure, one of the two; else both."""
    low = torch.where(mask.low > 0, yes.low, torch.where(mask.high <= 0, no.low, torch.minimum(yes.low, no.low)))
    high = torch.where(mask.low > 0, yes.high, torch.where(mask.high <= 0, no.high, torch.maximum(yes.high, no.high)))
    return Enclosure(low, high)


def where(call: Call) -> Enclosure:
    return _either(call.read("condition"), call.bounds("self"), call.bounds("other"))


def masked_fill(call: Call) -> Enclosure:
    return _either(call.read("mask"), call.bounds("value"), call.bounds("self"))


def _truth(sure: Tensor, never: Tensor, *operands: Enclosure) -> Enclosure:
    """A comparison of NaN is false, and what has no bound may be NaN."""
    known = sure & False
    for x in operands:
        known = known | ~(x.low.isfinite() & x.high.isfinite())
    known = ~known
    return Enclosure((sure & known).double(), (~(never & known)).double())


def _compared(call: Call) -> tuple[Enclosure, Enclosure]:
    """Both sides as they are; a number is compared as it is in the tensor's dtype."""
    a = call["self"]
    b = call["other"]
    left = call.read("self")
    if not a.is_floating_point() and (isinstance(b, float) or (isinstance(b, Tensor) and b.is_floating_point())):
        left = cast_bounds(left, a.dtype, torch.get_default_dtype() if isinstance(b, float) else b.dtype)
    if isinstance(b, Tensor):
        right = call.read("other")
        # Promotion may round the finer of the two first.
        if a.dtype != b.dtype and a.is_floating_point() and b.is_floating_point():
            coarse = max((a.dtype, b.dtype), key=lambda t: torch.finfo(t).eps)
            left, right = cast_bounds(left, a.dtype, coarse), cast_bounds(right, b.dtype, coarse)
        return left, right
    exact = torch.tensor(float(b), dtype=torch.float64, device=a.device)
    stored = exact.to(a.dtype).double() if a.dtype.is_floating_point else exact
    return left, Enclosure(torch.minimum(exact, stored), torch.maximum(exact, stored))


def less(call: Call) -> Enclosure:
    a, b = _compared(call)
    return _truth(a.high < b.low, a.low >= b.high, a, b)


def greater(call: Call) -> Enclosure:
    a, b = _compared(call)
    return _truth(a.low > b.high, a.high <= b.low, a, b)


def less_equal(call: Call) -> Enclosure:
    a, b = _compared(call)
    return _truth(a.high <= b.low, a.low > b.high, a, b)


def greater_equal(call: Call) -> Enclosure:
    a, b = _compared(call)
    return _truth(a.low >= b.high, a.high < b.low, a, b)


def equal(call: Call) -> Enclosure:
    a, b = _compared(call)
    return _truth((a.low == a.high) & (b.low == b.high) & (a.low == b.low), (a.high < b.low) | (a.low > b.high), a, b)


def unequal(call: Call) -> Enclosure:
    found = equal(call)
    return Enclosure(1.0 - found.high, 1.0 - found.low)


def logical_not(call: Call) -> Enclosure:
    if call["self"].dtype != torch.bool:
        raise Unfollowed("it is no mask")
    x = call.read("self")
    return Enclosure(1.0 - x.high, 1.0 - x.low)


def logical_and(call: Call) -> Enclosure:
    a, b = _masks(call)
    return Enclosure(torch.minimum(a.low, b.low), torch.minimum(a.high, b.high))


def logical_or(call: Call) -> Enclosure:
    a, b = _masks(call)
    return Enclosure(torch.maximum(a.low, b.low), torch.maximum(a.high, b.high))


def _masks(call: Call) -> tuple[Enclosure, Enclosure]:
    if any(getattr(call[key], "dtype", None) != torch.bool for key in ("self", "other")):
        raise Unfollowed("it is no mask")
    return call.read("self"), call.read("other")


def not_a_number(call: Call) -> Enclosure:
    """isnan, isinf: never so within bounds."""
    x = call.read("self")
    maybe = (~(x.low.isfinite() & x.high.isfinite())).double()
    return Enclosure(torch.zeros_like(maybe), maybe)


def numbers_only(call: Call) -> Enclosure:
    """nan_to_num: what is bounded stays as it is."""
    x = call.bounds("self")
    if not x.bounded:
        raise Unfollowed("its input is unbounded")
    return Enclosure(x.low, x.high)


def copy(call: Call) -> Enclosure:
    """copy_: the source, as it is in the target's dtype."""
    source = call["src"]
    if not call.dtype.is_floating_point and source.is_floating_point():
        raise Unfollowed("it turns real numbers into whole ones")
    found = call.bounds("src")
    shape = call.shape
    return replace(found, low=found.low.expand(shape), high=found.high.expand(shape))


def converted(call: Call) -> Enclosure:
    """clone, _to_copy: the same numbers in another dtype."""
    x = call["self"]
    if call.dtype == torch.bool and x.dtype != torch.bool:
        found = call.read("self")
        zero = (found.low == 0) & (found.high == 0)
        sure = (found.low > 0) | (found.high < 0)
        return Enclosure((sure & found.low.isfinite() & found.high.isfinite()).double(), (~zero).double())
    if not call.dtype.is_floating_point and x.is_floating_point():
        found = call.read("self")
        return Enclosure(found.low.trunc(), found.high.trunc(), reason=found.reason)
    found = call.bounds("self")
    return replace(found, trail=None)
