"""Handlers of sums of products: linear layers, convolutions, products of matrices, attention."""

from __future__ import annotations

from collections.abc import Callable
from math import prod

import torch

from .calls import Call, Unfollowed
from .enclosure import Ball, Enclosure, Tensor
from .rounding import largest, outward, product_error, roundoff, smallest

Product = Callable[[Tensor, Tensor], Tensor]


def weighted(call: Call, product: Product, x: Enclosure, w: Tensor, terms: int, bias: Enclosure | None) -> Enclosure:
    """Return bounds of product(x, w) + bias for constant w: W+ u + W- l + b, widened by 2 (terms + 2) u sum |w| |x|.

    `product` is bilinear, with `terms` products in each entry of its result.
    """
    low, high = _finite(x.low), _finite(x.high)
    middle, half = (low + high) / 2, (high - low) / 2
    centre, reach = product(middle, w), product(half, w.abs())
    size = product(torch.maximum(low.abs(), high.abs()), w.abs())
    bottom, top = centre - reach, centre + reach
    some = size != 0  # a bias plus zeros is exact
    if bias is not None:
        bottom, top, size = bottom + bias.low, top + bias.high, size + bias.magnitude
    margin = some * ((terms + 2) * (roundoff(call.dtype) * size + smallest(call.dtype)) + _coarse(call) * size)
    bottom, top = bottom - margin, top + margin
    bottom, top = _infinite(product, x, w, bottom, top)
    # No partial sum may overflow: size bounds them all.
    over = size * (1 + (terms + 2) * roundoff(call.dtype)) > largest(call.dtype)
    bottom, top = torch.where(over, -torch.inf, bottom), torch.where(over, torch.inf, top)
    return Enclosure(*_signed(product, x, w, bias, bottom, top, ~over, margin))


def _coarse(call: Call) -> float:
    return product_error(call.dtype, call.outs[0].device)


def _finite(bound: Tensor) -> Tensor:
    return torch.where(bound.isfinite(), bound, 0.0)


def _infinite(product: Product, x: Enclosure, w: Tensor, bottom: Tensor, top: Tensor) -> tuple[Tensor, Tensor]:
    """A factor without a bound takes the bound of every sum that it enters with a weight that is not zero."""
    up, down = x.high.isinf(), x.low.isinf()
    if not bool(up.any() or down.any()):
        return bottom, top
    positive, negative = (w > 0).float(), (w < 0).float()
    rises = product(up.float(), positive) + product(down.float(), negative)
    falls = product(down.float(), positive) + product(up.float(), negative)
    return torch.where(falls > 0, -torch.inf, bottom), torch.where(rises > 0, torch.inf, top)


def _signed(
    product: Product,
    x: Enclosure,
    w: Tensor,
    bias: Enclosure | None,
    bottom: Tensor,
    top: Tensor,
    safe: Tensor,
    margin: Tensor,
) -> tuple[Tensor, Tensor]:
    """A sum of terms none of which is positive is not positive, however it is rounded."""
    if not bool(((top > 0) & (top <= 2 * margin)).any() or ((bottom < 0) & (bottom >= -2 * margin)).any()):
        return bottom, top
    positive, negative = (w > 0).float(), (w < 0).float()
    above, below = (x.high > 0).float(), (x.low < 0).float()
    up = product(above, positive) + product(below, negative)
    down = product(below, positive) + product(above, negative)
    if bias is not None:
        up, down = up + (bias.high > 0), down + (bias.low < 0)
    top = torch.where((up == 0) & safe, top.clamp(max=0), top)
    return torch.where((down == 0) & safe, bottom.clamp(min=0), bottom), top


def between(call: Call, a: Enclosure, b: Enclosure) -> Enclosure:
    """Return bounds of a @ b where both depend on the input, by midpoint and radius (Rump 1999)."""
    terms = a.low.shape[-1]
    unknown = (a.low.isinf() | a.high.isinf()).double() @ (b.magnitude > 0).double()
    unknown = unknown + (a.magnitude > 0).double() @ (b.low.isinf() | b.high.isinf()).double()
    (a_low, a_high), (b_low, b_high) = (_finite(a.low), _finite(a.high)), (_finite(b.low), _finite(b.high))
    a_mid, a_half, b_mid, b_half = (
        (a_low + a_high) / 2,
        (a_high - a_low) / 2,
        (b_low + b_high) / 2,
        (b_high - b_low) / 2,
    )
    centre = a_mid @ b_mid
    reach = a_mid.abs() @ b_half + a_half @ (b_mid.abs() + b_half)
    size = torch.maximum(a_low.abs(), a_high.abs()) @ torch.maximum(b_low.abs(), b_high.abs())
    margin = 2 * (terms + 2) * roundoff(call.dtype) * size + (terms + 2) * smallest(call.dtype) * (size != 0)
    margin = margin + _coarse(call) * size
    unknown = (unknown > 0) | (size * (1 + (terms + 2) * roundoff(call.dtype)) > largest(call.dtype))
    low, high = centre - reach - margin, centre + reach + margin
    return Enclosure(torch.where(unknown, -torch.inf, low), torch.where(unknown, torch.inf, high))


