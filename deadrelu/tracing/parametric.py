"""Handlers of ops with parameters: they set the units of what they make, and are its producers."""

from __future__ import annotations

from typing import Any

import torch

from ..kinds import Arguments
from . import layout as lay
from .layout import Dim
from .trace import NOTHING, Trace, Tracer, union

Out = Any


def _made(tracer: Tracer, out: torch.Tensor, name: str, dims: list[Dim], at: int) -> None:
    """Remember that the op `name` made `out`, with its units in dimension `at`."""
    layout = lay.with_units(dims, at, out.shape[at])
    ok = layout.shape == tuple(out.shape)
    tracer.traces.put(out, Trace(layout if ok else None, (name,), frozenset((name,))))


def mapped(x: torch.Tensor) -> bool:
    """True inside of torch.vmap, where the batch axis is out of sight."""
    return bool(torch._C._functorch.is_functorch_wrapped_tensor(x))


def _dims(tracer: Tracer, tensor: torch.Tensor) -> list[Dim]:
    trace = tracer.traces.get(tensor)
    if trace is not None and trace.layout is not None:
        return list(trace.layout.dims)
    dims = [lay.position(n) for n in tensor.shape]
    if tensor.ndim > 1 and tensor.shape[0] == tracer.batch and tensor.is_floating_point() and tracer.is_foreign(tensor):
        # Rows of unknown origin, as many as samples, are the samples: a scripted part keeps them in order.
        dims[0] = lay.batch(tensor.shape[0])
        tracer.foreign.add(tracer.scope())
    return dims


def linear(tracer: Tracer, call: Arguments, out: Out) -> None:
    x, weight = call.get(0, "input"), call.get(1, "weight")
    name = tracer.producer(weight, "linear")
    tracer.feed(name, x, 1, -1)
    if x.ndim == 1:
        tracer.unbatched |= not mapped(x)
        return _made(tracer, out, name, [()], 0)
    _made(tracer, out, name, [*_dims(tracer, x)[:-1], ()], out.ndim - 1)


def bilinear(tracer: Tracer, call: Arguments, out: Out) -> None:
    x, weight = call.get(0, "input1"), call.get(2, "weight")
    _made(tracer, out, tracer.producer(weight, "bilinear"), [*_dims(tracer, x)[:-1], ()], out.ndim - 1)


def convolution(tracer: Tracer, call: Arguments, out: Out) -> None:
    """conv1d, conv2d, conv3d and their transposes: channels are dimension 1, or 0 without a batch axis."""
    x, weight = call.get(0, "input"), call.get(1, "weight")
    spatial = weight.ndim - 2
    at = out.ndim - spatial - 1
    name = tracer.producer(weight, "conv")
    groups = x.shape[-spatial - 1] // weight.shape[1] if out.shape[at] == weight.shape[0] else 1
    tracer.feed(name, x, max(groups, 1), -spatial - 1)
    if at == 0:
        tracer.unbatched |= not mapped(x)
    dims = _dims(tracer, x)[:at] + [()] + [lay.position(n) for n in out.shape[at + 1 :]]
    _made(tracer, out, name, dims, at)


def embedding(tracer: Tracer, call: Arguments, out: Out) -> None:
    index, weight = call.get(0, "input"), call.get(1, "weight")
    _made(tracer, out, tracer.producer(weight, "embedding"), [*_dims(tracer, index), ()], out.ndim - 1)


def embedding_bag(tracer: Tracer, call: Arguments, out: Out) -> None:
    index, weight = call.get(0, "input"), call.get(1, "weight")
    first = out[0] if isinstance(out, tuple) else out
    dims = _dims(tracer, index)[:1] if index.ndim == 2 else [lay.position(first.shape[0])]
    _made(tracer, first, tracer.producer(weight, "embedding_bag"), [*dims, ()], 1)


