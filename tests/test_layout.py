"""Layouts against brute force: the unit and the sample of each element, from the definition of a factor (layouts.py).

Ops of torch that move layouts are tested in test_views.py.
"""

from __future__ import annotations

from math import prod

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from layouts import assert_says, elements, indices, layouts, permutations, renumbered, shapes

from deadrelu.tracing import layout as lay
from deadrelu.tracing.layout import BATCH, POSITION, UNIT, Factor, Layout, batch, position, unit

fixed = settings(derandomize=True, deadline=None, max_examples=300)


@fixed
@given(layouts())
def test_extents(layout: Layout) -> None:
    """shape, units, samples, unit_dim, against counting the different indices."""
    units, samples = indices(layout, UNIT), indices(layout, BATCH)
    assert_says(layout, units, samples)
    dims = [d for d, dim in enumerate(layout.dims) if any(f.role == UNIT for f in dim)]
    assert (layout.units is None, layout.unit_dim) == (not dims, dims[0] if dims else None)
    for d in dims:
        assert lay.has(layout.dims[d], UNIT)
    assert layout.extent(POSITION) in (elements(layout) // ((layout.units or 1) * (layout.samples or 1)), None)


@fixed
@given(layouts())
def test_plan(layout: Layout) -> None:
    """The axes of a plan enumerate units and samples in order, and leave out none."""
    plan = lay.plan(layout)
    assert sorted((*plan.units, *plan.batch, *plan.positions)) == list(range(len(plan.shape)))
    counts = (plan.sample_count, plan.unit_count, plan.position_count)
    assert counts[:2] == (layout.samples or 1, layout.units or 1)
    assert prod(counts) == elements(layout)
    assert plan.expand in (None, plan.shape)
    order = (*plan.batch, *plan.units, *plan.positions)
    for role, expected in ((BATCH, torch.arange(counts[0])[:, None, None]), (UNIT, torch.arange(counts[1])[:, None])):
        rows = plan.view(indices(layout, role)).permute(order).reshape(counts)
        assert torch.equal(rows, expected.expand(counts))


@fixed
@given(layouts())
def test_matrix_is_samples_by_units(layout: Layout) -> None:
    """What is left after the positions were reduced away: entry (s, u) is of sample s and unit u."""
    plan = lay.plan(layout)
    for role, dim in ((BATCH, 0), (UNIT, 1)):
        reduced = plan.view(indices(layout, role))
        reduced = reduced.amax(plan.positions) if plan.positions else reduced
        found = plan.matrix(reduced)
        assert found.shape == (plan.sample_count, plan.unit_count)
        assert torch.equal(
            found, torch.arange(found.shape[dim]).view([-1, 1] if dim == 0 else [1, -1]).expand_as(found)
        )


@fixed
@given(layout=layouts(), data=st.data())
def test_regroup_never_says_anything_wrong(layout: Layout, data: st.DataObject) -> None:
    shape = data.draw(shapes(elements(layout)))
    found = lay.regroup(layout, shape)
    if found is not None:
        assert_says(found, indices(layout, UNIT).reshape(shape), indices(layout, BATCH).reshape(shape))
        assert (found.units, found.samples) == (layout.units, layout.samples)


@pytest.mark.parametrize(
    ("layout", "shape", "units"),
    [
        (Layout((position(0), unit(8))), (0, 2, 4), 8),
        (Layout((position(0), position(7), unit(8))), (0, 8), 8),
        (Layout((batch(3), position(0), unit(8))), (0, 8), 8),
        (Layout((batch(3), position(0), unit(8))), (3, 0, 4, 2), 8),
        (Layout((unit(8), position(0))), (8, 0), 8),
        (Layout((unit(8), position(0))), (2, 4, 1, 0), 8),
        (Layout((position(0), unit(8))), (8, 0), None),
    ],
)
def test_regroup_of_nothing(layout: Layout, shape: tuple[int, ...], units: int | None) -> None:
    """An expert that got no token: the units are still known, so that it is the same site as in the other batches."""
    found = lay.regroup(layout, shape)
    if units is not None:
        assert found is not None
        assert (found.shape, found.units) == (shape, units)
    assert found is None or found.shape == shape


def test_regroup_refuses_another_number_of_elements() -> None:
    layout = Layout((batch(4), unit(6)))
    assert lay.regroup(layout, (4, 5)) is None
    assert lay.regroup(layout, (4, 6, 2)) is None
    assert lay.regroup(layout, (4,)) is None


@fixed
@given(layout=layouts(), data=st.data())
def test_drop(layout: Layout, data: st.DataObject) -> None:
    """A reduction keeps what the other dimensions hold, numbered anew: as the first slice of those dropped."""
    ndim = len(layout.dims)
    gone = data.draw(st.sets(st.integers(-ndim, ndim - 1))) if ndim else set()
    keep = data.draw(st.booleans())
    firsts = tuple(slice(0, 1) if d in {g % ndim for g in gone} else slice(None) for d in range(ndim))
    shape = [n for d, n in enumerate(layout.shape) if keep or d not in {g % ndim for g in gone}]
    units, samples = (renumbered(indices(layout, role)[firsts]) for role in (UNIT, BATCH))
    if keep:
        shape = list(units.shape)
    found = lay.drop(layout, gone, keep=keep)
    assert_says(found, units.reshape(shape), samples.reshape(shape))


@fixed
@given(layout=layouts(), data=st.data())
def test_permute_and_insert(layout: Layout, data: st.DataObject) -> None:
    order = data.draw(permutations(len(layout.dims)))
    at = data.draw(st.integers(0, len(order)))
    found = lay.insert(lay.permute(layout, order), at, position(3))
    expected = (indices(layout, role).permute(order).unsqueeze(at) for role in (UNIT, BATCH))
    assert_says(found, *(ids.repeat_interleave(3, at) for ids in expected))


@fixed
@given(layout=layouts(), role=st.sampled_from([UNIT, BATCH]))
def test_strip(layout: Layout, role: str) -> None:
    """One role is forgotten, the other stays."""
    found = Layout(tuple(lay.strip(dim, role) for dim in layout.dims))
    other = BATCH if role == UNIT else UNIT
    assert found.shape == layout.shape
    assert found.extent(role) is None
    assert found.extent(other) == layout.extent(other)
    assert torch.equal(indices(found, other), indices(layout, other))


@fixed
@given(layout=layouts(folded=False), size=st.integers(1, 9), data=st.data())
def test_with_units(layout: Layout, size: int, data: st.DataObject) -> None:
    """A Linear over one dimension: its features are the units; samples are as before, but for what it consumed."""
    if not layout.dims:
        return
    at = data.draw(st.integers(0, len(layout.dims) - 1))
    found = lay.with_units(layout.dims, at, size)
    samples = renumbered(indices(layout, BATCH).narrow(at, 0, 1)).repeat_interleave(size, at)
    units = torch.arange(size).view([-1 if d == at else 1 for d in range(samples.ndim)]).expand_as(samples)
    assert_says(found, units, samples)
    assert found.units == size


@fixed
@given(layout=layouts(), data=st.data())
def test_normal_closes_strides_up(layout: Layout, data: st.DataObject) -> None:
    """After some factors are gone, what is left is numbered 0, 1, 2...; what is closed up stays."""
    closed = lay.normal(layout.dims)
    assert lay.normal(closed.dims) == closed
    assert_says(closed, indices(layout, UNIT), indices(layout, BATCH))
    gone = data.draw(st.sets(st.integers(0, 9)))
    kept = [f for dim in layout.dims for f in dim]
    kept = [f for i, f in enumerate(kept) if i not in gone]
    raw = Layout(tuple((f,) for f in kept))
    assert_says(lay.normal(raw.dims), renumbered(indices(raw, UNIT)), renumbered(indices(raw, BATCH)))


@pytest.mark.parametrize(
    ("dims", "roles"),
    [
        ((batch(4), unit(6), unit(6)), (BATCH, UNIT, POSITION)),
        ((unit(6), (), unit(6), batch(4)), (UNIT, None, POSITION, BATCH)),
        ((batch(4), batch(4), unit(6)), (BATCH, POSITION, UNIT)),
    ],
)
def test_two_dimensions_cannot_both_number_the_units(dims: tuple[lay.Dim, ...], roles: tuple[str | None, ...]) -> None:
    """A pairwise difference of the units with themselves has the units of the first operand, once."""
    found = lay.normal(dims)
    assert tuple(dim[0].role if dim else None for dim in found.dims) == roles
    assert found.shape == Layout(dims).shape


@pytest.mark.parametrize(
    ("dim", "size", "expected"),
    [
        (unit(6), 6, unit(6)),
        (unit(6), 4, unit(4)),
        (batch(5), 3, batch(3)),
        (position(7), 3, position(3)),
        (position(7), 1, ()),
        ((), 3, position(3)),
        ((Factor(UNIT, 3, 2), Factor(POSITION, 4)), 12, (Factor(UNIT, 3, 2), Factor(POSITION, 4))),
        ((Factor(BATCH, 3, 1), Factor(POSITION, 4)), 6, position(6)),
    ],
)
def test_resized(dim: lay.Dim, size: int, expected: lay.Dim) -> None:
    """Pooling, padding and cuts keep the role of a dimension that has one; of a folded one nothing is known."""
    assert lay.resized(dim, size) == expected


@st.composite
def operand(draw: st.DrawFn, layout: Layout) -> tuple[Layout, set[str]]:
    """Draw what one operand knows of a layout, and of which roles: the others were reduced away, or are unknown."""
    role_of = [dim[0].role if dim else POSITION for dim in layout.dims]
    fate = {role: draw(st.sampled_from(["known", "reduced", "unknown"])) for role in (UNIT, BATCH, POSITION)}
    dims = [
        () if fate[role] == "reduced" else lay.strip(dim, role) if fate[role] == "unknown" else dim
        for dim, role in zip(layout.dims, role_of, strict=True)
    ]
    leading = next((d for d, dim in enumerate(dims) if dim), len(dims))
    known = {role for role in role_of if fate[role] == "known"}
    return Layout(tuple(dims[draw(st.integers(0, leading)) :])), known


@fixed
@given(layout=layouts(folded=False), data=st.data())
def test_broadcast_knows_what_any_operand_knows(layout: Layout, data: st.DataObject) -> None:
    """Operands of the same units and samples, each without some of the roles or leading dimensions, in any order."""
    drawn = [data.draw(operand(layout)) for _ in range(data.draw(st.integers(1, 3)))]
    shape = tuple(torch.broadcast_shapes(*(o.shape for o, _ in drawn)))
    found = lay.broadcast(tuple(o for o, _ in drawn), tuple(o.shape for o, _ in drawn), shape)
    assert found is not None
    assert found.shape == shape
    known = set().union(*(roles for _, roles in drawn))
    for role in (UNIT, BATCH):
        assert (found.extent(role) or 1) == (layout.extent(role) or 1 if role in known else 1)
        if role in known:
            lead = len(layout.dims) - len(shape)
            ids = indices(layout, role)[(0,) * lead]
            ids = ids[tuple(slice(0, n) for n in shape)]
            assert torch.equal(indices(found, role), ids.expand(shape))


@pytest.mark.parametrize(
    ("layouts", "shapes", "expected"),
    [
        # outer difference: the units of the first
        (((batch(4), unit(6), ()), (batch(4), (), unit(6))), ((4, 6, 1), (4, 1, 6)), (batch(4), unit(6), position(6))),
        # one unit, stretched over a vector with an entry per unit
        (((batch(4), position(9), unit(1)), (unit(6),)), ((4, 9, 1), (6,)), (batch(4), position(9), unit(6))),
        # a gate of one unit times features
        (((batch(4), unit(1)), (batch(4), unit(6))), ((4, 1), (4, 6)), (batch(4), unit(6))),
        # a table of positions, of which nothing is known, beside tokens
        (((batch(4), position(9), unit(6)), None), ((4, 9, 6), (9, 6)), (batch(4), position(9), unit(6))),
        # one unit against a tensor of which nothing is known
        (((batch(4), unit(1)), None), ((4, 1), (4, 6)), (batch(4), position(6))),
    ],
)
def test_broadcast(
    layouts: tuple[tuple[lay.Dim, ...] | None, ...], shapes: tuple[tuple[int, ...], ...], expected: tuple[lay.Dim, ...]
) -> None:
    operands = tuple(dims if dims is None else Layout(dims) for dims in layouts)
    shape = tuple(torch.broadcast_shapes(*shapes))
    assert lay.broadcast(operands, shapes, shape) == Layout(expected)


def test_broadcast_of_nothing_known() -> None:
    assert lay.broadcast((None, None), ((3,), (3,)), (3,)) is None


@st.composite
def single(draw: st.DrawFn) -> Layout:
    """Draw a layout of units, samples and one sort of positions, in up to three dimensions."""
    factors = [Factor(BATCH, draw(st.integers(1, 5)), 1), Factor(POSITION, draw(st.integers(2, 5)))]
    split = draw(st.booleans())
    factors += [Factor(UNIT, 2, 3), Factor(UNIT, 3, 1)] if split else [Factor(UNIT, 6, 1)]
    dims: list[lay.Dim] = []
    for factor in draw(st.permutations(factors)):
        if dims and draw(st.booleans()):
            dims[-1] = (*dims[-1], factor)
        else:
            dims.append((factor,))
    return Layout(tuple(dims))


@fixed
@given(layout=single(), rows=st.integers(1, 7), length=st.integers(2, 7))
def test_refit(layout: Layout, rows: int, length: int) -> None:
    """A batch of other rows, of another length: the layout that the same ops would have made of it."""
    sizes = {BATCH: rows, POSITION: length}
    expected = Layout(tuple(tuple(f._replace(size=sizes.get(f.role, f.size)) for f in dim) for dim in layout.dims))
    assert lay.refit(layout, expected.shape, rows) == expected


@pytest.mark.parametrize("shape", [(4, 6, 1), (4,), (4, 7), (4, 12)])
def test_refit_refuses_other_units(shape: tuple[int, ...]) -> None:
    assert lay.refit(Layout((batch(3), unit(6))), shape, 4) is None
