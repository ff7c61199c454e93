"""Handlers of functions of one number: every activation, and the like.

Each is continuous and monotone between its turns, so that its range over an interval is between its values at the
ends and at the turns inside. The function itself, in float64, gives those values.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from .calls import Call, Unfollowed
from .enclosure import Enclosure, Tensor, hull
from .rounding import FUNCTION_ULPS, outward, roundoff

GELU_TURN, GELU_TANH_TURN = -0.7517915246935645, -0.752461422071016
SILU_TURN, MISH_TURN, HARDSWISH_TURN = -1.2784645427610738, -1.1924312145154885, -1.5
EXACT = 0.0


def curve(
    turns: tuple[float, ...] = (), ulps: float = FUNCTION_ULPS, *, at_infinity: float | None = None
) -> Callable[[Call], Enclosure]:
    """Return the handler of a function with these turns.

    Args:
        turns: where it stops to rise or to fall.
        ulps: roundoffs granted, of the value and of the argument; 0 for functions that copy or compare.
        at_infinity: its limit where float64 arithmetic gives NaN for an infinite argument.
    """

    def handler(call: Call) -> Enclosure:
        x = call.bounds("self")
        rest = {key: value for key, value in call.given.items() if key not in ("self", "out", "output", "buffer")}
        if any(isinstance(value, Tensor) for value in rest.values()):
            raise Unfollowed("one of its settings is a tensor")
        function = getattr(torch.ops.aten, call.name)
        points = [x.low, x.high, *(torch.full_like(x.low, turn).clamp(x.low, x.high) for turn in turns)]
        parts = []
        for point in points:
            value = function(point, **rest)
            value = value[0] if isinstance(value, tuple) else value
            if at_infinity is not None:
                value = torch.where(point.isinf() & value.isnan(), at_infinity, value)
            parts.append((value, value))
        found = hull(*parts)  # a NaN that is left makes both bounds NaN, which says "anything"
        if ulps == EXACT:
            return found
        return _granted(call, x, found, ulps)

    return handler


def _granted(call: Call, x: Enclosure, found: Enclosure, ulps: float) -> Enclosure:
    """Bounds with what the arithmetic of a formula may add: relative to its value, and to its argument.

    x (1 + erf(x / sqrt 2)) / 2 cancels for negative x: what is lost is relative to x, as long as it matters.
    """
    step = ulps * roundoff(working(call.dtype))
    reach = x.magnitude.clamp(max=128.0) + 2.0
    low = found.low - step * (reach + found.low.abs().nan_to_num(posinf=0.0))
    high = found.high + step * (reach + found.high.abs().nan_to_num(posinf=0.0))
    low, high = outward(low, high, call.dtype)
    floor, ceiling = _RANGES.get(call.name, (-math.inf, math.inf)) if call.get("beta", 1) > 0 else (-math.inf, math.inf)
    return Enclosure(low.clamp(min=floor), high.clamp(max=ceiling))


def working(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype in which functions of `dtype` are computed: half precision goes through float32."""
    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype


_RANGES = {
    # Bounds that no arithmetic passes by more than a rounding: values of exp are >= 0, and so on.
    "sigmoid": (0.0, math.inf),
    "exp": (0.0, math.inf),
    "softplus": (0.0, math.inf),
    "log_sigmoid_forward": (-math.inf, 0.0),
}


def hard_tanh(call: Call) -> Enclosure:
    """x cut off at both ends, which are compared in the dtype of x."""
    x, floor, ceiling = call.bounds("self"), call.bounds("min_val"), call.bounds("max_val")
    low, high = torch.maximum(x.low, floor.low), torch.maximum(x.high, floor.high)
    return Enclosure(torch.minimum(low, ceiling.low), torch.minimum(high, ceiling.high))


def hard_shrink(call: Call) -> Enclosure:
    """x where |x| > lambd, else 0."""
    if float(call["lambd"]) < 0:
        raise Unfollowed("its bound is negative")
    x, bound = call.bounds("self"), call.bounds("lambd")
    low = torch.where((x.low > bound.high) | (x.low < -bound.low), x.low, 0.0)
    return Enclosure(low, torch.where((x.high > bound.low) | (x.high < -bound.high), x.high, 0.0))