def addmm(tracer: Tracer, call: Arguments, out: Out) -> None:
    """addmm, baddbmm, addmv: the product of the second and third argument."""
    _product(tracer, call.get(1, "mat1", call.get(1, "batch1")), call.get(2, "mat2", call.get(2, "batch2")), out)


def matmul(tracer: Tracer, call: Arguments, out: Out) -> None:
    _product(
        tracer,
        call.get(0, "input", call.kwargs.get("tensor1")),
        call.get(1, "other", call.kwargs.get("mat2", call.kwargs.get("tensor2"))),
        out,
    )


def _product(tracer: Tracer, a: Any, b: Any, out: torch.Tensor) -> None:
    if not (isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor) and out.ndim):
        return
    right, left = tracer.parameter_name(b), tracer.parameter_name(a)
    if right is not None and b.ndim >= 2 and tracer.traces.get(a) is not None:
        tracer.feed(right, a, 1, -1)
        dims = _lead(_dims(tracer, a)[:-1], out.ndim - 1)
        return _made(tracer, out, right, [*dims, ()], out.ndim - 1)
    if left is not None and a.ndim >= 2 and tracer.traces.get(b) is not None:
        tracer.feed(left, b, 1, -2 if b.ndim > 1 else -1)
        dims = _dims(tracer, b)
        dims = _lead([*dims[:-2], (), dims[-1]] if b.ndim > 1 else [()], out.ndim)
        return _made(tracer, out, left, dims, out.ndim - (2 if b.ndim > 1 else 1))
    if a.ndim < 2 or b.ndim < 2:
        return
    _contracted(tracer, a, b, out)


def grouped(tracer: Tracer, call: Arguments, out: Out) -> None:
    """grouped_mm: rows of the input, sorted by expert, times the matrix of their expert; features come last."""
    x, weight = call.get(0, "mat_a", call.kwargs.get("input")), call.get(1, "mat_b", call.kwargs.get("weight"))
    name = tracer.producer(weight, "grouped_mm")
    tracer.feed(name, x, 1, -1)
    _made(tracer, out, name, [*_lead(_dims(tracer, x)[:-1], out.ndim - 1), ()], out.ndim - 1)


def _telling(mine: Dim, theirs: Dim) -> Dim:
    """Return `theirs` where it holds as many entries and knows that they are samples, and `mine` does not."""
    same = lay.Layout((mine,)).shape == lay.Layout((theirs,)).shape
    return lay.strip(theirs) if same and lay.has(theirs, lay.BATCH) and not lay.has(mine, lay.BATCH) else mine


def _lead(dims: list[Dim], ndim: int) -> list[Dim]:
    return [()] * (ndim - len(dims)) + dims if len(dims) <= ndim else dims[-ndim:]


def _contracted(tracer: Tracer, a: torch.Tensor, b: torch.Tensor, out: torch.Tensor) -> None:
    """A product of two activations: rows of `a`, columns of `b`, units of the side that keeps them."""
    rows, columns = _lead(_dims(tracer, a), out.ndim), _lead(_dims(tracer, b), out.ndim)
    keeps_right = lay.has(columns[-1], lay.UNIT) or not lay.has(rows[-2], lay.UNIT)
    lead, other = (columns, rows) if keeps_right else (rows, columns)
    dims: list[Dim] = []
    for i, size in enumerate(out.shape[:-2]):
        mine, theirs = lay.Layout((lead[i],)).shape[0], lay.Layout((other[i],)).shape[0]
        dims.append(
            _telling(lead[i], other[i])
            if mine == size and lead[i]
            else lay.strip(other[i])
            if theirs == size
            else lay.position(size)
        )
    row = rows[-2] if not keeps_right else lay.strip(rows[-2])
    column = columns[-1] if keeps_right else lay.strip(columns[-1])
    layout = lay.normal((*dims, row, column))
    traces = [
        tracer.traces.get(b if keeps_right else a) or NOTHING,
        tracer.traces.get(a if keeps_right else b) or NOTHING,
    ]
    producers, lineage = union(traces)
    if lineage:
        tracer.traces.put(out, Trace(layout if layout.shape == tuple(out.shape) else None, producers, lineage))


