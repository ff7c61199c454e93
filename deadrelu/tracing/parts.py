"""Handlers of ops that put tensors together, or take parts of one."""

from __future__ import annotations

from typing import Any

import torch

from ..kinds import Arguments
from . import layout as lay
from .layout import Dim, Layout
from .trace import NOTHING, Trace, Tracer, tensors_of, union
from .views import Out, put, source_of


def cat(tracer: Tracer, call: Arguments, out: Out) -> None:
    """cat: units of the operands stand one after the other, samples and positions add up."""
    tensors = tensors_of(call.args[:1] or [call.kwargs.get("tensors")])
    traces = [tracer.traces.get(t) or NOTHING for t in tensors if t.ndim == out.ndim]
    at = call.get(1, "dim", call.kwargs.get("axis", 0))
    _join(tracer, traces, out, int(at) % out.ndim, [t.shape[at] for t in tensors if t.ndim == out.ndim])


def _join(tracer: Tracer, traces: list[Trace], out: torch.Tensor, at: int, sizes: list[int]) -> None:
    producers, lineage = union(traces)
    layouts = [t.layout for t in traces if t.layout is not None and len(t.layout.dims) == out.ndim]
    if not layouts:
        if lineage:
            tracer.traces.put(out, Trace(None, producers, lineage))
        return
    lead = next((x for x in layouts if x.units is not None), layouts[0])
    dims = list(lead.dims)
    joined = [t.layout.dims[at] if t.layout is not None else () for t in traces]
    dims[at] = _joined_dim(joined, sizes)
    put(tracer, out, Trace(lay.normal(tuple(dims)), producers, lineage))


def _joined_dim(joined: list[Dim], sizes: list[int]) -> Dim:
    total = sum(sizes)
    if any(lay.has(dim, lay.UNIT) for dim in joined):
        # Where flattened channels stand beside features, every entry becomes a unit of its own.
        return lay.unit(total)
    if all(lay.has(dim, lay.BATCH) for dim in joined):  # several views of the same samples
        return lay.position(len(sizes)) + joined[0] if len(set(sizes)) == 1 else lay.position(total)
    return lay.position(total)


def stack(tracer: Tracer, call: Arguments, out: Out) -> None:
    tensors = tensors_of(call.args[:1] or [call.kwargs.get("tensors")])
    traces = [tracer.traces.get(t) or NOTHING for t in tensors]
    producers, lineage = union(traces)
    layout = next((t.layout for t in traces if t.layout is not None), None)
    if layout is None and not lineage:
        return
    at = int(call.get(1, "dim", 0)) % out.ndim
    put(tracer, out, Trace(layout and lay.insert(layout, at, lay.position(len(tensors))), producers, lineage))


def pieces(tracer: Tracer, call: Arguments, out: Out) -> None:
    """chunk, split, tensor_split: consecutive slices of one dimension."""
    found = source_of(tracer, call)
    if found is None:
        return
    tensor, trace = found
    at = int(call.get(2, "dim", call.kwargs.get("axis", 0))) % tensor.ndim
    start = 0
    for piece in out:
        put(tracer, piece, narrowed(trace, at, start, piece.shape[at], tensor.shape[at]))
        start += piece.shape[at]


def narrowed(trace: Trace, at: int, start: int, size: int, total: int, step: int = 1) -> Trace:
    """Return the trace of a slice of one dimension; other units than their producer's are told apart by it."""
    if trace.layout is None or size == total:
        return trace
    dims = list(trace.layout.dims)
    dim = dims[at]
    inner = lay.Layout((dim[1:],)).shape[0]
    if len(dim) > 1 and size % inner == 0 and start % inner == 0 and step == 1:
        # Whole steps of the outermost factor: one of two views that stand in the batch one after the other.
        left = size // inner
        outer = lay.position(left) if dim[0].role == lay.POSITION else (dim[0]._replace(size=left),)
        dims[at] = (*outer, *dim[1:])
    elif len(dim) > 1 and lay.has(dim, lay.UNIT):  # every entry a unit of its own, beside those of other dimensions
        dims[at] = (lay.Factor(lay.UNIT, size, trace.layout.units or 1),)
    else:
        dims[at] = lay.resized(dim, size)
    if lay.has(dim, lay.BATCH) and not lay.has(dims[at], lay.BATCH):
        # What other dimensions hold numbers groups of samples, not samples.
        dims = [lay.strip(d, lay.BATCH) for d in dims]
    marks = [("units", start, size, step)] if lay.has(dim, lay.UNIT) else []
    return trace.moved(lay.normal(tuple(dims)), *marks)


