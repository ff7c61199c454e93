"""Handlers of ops that move, stretch, split or join the dimensions of a tensor without computing on it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from ..kinds import Arguments
from . import layout as lay
from .layout import Dim, Layout
from .trace import Trace, Tracer

Out = Any


def ints(call: Arguments, position: int, name: str) -> list[int]:
    """Return integers given as one sequence or one by one."""
    value = call.get(position, name)
    if isinstance(value, (tuple, list)):
        return [int(v) for v in value]
    return [int(v) for v in call.args[position:]] if value is not None else []


def source_of(tracer: Tracer, call: Arguments) -> tuple[torch.Tensor, Trace] | None:
    """Return the tensor that an op reads, with its trace; None if nothing is known of it."""
    tensor = call.get(0, "input", call.kwargs.get("self"))
    trace = tracer.traces.get(tensor)
    return None if trace is None else (tensor, trace)


def put(tracer: Tracer, out: Out, trace: Trace) -> None:
    """Remember the trace of a result, without a layout that does not fit its shape."""
    if isinstance(out, torch.Tensor):
        if trace.layout is not None and trace.layout.shape != tuple(out.shape):
            trace = trace.moved(None)
        tracer.traces.put(out, trace)


def reshape(tracer: Tracer, call: Arguments, out: Out) -> None:
    """view, reshape, flatten, unflatten..."""
    found = source_of(tracer, call)
    if found is None or not isinstance(out, torch.Tensor):
        return
    trace = found[1]
    layout = trace.layout and lay.regroup(trace.layout, tuple(out.shape))
    put(tracer, out, trace.moved(layout))


def unsqueeze(tracer: Tracer, call: Arguments, out: Out) -> None:
    found = source_of(tracer, call)
    if found is None or found[1].layout is None:
        return reshape(tracer, call, out)
    at = int(call.get(1, "dim")) % (found[0].ndim + 1)
    put(tracer, out, found[1].moved(lay.insert(found[1].layout, at)))


def one_hot(tracer: Tracer, call: Arguments, out: Out) -> None:
    """one_hot: the classes come last, and are no units."""
    found = source_of(tracer, call)
    if found is not None and found[1].layout is not None:
        dim = lay.position(out.shape[-1])
        put(tracer, out, found[1].moved(lay.insert(found[1].layout, out.ndim - 1, dim)))


def squeeze(tracer: Tracer, call: Arguments, out: Out) -> None:
    found = source_of(tracer, call)
    # In-place squeeze has changed the shape already; its dimensions cannot be told any more.
    if found is None or found[1].layout is None or found[0] is out:
        return reshape(tracer, call, out)
    shape = found[0].shape
    named = ints(call, 1, "dim")
    gone = {d % len(shape) for d in named} if named else set(range(len(shape)))
    put(tracer, out, found[1].moved(lay.drop(found[1].layout, [d for d in gone if shape[d] == 1])))


def permute(tracer: Tracer, call: Arguments, out: Out) -> None:
    found = source_of(tracer, call)
    if found is None:
        return
    tensor, trace = found
    order = [d % tensor.ndim for d in ints(call, 1, "dims")]
    put(tracer, out, trace.moved(trace.layout and lay.permute(trace.layout, order)))


def transpose(tracer: Tracer, call: Arguments, out: Out) -> None:
    found = source_of(tracer, call)
    if found is None:
        return
    tensor, trace = found
    a = call.get(1, "dim0", call.kwargs.get("axis0"))
    b = call.get(2, "dim1", call.kwargs.get("axis1"))
    order = list(range(tensor.ndim))
    order[a], order[b] = order[b], order[a]
    put(tracer, out, trace.moved(trace.layout and lay.permute(trace.layout, order)))


def swap_last(tracer: Tracer, call: Arguments, out: Out) -> None:
    """t, T, mT, H: the last two dimensions (T reverses all)."""
    found = source_of(tracer, call)
    if found is None or found[0].ndim < 2:
        return reshape(tracer, call, out)
    order = list(range(found[0].ndim))
    order[-2:] = order[:-3:-1]
    put(tracer, out, found[1].moved(found[1].layout and lay.permute(found[1].layout, order)))


def movedim(tracer: Tracer, call: Arguments, out: Out) -> None:
    found = source_of(tracer, call)
    if found is None:
        return
    tensor, trace = found
    source, target = call.get(1, "source"), call.get(2, "destination")
    sources = [d % tensor.ndim for d in (source if isinstance(source, (tuple, list)) else [source])]
    targets = [d % tensor.ndim for d in (target if isinstance(target, (tuple, list)) else [target])]
    rest = iter(d for d in range(tensor.ndim) if d not in sources)
    placed = dict(zip(targets, sources, strict=True))
    order = [placed[i] if i in placed else next(rest) for i in range(tensor.ndim)]
    put(tracer, out, trace.moved(trace.layout and lay.permute(trace.layout, order)))


def expand(tracer: Tracer, call: Arguments, out: Out) -> None:
    """expand, repeat, tile: a dimension holds several copies, outermost; those of one unit or sample stay that one."""
    found = source_of(tracer, call)
    if found is None or found[1].layout is None:
        return
    dims = _aligned(found[1].layout.dims, len(out.shape))
    sizes = Layout(dims).shape
    grown = tuple(
        lay.position(n // size) + dim if n != size else dim for dim, size, n in zip(dims, sizes, out.shape, strict=True)
    )
    put(tracer, out, found[1].moved(lay.normal(grown)))


def repeat_interleave(tracer: Tracer, call: Arguments, out: Out) -> None:
    found = source_of(tracer, call)
    times, at = call.get(1, "repeats"), call.get(2, "dim")
    if found is None or found[1].layout is None or not isinstance(times, int) or at is None:
        return
    dims = list(found[1].layout.dims)
    dims[at] = dims[at] + lay.position(times)
    put(tracer, out, found[1].moved(Layout(tuple(dims))))


def _aligned(dims: Sequence[Dim], ndim: int) -> tuple[Dim, ...]:
    return ((),) * (ndim - len(dims)) + tuple(dims)


def pixel_shuffle(tracer: Tracer, call: Arguments, out: Out) -> None:
    """(N, C r r, H, W) -> (N, C, H r, W r): the units stay the C r r channels of the producer."""
    found = source_of(tracer, call)
    if found is None or found[1].layout is None:
        return
    r = int(call.get(1, "upscale_factor"))
    *lead, channels, height, width = found[0].shape
    k = len(lead)
    split = lay.regroup(found[1].layout, (*lead, channels // (r * r), r, r, height, width))
    order = (*range(k), k, k + 3, k + 1, k + 4, k + 2)
    put(tracer, out, found[1].moved(split and lay.regroup(lay.permute(split, order), tuple(out.shape))))


def pixel_unshuffle(tracer: Tracer, call: Arguments, out: Out) -> None:
    found = source_of(tracer, call)
    if found is None or found[1].layout is None:
        return
    r = int(call.get(1, "downscale_factor"))
    *lead, channels, height, width = found[0].shape
    k = len(lead)
    split = lay.regroup(found[1].layout, (*lead, channels, height // r, r, width // r, r))
    order = (*range(k), k, k + 2, k + 4, k + 1, k + 3)
    put(tracer, out, found[1].moved(split and lay.regroup(lay.permute(split, order), tuple(out.shape))))


def channel_shuffle(tracer: Tracer, call: Arguments, out: Out) -> None:
    found = source_of(tracer, call)
    if found is None or found[1].layout is None:
        return
    groups = int(call.get(1, "groups"))
    n, channels, *rest = found[0].shape
    split = lay.regroup(found[1].layout, (n, groups, channels // groups, *rest))
    order = (0, 2, 1, *range(3, 3 + len(rest)))
    put(tracer, out, found[1].moved(split and lay.regroup(lay.permute(split, order), tuple(out.shape))))


def unfold_patches(tracer: Tracer, call: Arguments, out: Out) -> None:
    """F.unfold: (N, C, H, W) -> (N, C k k, L), the channel outermost."""
    found = source_of(tracer, call)
    if found is None or found[1].layout is None or out.ndim != 3 or found[0].ndim != 4:
        return
    dims = found[1].layout.dims
    channels = found[0].shape[1]
    grown = (dims[0], dims[1] + lay.position(out.shape[1] // channels), lay.position(out.shape[2]))
    put(tracer, out, found[1].moved(Layout(grown)))


def unfold_dim(tracer: Tracer, call: Arguments, out: Out) -> None:
    """Tensor.unfold: windows of one dimension, their content last."""
    found = source_of(tracer, call)
    if found is None or found[1].layout is None:
        return
    at = int(call.get(1, "dimension")) % found[0].ndim
    dims = list(found[1].layout.dims)
    dims[at] = lay.position(out.shape[at])
    put(tracer, out, found[1].moved(lay.normal((*dims, lay.position(out.shape[-1])))))