def einsum(tracer: Tracer, call: Arguments, out: Out) -> None:
    """einsum with one parameter: letters that only the parameter brings are the units."""
    equation = call.args[0]
    operands = call.args[1] if len(call.args) == 2 and isinstance(call.args[1], (tuple, list)) else call.args[1:]
    if not isinstance(equation, str) or "->" not in equation or "..." in equation or not out.ndim:
        return _einsum_guess(tracer, operands, out)
    left, result = equation.replace(" ", "").split("->")
    inputs = left.split(",")
    weights = [
        i for i, t in enumerate(operands) if tracer.traces.get(t) is None and tracer.parameter_name(t) is not None
    ]
    letters: dict[str, Dim] = {}
    order = sorted(range(len(operands)), key=lambda i: not _keeps_units(tracer, operands[i], inputs[i], result))
    for rank, i in enumerate(i for i in order if i not in weights):
        for letter, dim in zip(inputs[i], _dims(tracer, operands[i]), strict=True):
            letters.setdefault(letter, dim if rank == 0 else lay.strip(dim))
    own = [c for c in result if c not in letters]
    if len(weights) == 1 and own:
        return _einsum_made(tracer, operands, weights[0], inputs, result, letters, out)
    producers, lineage = union(tracer.known(operands))
    layout = lay.normal(tuple(letters.get(c, ()) for c in result))
    if lineage:
        tracer.traces.put(out, Trace(layout if layout.shape == tuple(out.shape) else None, producers, lineage))


def _einsum_made(
    tracer: Tracer,
    operands: Any,
    weight: int,
    inputs: list[str],
    result: str,
    letters: dict[str, Dim],
    out: torch.Tensor,
) -> None:
    name = tracer.parameter_name(operands[weight]) or tracer.producer(operands[weight], "einsum")
    own = [c for c in result if c not in letters]
    stride = 1
    units: dict[str, Dim] = {}
    for c in reversed(own):
        size = out.shape[result.index(c)]
        units[c] = (lay.Factor(lay.UNIT, size, stride),)
        stride *= size
    for i, t in enumerate(operands):
        if i != weight:
            tracer.feed(name, t, 1, -1)
    layout = lay.normal(tuple(units[c] if c in units else lay.strip(letters[c]) for c in result))
    tracer.traces.put(out, Trace(layout if layout.shape == tuple(out.shape) else None, (name,), frozenset((name,))))


def _keeps_units(tracer: Tracer, tensor: Any, letters: str, result: str) -> bool:
    trace = tracer.traces.get(tensor)
    if trace is None or trace.layout is None:
        return False
    return any(c in result and lay.has(d, lay.UNIT) for c, d in zip(letters, trace.layout.dims, strict=True))


def _einsum_guess(tracer: Tracer, operands: Any, out: torch.Tensor) -> None:
    producers, lineage = union(tracer.known(operands))
    names = [n for t in operands if tracer.traces.get(t) is None and (n := tracer.parameter_name(t)) is not None]
    if names and out.ndim:
        first = next((t for t in operands if tracer.traces.get(t) is not None), None)
        dims = _lead(_dims(tracer, first)[:-1] if first is not None else [], out.ndim - 1)
        return _made(tracer, out, names[0], [*dims, ()], out.ndim - 1)
    if lineage:
        tracer.traces.put(out, Trace(None, producers, lineage))


