"""Ops that move, cut or repeat the dimensions of a tensor, against brute force.

Tensors that hold the index of the unit and of the sample of each element go through the same torch ops as the traced
tensor, and must hold what its layout says. A cut keeps some of the units or samples: they are numbered anew, in order.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from layouts import assert_says, elements, indices, layouts, permutations, renumbered, shapes
from torch import Tensor, nn

from deadrelu.kinds import Arguments
from deadrelu.tracing import ParameterNames, Trace, Tracer, Traces, canonical_name, propagate
from deadrelu.tracing.layout import BATCH, UNIT, Layout, batch, has, position, unit

fixed = settings(derandomize=True, deadline=None, max_examples=300)

Op = tuple[str, tuple[Any, ...]]


class Carried:
    """A tensor with a trace, beside tensors of the unit and the sample of each of its elements."""

    def __init__(self, layout: Layout) -> None:
        self.tracer = Tracer(Traces(), ParameterNames(nn.Module(), str), str, lambda *_: None)
        self.x = torch.zeros(layout.shape)
        self.units, self.samples = indices(layout, UNIT), indices(layout, BATCH)
        self.tracer.traces.put(self.x, Trace(layout))

    @property
    def layout(self) -> Layout | None:
        trace = self.tracer.traces.get(self.x)
        return trace and trace.layout

    def apply(self, op: Op) -> None:
        """Run one op on all three tensors; of several results, the second (or only) one goes on."""
        name, args = op
        function = getattr(torch.Tensor, name)
        out = function(self.x, *args)
        propagate(canonical_name(function), self.tracer, Arguments((self.x, *args), {}), out)
        units, samples = function(self.units, *args), function(self.samples, *args)
        if isinstance(out, (tuple, list)):
            out, units, samples = out[:2][-1], units[:2][-1], samples[:2][-1]
        self.x, self.units, self.samples = out, renumbered(units), renumbered(samples)

    def check(self, *, finer: bool = False) -> None:
        """The layout says what the tensors hold; `finer`: it may tell apart what is one unit."""
        layout = self.layout
        assert layout is not None
        if finer:
            told = indices(layout, UNIT)
            pairs = torch.stack((told, self.units)).flatten(1).unique(dim=1)
            assert pairs.shape[1] == told.unique().numel()
            self.units = told
        if layout.samples is None:  # lost, and said so; what comes after is no claim
            self.samples = torch.zeros_like(self.samples)
        assert_says(layout, self.units, self.samples)


def moves(shape: torch.Size) -> list[st.SearchStrategy[Op]]:
    """Ops that keep every element, and that every layout can follow."""
    ndim = len(shape)
    found = [
        permutations(ndim).map(lambda order: ("permute", (order,))),
        st.integers(-ndim - 1, ndim).map(lambda d: ("unsqueeze", (d,))),
        st.just(("squeeze", ())),
        st.just(("flatten", ())),
    ]
    if ndim:
        dim = st.integers(-ndim, ndim - 1)
        found += [
            dim.map(lambda d: ("squeeze", (d,))),
            st.tuples(dim, dim).map(lambda pair: ("transpose", pair)),
            st.tuples(dim, dim).map(lambda pair: ("movedim", pair)),
            st.tuples(dim, dim).map(lambda pair: ("flatten", tuple(sorted(d % ndim for d in pair)))),
            st.sampled_from([(..., None, slice(None)), (None, ...), slice(None)]).map(lambda i: ("__getitem__", (i,))),
        ]
    return [*found, st.just(("t", ()))] if ndim == 2 else found


def parts(shape: torch.Size) -> list[st.SearchStrategy[Op]]:
    """Ops that keep a part of one dimension, or repeat it."""
    found: list[st.SearchStrategy[Op]] = [st.just(("expand", (2, *shape)))]
    for d, n in enumerate(shape):
        skip = (slice(None),) * d
        one = tuple(2 if i == d else 1 for i in range(len(shape)))
        start, size = st.integers(0, n - 1), st.integers(1, n)
        found += [
            start.map(lambda i, d=d: ("select", (d, i))),
            size.map(lambda k, d=d: ("chunk", (k, d))),
            size.map(lambda k, d=d: ("split", (k, d))),
            st.tuples(start, size).map(lambda p, d=d, n=n: ("narrow", (d, p[0], min(p[1], n - p[0])))),
            start.map(lambda i, skip=skip: ("__getitem__", ((*skip, slice(i, None, 2)),))),
            start.map(lambda i, skip=skip: ("__getitem__", ((*skip, None, i),))),
            st.sampled_from([("unbind", (d,)), ("repeat_interleave", (3, d)), ("repeat", one)]),
        ]
        if n == 1:
            found.append(st.just(("expand", tuple(3 if i == d else -1 for i in range(len(shape))))))
    return found


def cuts_folded_units(op: Op, layout: Layout) -> bool:
    """True if the op keeps a part of a dimension that holds units beside something else.

    There every entry may become a unit of its own, as where flattened channels are cut in the midst of one.
    """
    folded = any(len(dim) > 1 and has(dim, UNIT) for dim in layout.dims)
    return folded and op[0] in ("chunk", "split", "narrow", "__getitem__")


def separable(ids: Tensor) -> bool:
    """True if the index is a sum of one number per dimension: else no factors can say it."""
    first = ids.flatten()[0]
    total = first.expand(ids.shape)
    for d in range(ids.ndim):
        total = total + ids[tuple(slice(None) if i == d else slice(0, 1) for i in range(ids.ndim))] - first
    return torch.equal(total, ids)


@fixed
@given(layout=layouts(), data=st.data())
def test_moves_lose_nothing(layout: Layout, data: st.DataObject) -> None:
    """permute, transpose, movedim, unsqueeze, squeeze, flatten, t: exact, in any order."""
    carried = Carried(layout)
    for _ in range(data.draw(st.integers(1, 5))):
        carried.apply(data.draw(st.one_of(moves(carried.x.shape))))
        carried.check()


@fixed
@given(layout=layouts(), data=st.data())
def test_a_view_is_followed_wherever_factors_can_say_it(layout: Layout, data: st.DataObject) -> None:
    """view, reshape, unflatten: exact; unknown only where a dimension would mix what no factor can tell apart."""
    carried = Carried(layout)
    for _ in range(data.draw(st.integers(1, 3))):
        carried.apply(data.draw(st.one_of(moves(carried.x.shape))))
        before = carried.layout
        assert before is not None
        shape = data.draw(shapes(elements(before)))
        carried.apply(("view" if carried.x.is_contiguous() else "reshape", shape))
        if carried.layout is None:
            ones = any(f.size == 1 for dim in before.dims for f in dim)  # in the way of neighbours that belong together
            assert ones or not (separable(carried.units) and separable(carried.samples))
            return
        carried.check()


@fixed
@given(layout=layouts(), data=st.data())
def test_unflatten_undoes_flatten(layout: Layout, data: st.DataObject) -> None:
    """Whatever was folded into one dimension comes out of it again."""
    carried = Carried(layout)
    shape = carried.x.shape
    if len(shape):
        first, last = sorted(data.draw(st.tuples(*[st.integers(0, len(shape) - 1)] * 2)))
        carried.apply(("flatten", (first, last)))
        carried.apply(("unflatten", (first, shape[first : last + 1])))
        carried.check()


@fixed
@given(layout=layouts(), data=st.data())
def test_parts(layout: Layout, data: st.DataObject) -> None:
    """select, chunk, split, narrow, slices, unbind, expand, repeat: exact, in any order with moves."""
    carried = Carried(layout)
    for _ in range(data.draw(st.integers(1, 4))):
        op = data.draw(st.one_of(parts(carried.x.shape) + moves(carried.x.shape)))
        before = carried.layout
        assert before is not None
        carried.apply(op)
        carried.check(finer=cuts_folded_units(op, before))


@pytest.mark.parametrize(
    ("ops", "units", "samples"),
    [
        ([("expand", (-1, 5))], 1, 4),
        ([("repeat", (1, 5))], 1, 4),
        ([("unsqueeze", (1,)), ("expand", (-1, 3, -1))], 1, 4),
        ([("select", (0, 1)), ("expand", (7,))], 1, None),
        ([("chunk", (2, 0))], 1, 2),
    ],
)
def test_copies_of_one_unit_are_that_unit(ops: list[Op], units: int, samples: int | None) -> None:
    """Source: DESIGN 2: units stay the producer's. A gate of one unit that is stretched over features is one unit."""
    carried = Carried(Layout((batch(4), unit(1))))
    for op in ops:
        carried.apply(op)
        carried.check()
    assert carried.layout is not None
    assert (carried.layout.units, carried.layout.samples) == (units, samples)


def test_copies_of_one_row_are_one_sample() -> None:
    """Source: DESIGN 2: a sample is a row of the model's batch, also of a batch of one row."""
    carried = Carried(Layout((batch(1), position(3), unit(2))))
    carried.apply(("expand", (6, -1, -1)))
    carried.check()
    assert carried.layout is not None
    assert (carried.layout.units, carried.layout.samples) == (2, 1)


def test_a_cut_through_one_part_of_the_batch_loses_all_of_it() -> None:
    """Two dimensions number the samples together: what is left in one of them alone numbers nothing."""
    carried = Carried(Layout((batch(6), position(2), unit(3))))
    for op in (("view", (2, 6, 3)), ("narrow", (1, 1, 4))):
        carried.apply(op)
        carried.check()
    assert carried.layout is not None
    assert (carried.layout.units, carried.layout.samples) == (3, None)
