"""Random layouts, and what a layout says of each element, worked out from the definition of a factor."""

from __future__ import annotations

from math import prod

import torch
from hypothesis import strategies as st
from torch import Tensor

from deadrelu.tracing.layout import BATCH, POSITION, UNIT, Dim, Factor, Layout

SIZES = st.sampled_from([1, 2, 2, 3, 3, 4, 5])


@st.composite
def factors_of(draw: st.DrawFn, role: str) -> list[Factor]:
    """Draw up to two factors that together number a role once: strides close up, from the inside out."""
    factors: list[Factor] = []
    stride = 1
    for i in range(draw(st.integers(0, 2))):
        size = draw(SIZES.filter(lambda n, first=i == 0 and role != POSITION: first or n > 1))
        factors.insert(0, Factor(role, size, stride if role != POSITION else 0))
        stride *= size
    return factors


@st.composite
def layouts(draw: st.DrawFn, *, folded: bool = True) -> Layout:
    """Draw a layout: units, samples, positions, in up to two factors each, in any order and in any dimensions.

    Without `folded` no dimension holds two factors.
    """
    factors = [f for role in (UNIT, BATCH, POSITION) for f in draw(factors_of(role))]
    factors = draw(st.permutations(factors))
    dims: list[Dim] = [()] * draw(st.integers(0, 1))
    for factor in factors:
        if folded and dims and draw(st.booleans()):
            dims[-1] = (*dims[-1], factor)
        else:
            dims.append((factor,))
    return Layout(tuple(dims))


def indices(layout: Layout, role: str) -> Tensor:
    """Return the index of the unit (or sample) of each element, shape of the layout; 0 where no factor has the role."""
    factors = [f for dim in layout.dims for f in dim]
    total = torch.zeros([f.size for f in factors], dtype=torch.int64)
    for axis, factor in enumerate(factors):
        if factor.role == role:
            steps = torch.arange(factor.size) * factor.stride
            total += steps.view([-1 if i == axis else 1 for i in range(len(factors))])
    return total.reshape(layout.shape)


def renumbered(ids: Tensor) -> Tensor:
    """Return 0, 1, 2... for the different entries in ascending order."""
    return torch.unique(ids, return_inverse=True)[1].reshape(ids.shape)


def assert_says(layout: Layout, units: Tensor, samples: Tensor) -> None:
    """The layout says of each element what these tensors of its shape hold; or, of samples, that they are lost."""
    assert layout.shape == tuple(units.shape)
    assert torch.equal(indices(layout, UNIT), units)
    assert layout.units in (units.unique().numel(), None)
    if layout.samples is not None:
        assert torch.equal(indices(layout, BATCH), samples)
        assert layout.samples == samples.unique().numel()


def permutations(size: int) -> st.SearchStrategy[tuple[int, ...]]:
    return st.permutations(range(size)).map(tuple)


@st.composite
def shapes(draw: st.DrawFn, total: int) -> tuple[int, ...]:
    """Draw a shape of `total` elements, with a 1 here and there."""
    shape = []
    while total > 1:
        shape.append(draw(st.sampled_from([d for d in range(2, total + 1) if total % d == 0])))
        total //= shape[-1]
    at = draw(st.integers(0, len(shape)))
    return (*shape[:at], *draw(st.sampled_from([(), (1,)]) if shape else st.just((1,))), *shape[at:])


def elements(layout: Layout) -> int:
    return prod(layout.shape)