def narrow(tracer: Tracer, call: Arguments, out: Out) -> None:
    found = source_of(tracer, call)
    start = call.get(2, "start")
    if found is None:
        return
    at = int(call.get(1, "dim")) % found[0].ndim
    begin = int(start) if isinstance(start, int) else 0
    put(tracer, out, narrowed(found[1], at, begin, out.shape[at], found[0].shape[at]))


def select(tracer: Tracer, call: Arguments, out: Out) -> None:
    found = source_of(tracer, call)
    if found is None or found[1].layout is None:
        return
    at = int(call.get(1, "dim")) % found[0].ndim
    put(tracer, out, _picked(found[1], at, call.get(2, "index")))


def unbind(tracer: Tracer, call: Arguments, out: Out) -> None:
    found = source_of(tracer, call)
    if found is None or found[1].layout is None:
        return
    at = int(call.get(1, "dim", 0)) % found[0].ndim
    for i, piece in enumerate(out):
        put(tracer, piece, _picked(found[1], at, i))


def _picked(trace: Trace, at: int, index: Any) -> Trace:
    assert trace.layout is not None
    marks = [("unit", str(index))] if lay.has(trace.layout.dims[at], lay.UNIT) else []
    return trace.moved(lay.drop(trace.layout, [at]), *marks)


def getitem(tracer: Tracer, call: Arguments, out: Out) -> None:
    """x[...]: integers drop a dimension, slices shorten it, tensors of indices or masks scramble it."""
    found = source_of(tracer, call)
    if found is None and isinstance(out, torch.Tensor):
        return _looked_up(tracer, call, out)
    if found is None or found[1].layout is None or not isinstance(out, torch.Tensor):
        return
    tensor, trace = found
    index = call.args[1] if isinstance(call.args[1], tuple) else (call.args[1],)
    consumed = sum(_consumes(i) for i in index)
    index = tuple(j for i in index for j in ([slice(None)] * (tensor.ndim - consumed) if i is Ellipsis else [i]))
    at, scrambled = 0, None  # `at` counts in the dimensions of the result so far
    size = list(tensor.shape)
    for i in index:
        if i is None:
            trace = trace.moved(trace.layout and lay.insert(trace.layout, at))
            size.insert(at, 1)
            at += 1
        elif isinstance(i, slice):
            start, stop, step = i.indices(size[at])
            length = len(range(start, stop, step))
            trace = narrowed(trace, at, start, length, size[at], step)
            at += 1
        elif isinstance(i, int) and not isinstance(i, bool):
            trace = _picked(trace, at, i)
            del size[at]
        else:
            first = scrambled is None
            scrambled = at if first else scrambled
            trace, taken = _gathered(trace, at, i, out, first)
            del size[at : at + taken]
            if first:
                grown = _gathered_dims(i)
                size[at:at] = [2] * grown  # never asked again
                at += grown
        if trace.layout is None:
            break
    if trace.layout is not None and scrambled is not None:
        trace = _fitted(trace, tuple(out.shape))
        of_samples = scrambled == 0 and found[1].layout.dims[0] == lay.batch(tensor.shape[0]) and out.ndim > 0
        of_samples = of_samples and all(i.ndim == 1 for i in index if isinstance(i, torch.Tensor))
        if trace.layout is not None and of_samples and _takes_samples(index[0], tensor.shape[0]):
            trace = trace.moved(Layout((lay.batch(out.shape[0]), *trace.layout.dims[1:])))
    put(tracer, out, trace)