def soft_shrink(call: Call) -> Enclosure:
    """x - lambd where x > lambd, x + lambd where x < -lambd, else 0."""
    if float(call["lambd"]) < 0:
        raise Unfollowed("its bound is negative")
    x, bound = call.bounds("self"), call.bounds("lambd")
    low = (x.low - bound.high).clamp(min=0) + (x.low + bound.low).clamp(max=0)
    high = (x.high - bound.low).clamp(min=0) + (x.high + bound.high).clamp(max=0)
    return Enclosure(*outward(low, high, call.dtype, 4.0))


def threshold(call: Call) -> Enclosure:
    """x where x > threshold, else value."""
    x, bound, value = call.bounds("self"), call.bounds("threshold"), call.bounds("value")
    under, over = x.low <= bound.high, x.high > bound.low
    low = torch.where(over, torch.where(under, torch.maximum(x.low, bound.low), x.low), torch.inf)
    high = torch.where(over, x.high, -torch.inf)
    return Enclosure(
        torch.where(under, torch.minimum(low, value.low), low),
        torch.where(under, torch.maximum(high, value.high), high),
    )


def leaky_relu(call: Call) -> Enclosure:
    return _leaky(call, call.bounds("self"), call.bounds("negative_slope"))


def prelu(call: Call) -> Enclosure:
    return _leaky(call, call.bounds("self"), call.bounds("weight"))


def rrelu(call: Call) -> Enclosure:
    if call["training"]:
        raise Unfollowed("its slope is drawn at random")
    lower, upper = float(call["lower"]), float(call["upper"])
    slope = torch.tensor((lower + upper) / 2, dtype=torch.float64, device=call.outs[0].device)
    return _leaky(call, call.bounds("self"), Enclosure(*outward(slope, slope, call.dtype, 8.0)))


def _leaky(call: Call, x: Enclosure, slope: Enclosure) -> Enclosure:
    """x where x > 0, else slope x."""
    negative = (x.low.clamp(max=0), x.high.clamp(max=0))
    ends = [(n * s).nan_to_num(0.0, torch.inf, -torch.inf) for n in negative for s in (slope.low, slope.high)]
    found = hull(*((end, end) for end in ends))
    low, high = outward(found.low, found.high, call.dtype)
    # Where x is positive throughout, the negative side is not reached.
    low = torch.where(x.low > 0, x.low, low)
    return Enclosure(low, torch.where(x.high > 0, torch.where(x.low > 0, x.high, torch.maximum(high, x.high)), high))


def glu(call: Call) -> Enclosure:
    """First half times the sigmoid of the second."""
    x, dim = call.bounds("self"), call["dim"]
    (a_low, gate_low), (a_high, gate_high) = x.low.chunk(2, dim), x.high.chunk(2, dim)
    step = FUNCTION_ULPS * roundoff(working(call.dtype))
    low, high = (gate_low.sigmoid() - step).clamp(min=0), gate_high.sigmoid() + step
    ends = [(a * g).nan_to_num(0.0, torch.inf, -torch.inf) for a in (a_low, a_high) for g in (low, high)]
    found = hull(*((end, end) for end in ends))
    return Enclosure(*outward(found.low, found.high, call.dtype, 4.0))


def bounded_wave(call: Call) -> Enclosure:
    """sin, cos."""
    one = torch.ones_like(call.bounds("self").low) * (1.0 + 4.0 * roundoff(call.dtype))
    return Enclosure(-one, one)


def logarithm(call: Call) -> Enclosure:
    x = call.bounds("self")
    function = getattr(torch.ops.aten, call.name)
    low, high = function(x.low.clamp(min=0)), function(x.high.clamp(min=0))
    step = FUNCTION_ULPS * roundoff(working(call.dtype))
    tiny = x.low <= torch.finfo(call.dtype).tiny
    low = torch.where(tiny, -torch.inf, low)
    low = low - step * (1 + low.abs().nan_to_num(posinf=0.0))
    return Enclosure(*outward(low, high + step * (1 + high.abs().nan_to_num(posinf=0.0)), call.dtype))


def square_root(call: Call) -> Enclosure:
    x = call.bounds("self")
    return Enclosure(*outward(x.low.clamp(min=0).sqrt(), x.high.clamp(min=0).sqrt(), call.dtype, 4.0))


def gelu(call: Call) -> Enclosure:
    turn = GELU_TANH_TURN if call["approximate"] == "tanh" else GELU_TURN
    return curve((turn,), at_infinity=0.0)(call)