def attention(tracer: Tracer, call: Arguments, out: Out) -> None:
    """scaled_dot_product_attention: rows of the query, units of the value."""
    q, v = call.get(0, "query"), call.get(2, "value")
    value = tracer.traces.get(v)
    if value is None or value.layout is None:
        return
    dims, rows = list(value.layout.dims), _dims(tracer, q)
    dims[-2] = lay.strip(rows[-2])
    if len(rows) == len(dims):  # learned keys and values do not know of the samples
        dims[:-2] = [_telling(mine, theirs) for mine, theirs in zip(dims[:-2], rows[:-2], strict=True)]
    layout = lay.normal(tuple(dims))
    tracer.traces.put(out, value.moved(layout if layout.shape == tuple(out.shape) else None))


def multi_head_attention(tracer: Tracer, call: Arguments, out: Out) -> None:
    """F.multi_head_attention_forward: made by its output projection; rows of the query, samples of either side."""
    result = out[0] if isinstance(out, tuple) else out
    query, key, weight = call.get(0, "query"), call.get(1, "key"), call.get(11, "out_proj_weight")
    dims = _dims(tracer, query)[:-1]
    if len(dims) == 2:  # learned queries, the same for every sample, do not know of the samples
        dims[1] = _telling(dims[1], _dims(tracer, key)[1])
    _made(tracer, result, tracer.producer(weight, "attention"), [*dims, ()], result.ndim - 1)


def recurrent(tracer: Tracer, call: Arguments, out: Out) -> None:
    """Fused RNN, LSTM, GRU: hidden features are the last dimension of what they return."""
    x = call.args[0]
    if not isinstance(x, torch.Tensor):
        return
    name = tracer.scope() or "rnn()"
    first = out[0] if isinstance(out, tuple) else out
    _made(tracer, first, name, [*_dims(tracer, x)[: first.ndim - 1], ()], first.ndim - 1)
    for state in out[1:] if isinstance(out, tuple) else ():
        dims = [lay.position(state.shape[0]), *[lay.batch(n) for n in state.shape[1:-1]], ()]
        if state.ndim >= 2:
            _made(tracer, state, name, [*dims[: state.ndim - 1], ()], state.ndim - 1)


def pad_packed(tracer: Tracer, call: Arguments, out: Out) -> None:
    """pad_packed_sequence: a row per sequence again, longest first until they are put back in order."""
    trace = tracer.traces.get(call.get(0, "data"))
    padded = out[0]
    if trace is None or trace.layout is None or padded.ndim != len(trace.layout.dims) + 1:
        return
    rows = 0 if call.get(2, "batch_first") else 1
    dims = [lay.position(n) for n in padded.shape[:2]] + list(trace.layout.dims[1:])
    dims[rows] = lay.batch(padded.shape[rows])
    tracer.traces.put(padded, trace.moved(lay.normal(tuple(dims))))


def norm_over_channels(tracer: Tracer, call: Arguments, out: Out) -> None:
    """batch_norm, instance_norm, group_norm: dimension 1, unless the units are known."""
    weight = call.kwargs.get("weight", next((t for t in call.args[1:] if isinstance(t, torch.nn.Parameter)), None))
    _normed(tracer, call, out, weight, 1)


def norm_over_last(tracer: Tracer, call: Arguments, out: Out) -> None:
    """layer_norm, rms_norm over one dimension: the last, unless the units are known."""
    shape = call.get(1, "normalized_shape")
    one = isinstance(shape, int) or (isinstance(shape, (tuple, list)) and len(shape) == 1)
    _normed(tracer, call, out, call.get(2, "weight"), out.ndim - 1 if one else None)


def _normed(tracer: Tracer, call: Arguments, out: torch.Tensor, weight: Any, at: int | None) -> None:
    x = call.get(0, "input")
    name = tracer.producer(weight, "norm")
    trace = tracer.traces.get(x) or NOTHING
    layout = trace.layout
    if layout is None or layout.units is None:
        dims = _dims(tracer, x)
        layout = lay.with_units(dims, at, out.shape[at]) if at is not None and at < out.ndim else trace.layout
        tracer.feed(name, x, 1, -1)
    tracer.traces.put(out, Trace(layout, trace.producers or (name,), frozenset((name,))))
