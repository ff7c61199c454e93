"""Readout: what a trace says at an activation - the layout of z, or the pieces of a maxout."""

from __future__ import annotations

from typing import Any

import torch

from ..kinds import Arguments
from . import layout as lay
from .layout import Dim, Layout
from .parts import narrowed
from .trace import NOTHING, Trace, Tracer, union


def site_layout(trace: Trace, shape: tuple[int, ...], batch: int | None, *, unbatched: bool) -> tuple[Layout, bool]:
    """Return (layout of a pre-activation, whether its unit axis was guessed).

    A z whose units were reduced away counts as one unit. Where the trace was lost, the shape has to tell: units are
    dimension 1 of an image, else the last; samples the first dimension, if it is as long as the batch or a multiple.
    """
    known = trace.layout
    if known is not None and known.shape == shape:
        if known.units is None and not trace.lineage:
            return _guessed_units(known, shape), len(shape) > 2
        return known, False
    dims = [lay.position(n) for n in shape]
    if shape and batch and not unbatched and shape[0] % batch == 0:
        dims[0] = lay.batch(batch) + lay.position(shape[0] // batch)
    return _guessed_units(Layout(tuple(dims)), shape), True


def _guessed_units(layout: Layout, shape: tuple[int, ...]) -> Layout:
    at = 1 if len(shape) >= 4 else len(shape) - 1
    if at < 0 or lay.has(layout.dims[at], lay.BATCH):
        return layout
    dims = list(layout.dims)
    dims[at] = lay.unit(shape[at])
    return Layout(tuple(dims))


def unmapped(z: torch.Tensor, layout: Layout | None, batch: int | None) -> tuple[torch.Tensor, Any]:
    """Return (z, layout) without the wrappers of torch.vmap and torch.func: mapped dimensions come first again."""
    functorch = torch._C._functorch
    while functorch.is_functorch_wrapped_tensor(z):
        at = functorch.maybe_get_bdim(z) if functorch.is_batchedtensor(z) else -1
        z = functorch.get_unwrapped(z)
        if at >= 0:
            z = z.movedim(at, 0)
            rows = z.shape[0]
            fresh = rows == batch and layout is not None and layout.samples is None
            layout = layout and lay.insert(layout, 0, lay.batch(rows) if fresh else lay.position(rows))
    return z, layout


def sliced(trace: Trace, x: torch.Tensor, z: torch.Tensor) -> Trace:
    """Return the trace of z, which is x or its last part along one dimension (the gate of a GLU)."""
    if z is x:
        return trace
    at = next((i for i in range(x.ndim) if x.shape[i] != z.shape[i]), None)
    if at is None:
        return trace
    return narrowed(trace, at, x.shape[at] - z.shape[at], z.shape[at], x.shape[at])


def maxout_pieces(tracer: Tracer, name: str, call: Arguments) -> tuple[torch.Tensor, Trace, torch.Tensor] | None:
    """Return (margin, its trace, output of each piece) if a maximum is taken over pieces of units; else None.

    The margin of a piece is what it exceeds the best other piece by, a tie being a win by a hair. Two forms:
    the maximum of two tensors with producers of their own (Goodfellow et al. 2013, arXiv:1302.4389), units are those
    of the first, then those of the second; and the maximum over a dimension into which a view split the units.
    """
    x, other = call.get(0, "input"), call.get(1, "other", call.kwargs.get("dim"))
    if not isinstance(x, torch.Tensor) or not x.is_floating_point():
        return None
    mine = tracer.traces.get(x) or NOTHING
    if mine.layout is None or mine.layout.units is None or not mine.producers:
        return None
    if isinstance(other, torch.Tensor):
        return _of_two(tracer, x, mine, other)
    if isinstance(other, (tuple, list)) and len(other) == 1:
        other = other[0]
    if isinstance(other, int) and not isinstance(other, bool) and name != "maximum":
        return _of_dim(x, mine, other % x.ndim)
    return None


def _of_two(
    tracer: Tracer, x: torch.Tensor, mine: Trace, other: torch.Tensor
) -> tuple[torch.Tensor, Trace, torch.Tensor] | None:
    theirs = tracer.traces.get(other) or NOTHING
    if other.shape != x.shape or theirs.layout != mine.layout or not theirs.producers or theirs.lineage == mine.lineage:
        return None
    assert mine.layout is not None
    assert mine.layout.units is not None
    units = mine.layout.units
    margin = _won(torch.stack((x - other, other - x)), torch.stack((x >= other, other >= x)))
    producers, lineage = union((mine, theirs))
    first: Dim = (lay.Factor(lay.UNIT, 2, units),)
    layout = lay.insert(mine.layout, 0, first)
    h = torch.stack((x, other)) * (margin > 0)
    return margin.detach(), Trace(layout, producers, lineage), h.detach()


def _of_dim(x: torch.Tensor, trace: Trace, at: int) -> tuple[torch.Tensor, Trace, torch.Tensor] | None:
    assert trace.layout is not None
    dim = trace.layout.dims[at]
    inside = [f for f in dim if f.role == lay.UNIT and f.size > 1]
    elsewhere = [f for d in trace.layout.dims[:at] + trace.layout.dims[at + 1 :] for f in d if f.role == lay.UNIT]
    # A maximum over all units (a predicted class) or over positions (pooling) is no maxout.
    if not inside or len(inside) != len(dim) or not any(f.size > 1 for f in elsewhere):
        return None
    best, second = x.detach().topk(2, at).values.unbind(at)
    wins = x == best.unsqueeze(at)
    margin = _won(x - torch.where(wins, second.unsqueeze(at), best.unsqueeze(at)), wins)
    return margin.detach(), trace, (x * wins).detach()


def _won(margin: torch.Tensor, wins: torch.Tensor) -> torch.Tensor:
    """A tie is a win for each of its pieces: all of them receive a gradient."""
    return torch.where(wins, margin.clamp(min=torch.finfo(margin.dtype).tiny), margin)
