"""Handlers of ops that keep the dimensions of their operands, or reduce some away."""

from __future__ import annotations

from typing import Any

import torch

from ..kinds import Arguments
from . import layout as lay
from .layout import Layout
from .trace import Trace, Tracer, tensors_of, union
from .views import reshape

Out = Any


def inherit(tracer: Tracer, call: Arguments, out: Out) -> None:
    """Anything else: the result inherits by the rules of broadcasting, or dimension by dimension."""
    outs = [out] if isinstance(out, torch.Tensor) else tensors_of(out) if isinstance(out, (tuple, list)) else []
    if not outs:
        return
    operands = tensors_of([*call.args, *call.kwargs.values()])
    traces = [_operand(tracer, t) for t in operands]
    known = [t for t in traces if t is not None]
    if not known:
        return
    producers, lineage = union(known)
    for result in outs:
        layout = _broadcast(operands, traces, result)
        if layout is None:
            layout = _alike(operands, traces, result, tracer.batch)
        if layout is not None or lineage:
            tracer.traces.put(result, Trace(layout, producers, lineage))


def _operand(tracer: Tracer, tensor: torch.Tensor) -> Trace | None:
    """A vector of parameters in an elementwise op (a scale, a bias, a hand-written norm) has one entry per unit."""
    trace = tracer.traces.get(tensor)
    if trace is not None or not tensor.is_floating_point():
        return trace
    name = tracer.parameter_name(tensor)
    long = [i for i, n in enumerate(tensor.shape) if n > 1]
    if name is None or len(long) != 1:
        return None
    layout = Layout(tuple(lay.unit(n) if i == long[0] else () for i, n in enumerate(tensor.shape)))
    return Trace(layout, (), frozenset((name,)))


def _broadcast(operands: list[torch.Tensor], traces: list[Trace | None], out: torch.Tensor) -> Layout | None:
    shapes, layouts = [], []
    for tensor, trace in zip(operands, traces, strict=True):
        shape = tuple(tensor.shape)
        if trace is None or trace.layout is None or trace.layout.shape != shape:
            continue
        if len(shape) > out.ndim or any(
            n not in (1, m) for n, m in zip(reversed(shape), reversed(out.shape), strict=False)
        ):
            continue
        shapes.append(shape)
        layouts.append(trace.layout)
    return lay.broadcast(tuple(layouts), tuple(shapes), tuple(out.shape)) if layouts else None


def _alike(
    operands: list[torch.Tensor], traces: list[Trace | None], out: torch.Tensor, batch: int | None
) -> Layout | None:
    """Pooling, padding, interpolation, scatter: of equal rank, dimension by dimension."""
    for tensor, trace in zip(operands, traces, strict=True):
        if trace is not None and trace.layout is not None and tensor.ndim == out.ndim:
            dims = [lay.resized(d, n) for d, n in zip(trace.layout.dims, out.shape, strict=True)]
            # Scattered back from the edges of a graph to its nodes, the samples.
            if dims and trace.layout.samples is None and tensor.shape[0] != out.shape[0] == batch:
                dims[0] = lay.batch(batch)
            return lay.normal(tuple(dims))
    return None


def negate(tracer: Tracer, call: Arguments, out: Out) -> None:
    """-x and c - x: other units than those of x, though they have the same producer."""
    inherit(tracer, call, out)
    trace = tracer.traces.get(out)
    if trace is not None and len(tensors_of(call.args)) == 1:
        tracer.traces.put(out, trace.moved(trace.layout, ("negated",)))


def scale(tracer: Tracer, call: Arguments, out: Out) -> None:
    """x * c, x / c: a negative constant turns the units around."""
    inherit(tracer, call, out)
    factor = next((a for a in call.args if isinstance(a, (int, float)) and not isinstance(a, bool)), 1)
    trace = tracer.traces.get(out)
    if trace is not None and factor < 0:
        tracer.traces.put(out, trace.moved(trace.layout, ("negated",)))


def reduce(tracer: Tracer, call: Arguments, out: Out) -> None:
    """sum, mean, amax, max(dim), std...: some dimensions are gone."""
    tensor = call.get(0, "input", call.kwargs.get("self"))
    trace = tracer.traces.get(tensor)
    results = [out] if isinstance(out, torch.Tensor) else tensors_of(out) if isinstance(out, (tuple, list)) else []
    other = call.get(1, "other")
    if isinstance(other, torch.Tensor):
        return inherit(tracer, call, out)
    if trace is None:
        return
    layout = None
    if trace.layout is not None and results:
        layout = _reduced(trace.layout, call, tuple(tensor.shape), tuple(results[0].shape))
    for result in results:
        tracer.traces.put(result, trace.moved(layout))