def _times(call: Call, left: str, right: str, bias: Enclosure | None = None, scale: float = 1.0) -> Enclosure:
    """left @ right, of which one or both may be constant."""
    a, b = call.bounds(left), call.bounds(right)
    terms = a.low.shape[-1] + (2 if scale != 1.0 else 0)
    w = call.constant(right)
    if w is not None:
        found = weighted(call, lambda x, v: x @ v.to(x.dtype), a, w * scale, terms, bias)
        return _inside_ball(call, found, a.ball, w * scale, bias)
    w = call.constant(left)
    if w is not None:
        return weighted(call, lambda x, v: v.to(x.dtype) @ x, b, w * scale, terms, bias)
    found = between(call, a, b)
    if scale != 1.0:
        ends = (found.low * scale, found.high * scale)
        found = Enclosure(*outward(torch.minimum(*ends), torch.maximum(*ends), call.dtype, 4.0))
    if bias is not None:
        return Enclosure(*outward(found.low + bias.low, found.high + bias.high, call.dtype))
    return found


def _inside_ball(call: Call, found: Enclosure, ball: Ball | None, w: Tensor, bias: Enclosure | None) -> Enclosure:
    """A norm's output has a bounded length: |w . n| <= |w| |n|, sharper than the bounds of its entries."""
    if ball is None or w.ndim != 2 or w.shape[0] != len(ball.scale):
        return found
    d = w.shape[0]
    v = w * ball.scale.unsqueeze(1)
    sums = v.sum(0)
    part = v - sums / d if ball.centred else v
    reach = ball.radius * part.norm(dim=0) + ball.drift * sums.abs()
    centre = ball.shift @ w
    size = v.norm(dim=0) * ball.radius + ball.drift * v.abs().sum(0) + ball.shift.abs() @ w.abs()
    if bias is not None:
        reach, centre, size = (
            reach + (bias.high - bias.low) / 2,
            centre + (bias.high + bias.low) / 2,
            size + bias.magnitude,
        )
    # n itself is known to within roundings of its entries, as is scale * n + shift
    margin = (2 * (d + 8) * roundoff(call.dtype) + _coarse(call)) * size + (d + 2) * smallest(call.dtype)
    low, high = centre - reach - margin, centre + reach + margin
    shape = found.low.shape
    return Enclosure(torch.maximum(found.low, low.expand(shape)), torch.minimum(found.high, high.expand(shape)))


def matmul(call: Call) -> Enclosure:
    """mm, bmm, mv, dot."""
    right = next(key for key in ("mat2", "vec", "tensor") if key in call.given)
    return _times(call, "self", right)


def addmm(call: Call) -> Enclosure:
    """addmm, baddbmm, addmv: beta self + alpha (a @ b)."""
    left = next(key for key in ("mat1", "batch1", "mat") if key in call.given)
    right = next(key for key in ("mat2", "batch2", "vec") if key in call.given)
    bias = call.bounds("self")
    beta = float(call.get("beta", 1))
    if beta != 1.0:
        ends = (bias.low * beta, bias.high * beta)
        bias = Enclosure(*outward(torch.minimum(*ends), torch.maximum(*ends), call.dtype))
        if beta == 0.0:
            bias = Enclosure(torch.zeros_like(bias.low), torch.zeros_like(bias.high))
    return _times(call, left, right, bias, float(call.get("alpha", 1)))


def convolution(call: Call) -> Enclosure:
    w = call.needed("weight")
    x = call.bounds("input")
    settings = [call[key] for key in ("stride", "padding", "dilation", "transposed", "output_padding", "groups")]
    transposed, groups = settings[3], settings[5]
    terms = prod(w.shape[2:]) * (w.shape[0] // groups if transposed else w.shape[1])
    bias = None
    if call["bias"] is not None:
        b = call.bounds("bias")
        column = (-1, *(1,) * (w.ndim - 2))
        bias = Enclosure(b.low.view(column), b.high.view(column))

    def product(data: Tensor, kernel: Tensor) -> Tensor:
        return torch.convolution(data, kernel.to(data.dtype), None, *settings)

    return weighted(call, product, x, w, terms, bias)


def attention(call: Call) -> Enclosure:
    """Scaled dot product attention: a mean of the values, with weights >= 0 that add up to 1, whatever the scores."""
    if float(call.get("dropout_p", 0.0)) != 0.0:
        raise Unfollowed("it drops attention at random")
    v = call.bounds("value")
    dims = [-2] if v.low.shape[:-2] == call.shape[:-2] else list(range(-len(call.shape) + 1, -1))
    low, high = v.low.amin(dims, keepdim=True), v.high.amax(dims, keepdim=True)
    # Sums of at most twice as many terms (blocks are rescaled), weights whose sum is rounded too.
    step = 4 * (v.low.shape[-2] + 16) * roundoff(call.dtype) + _coarse(call)
    reach = step * torch.maximum(low.abs(), high.abs()) + smallest(call.dtype)
    low, high = (low - reach).clamp(max=0.0), (high + reach).clamp(min=0.0)  # rows masked throughout are 0
    shape = call.shape
    return Enclosure(low.expand(shape), high.expand(shape))


def long_short_term(call: Call) -> tuple[Enclosure, Enclosure]:
    """A fused LSTM: its hidden state is a sigmoid times a hyperbolic tangent; its cell state has no bound."""
    if int(call["mode"]) != 2:
        raise Unfollowed("only that of an LSTM is bounded by itself")
    one = 1.0 + 64 * roundoff(call.dtype)
    high = [torch.full(out.shape, one, dtype=torch.float64, device=out.device) for out in call.outs[:2]]
    return Enclosure(-high[0], high[0]), Enclosure(-high[1], high[1])