def _looked_up(tracer: Tracer, call: Arguments, out: torch.Tensor) -> None:
    """weight[i]: the weight of an expert stays the weight of its op; a table of vectors is an embedding."""
    table, index = call.args[0], call.args[1]
    name = tracer.parameter_name(table) if isinstance(table, torch.Tensor) else None
    if name is None:
        return
    tracer.derive(out, name)
    rows = tracer.traces.get(index)
    if rows is None or rows.layout is None or index.dtype == torch.bool or not index.ndim or table.ndim != 2:
        return
    layout = lay.with_units([*rows.layout.dims, ()], index.ndim, out.shape[-1])
    put(tracer, out, Trace(layout, (name,), frozenset((name,))))


def _takes_samples(index: Any, rows: int) -> bool:
    """True if an index takes some of so many samples, none of them twice: what a router sends to one expert, an order.

    A mask does so. Of numbers on a GPU it is not known: they would have to be waited for.
    """
    if isinstance(index, list) and all(type(i) is int for i in index):
        return 0 < len(index) == len({i % rows for i in index})
    if not isinstance(index, torch.Tensor) or index.ndim != 1 or not rows or not len(index):
        return False
    if index.dtype == torch.bool:
        return True
    if index.device.type != "cpu" or type(index) is not torch.Tensor or len(index) > rows:
        return False
    taken = (index % rows).sort().values
    return not bool((taken[1:] == taken[:-1]).any())


def _consumes(i: Any) -> int:
    if i is None or i is Ellipsis:
        return 0
    return i.ndim if isinstance(i, torch.Tensor) and i.dtype == torch.bool else 1


def _gathered_dims(i: Any) -> int:
    if not isinstance(i, torch.Tensor):
        return 1
    return 1 if i.dtype == torch.bool else i.ndim


def _gathered(trace: Trace, at: int, i: Any, out: torch.Tensor, first: bool) -> tuple[Trace, int]:
    """Return the trace after advanced indexing at one dimension; extents are fitted afterwards."""
    assert trace.layout is not None
    taken = i.ndim if isinstance(i, torch.Tensor) and i.dtype == torch.bool else 1
    units = any(lay.has(d, lay.UNIT) for d in trace.layout.dims[at : at + taken])
    layout = lay.drop(trace.layout, range(at, at + taken))
    if first:
        for k in range(_gathered_dims(i)):
            layout = lay.insert(layout, at + k, lay.unit(2) if units and k == 0 else ((lay.Factor(lay.POSITION, 2)),))
    return trace.moved(layout, *([("gather", at)] if units else [])), taken


def _fitted(trace: Trace, shape: tuple[int, ...]) -> Trace:
    assert trace.layout is not None
    if len(trace.layout.dims) != len(shape):
        return trace.moved(None)
    return trace.moved(lay.normal(tuple(lay.resized(d, n) for d, n in zip(trace.layout.dims, shape, strict=True))))


def index_select(tracer: Tracer, call: Arguments, out: Out) -> None:
    found = source_of(tracer, call)
    if found is None or found[1].layout is None:
        return
    at = int(call.get(1, "dim")) % found[0].ndim
    dims = list(found[1].layout.dims)
    units = lay.has(dims[at], lay.UNIT)
    rows, index = found[0].shape[at], call.get(2, "index")
    of_samples = dims[at] == lay.batch(rows) and _takes_samples(index, rows)
    dims[at] = (
        lay.unit(out.shape[at]) if units else lay.batch(out.shape[at]) if of_samples else lay.position(out.shape[at])
    )
    put(tracer, out, found[1].moved(lay.normal(tuple(dims)), *([("gather", at)] if units else [])))