def _reduced(layout: Layout, call: Arguments, shape: tuple[int, ...], result: tuple[int, ...]) -> Layout | None:
    """The reduced dimensions, as named in the call or else as the shapes tell."""
    named = call.kwargs.get("dim", call.kwargs.get("axis"))
    candidates = [named] if named is not None else [a for a in call.args[1:] if not isinstance(a, bool)]
    for dims in candidates:
        if isinstance(dims, int):
            dims = (dims,)
        if not (isinstance(dims, (tuple, list)) and dims and all(isinstance(d, int) for d in dims)):
            continue
        for keep in (False, True):
            if any(not -len(shape) <= d < len(shape) for d in dims):
                continue
            left = lay.drop(layout, dims, keep=keep)
            if left.shape == result:
                return left
    if not result:
        return lay.drop(layout, range(len(shape)))
    return lay.drop(layout, range(len(shape)), keep=True) if len(result) == len(shape) and set(result) == {1} else None


def zeros(tracer: Tracer, call: Arguments, out: Out) -> None:
    """zeros, zeros_like, new_zeros: a constant that makes maximum(x, 0) a rectifier; rows like those of its model."""
    if not isinstance(out, torch.Tensor):
        return
    like = tracer.traces.get(call.get(0, "input"))
    layout = like.layout if like is not None else None
    if layout is not None:
        layout = Layout(tuple(lay.strip(dim) for dim in layout.dims))
        layout = layout if layout.shape == tuple(out.shape) else None
    tracer.traces.put(out, Trace(layout, zero=True))


def accumulate(tracer: Tracer, call: Arguments, out: Out) -> None:
    """index_add, scatter_add...: the target tells the samples, what is put into it tells the units."""
    target = tracer.traces.get(call.get(0, "input", call.kwargs.get("self")))
    given = [trace for trace in tracer.known(tensors_of([*call.args[1:], *call.kwargs.values()])) if trace.lineage]
    mine = target.layout if target is not None else None
    theirs = next((t.layout for t in given if t.layout is not None and len(t.layout.dims) == out.ndim), None)
    if target is None or mine is None or theirs is None or mine.units is not None or mine.shape != tuple(out.shape):
        return inherit(tracer, call, out)
    producers, lineage = union([target, *given])
    tracer.traces.put(out, Trace(_filled(mine, theirs), producers, lineage))


def _filled(mine: Layout, theirs: Layout) -> Layout:
    """The dimensions of a target, with the units of what was put into it."""
    pairs = zip(mine.dims, theirs.dims, mine.shape, theirs.shape, strict=True)
    return lay.normal(tuple(b if lay.has(b, lay.UNIT) and n == m else a for a, b, n, m in pairs))


def constant(tracer: Tracer, call: Arguments, out: Out) -> None:
    """tensor(0.0), full(..., 0): zeros if the value says so."""
    values = [a for a in (*call.args, *call.kwargs.values()) if isinstance(a, (int, float)) and not isinstance(a, bool)]
    if isinstance(out, torch.Tensor):
        tracer.traces.put(out, Trace(zero=bool(values) and values[-1] == 0))


def assign(tracer: Tracer, call: Arguments, out: Out) -> None:
    """x[...] = y and x.copy_(y): x takes over what it did not know."""
    target, source = call.args[0], call.args[-1]
    mine, theirs = tracer.traces.get(target), tracer.traces.get(source)
    if theirs is None:
        return
    if mine is not None and mine.lineage:
        producers, lineage = union([mine, theirs])
        tracer.traces.put(target, Trace(mine.layout, producers, lineage))
        return
    layout = None
    if theirs.layout is not None and len(theirs.layout.dims) <= target.ndim:
        lead = target.ndim - len(theirs.layout.dims)
        dims = [lay.position(n) for n in target.shape[:lead]]
        dims += [lay.resized(d, n) for d, n in zip(theirs.layout.dims, target.shape[lead:], strict=True)]
        layout = lay.normal(tuple(dims))
        if mine is not None and mine.layout is not None and mine.layout.shape == layout.shape:
            layout = _filled(mine.layout, layout)
    tracer.traces.put(target, theirs.moved(layout))


def flip_view(tracer: Tracer, call: Arguments, out: Out) -> None:
    """view(dtype) keeps the shape, view(*shape) does not."""
    if isinstance(call.get(1, "dtype"), torch.dtype):
        return inherit(tracer, call, out)
    reshape(tracer, call, out)
