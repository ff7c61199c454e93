"""Layout: what the dimensions of a tensor hold - units, samples, positions - and how views move them.

Each dimension is a tuple of *factors*, outermost first. A factor has a role (unit, batch or position), a size, and a
stride: how far one step along it moves the index of the unit (or the sample). A view that folds tokens into the batch
makes one dimension of two factors; a view that splits features into heads makes two dimensions of one factor each.
Units stay the producer's in both: their factors, ordered by stride, always enumerate the same `units`.

Factors of size 1 are dropped, except those of units and samples: a layer of one unit or a batch of one has an axis.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from math import prod
from typing import NamedTuple

from ..kernels import Plan

UNIT = "unit"
BATCH = "batch"
POSITION = "position"


class Factor(NamedTuple):
    """Part of one dimension: its role, its size, and the stride of its index (0 for positions)."""

    role: str
    size: int
    stride: int = 0


Dim = tuple[Factor, ...]


class Layout(NamedTuple):
    """What each dimension of a tensor holds, outermost factor first."""

    dims: tuple[Dim, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(prod(f.size for f in dim) for dim in self.dims)

    def extent(self, role: str) -> int | None:
        """Return the product of the sizes of all factors of `role`; None if there are none."""
        sizes = [f.size for dim in self.dims for f in dim if f.role == role]
        return prod(sizes) if sizes else None

    @property
    def units(self) -> int | None:
        """Number of units, None if no dimension holds them."""
        return self.extent(UNIT)

    @property
    def samples(self) -> int | None:
        """Number of samples, None if the batch axis is lost (or never was)."""
        return self.extent(BATCH)

    @property
    def unit_dim(self) -> int | None:
        """The first dimension that holds units, None if there is none."""
        for i, dim in enumerate(self.dims):
            if any(f.role == UNIT for f in dim):
                return i
        return None


def position(size: int) -> Dim:
    """Return a dimension of positions."""
    return (Factor(POSITION, size),) if size != 1 else ()


def unit(size: int) -> Dim:
    """Return a dimension that holds all units."""
    return (Factor(UNIT, size, 1),)


def batch(size: int) -> Dim:
    """Return a dimension that holds all samples."""
    return (Factor(BATCH, size, 1),)


def strip(dim: Dim, role: str = UNIT) -> Dim:
    """Return `dim` with the factors of `role` turned into positions."""
    return tuple(Factor(POSITION, f.size) if f.role == role else f for f in dim if f.role != role or f.size != 1)


def has(dim: Dim, role: str) -> bool:
    """True if `dim` holds a factor of `role`."""
    return any(f.role == role for f in dim)


@lru_cache(maxsize=4096)
def normal(dims: tuple[Dim, ...]) -> Layout:
    """Return the layout of `dims` with strides closed up, after factors were lost or sliced.

    Two factors of one role and one stride cannot both index the units (a pairwise difference x[:, :, None] -
    x[:, None, :]): the first in memory order keeps the role, the others become positions.
    """
    return Layout(_closed(_closed(dims, UNIT), BATCH))


def _closed(dims: tuple[Dim, ...], role: str) -> tuple[Dim, ...]:
    held = [(f.stride, order, i, j) for order, (i, j, f) in enumerate(_numbered(dims)) if f.role == role]
    held.sort()
    new: dict[tuple[int, int], Factor] = {}
    stride, top = 1, 0
    for at, _, i, j in held:
        size = dims[i][j].size
        if size != 1 and at < top:  # overlaps with a factor before it
            new[i, j] = Factor(POSITION, size)
            continue
        new[i, j] = Factor(role, size, stride)
        stride *= size
        top = at * size if size != 1 else top
    return tuple(tuple(new.get((i, j), f) for j, f in enumerate(dim)) for i, dim in enumerate(dims))


def _numbered(dims: tuple[Dim, ...]) -> Iterable[tuple[int, int, Factor]]:
    return ((i, j, f) for i, dim in enumerate(dims) for j, f in enumerate(dim))


@lru_cache(maxsize=4096)
def regroup(layout: Layout, shape: tuple[int, ...]) -> Layout | None:
    """Return the layout after a view or reshape to `shape`; None if the factors do not fit it.

    >>> tokens = Layout((batch(4), position(7), unit(6)))
    >>> folded = regroup(tokens, (28, 6))
    >>> folded.samples, folded.units
    (4, 6)
    >>> heads = regroup(folded, (4, 7, 2, 3))
    >>> heads.dims[2], heads.dims[3]
    ((Factor(role='unit', size=2, stride=3),), (Factor(role='unit', size=3, stride=1),))
    """
    pending = list(_joined(tuple(f for dim in layout.dims for f in dim)))
    pending.reverse()
    dims: list[Dim] = []
    for i, size in enumerate(shape):
        dim: list[Factor] = []
        rest = size
        if size == 1 and pending and pending[-1].size == 1:
            dim.append(pending.pop())
        if size == 0:  # an expert that got no token: takes whatever the dimensions after it do not hold
            while pending and prod(f.size for f in pending) != prod(shape[i + 1 :]):
                dim.append(pending.pop())
        while rest > 1:
            if not pending:
                return None
            f = pending.pop()
            if f.size and rest % f.size == 0:
                dim.append(f)
                rest //= f.size
            elif f.size % rest == 0:
                inner = f.size // rest
                dim.append(Factor(f.role, rest, f.stride * inner))
                pending.append(Factor(f.role, inner, f.stride))
                rest = 1
            else:
                return None
        dims.append(tuple(dim))
    if any(f.size != 1 for f in pending):
        return None
    if pending and dims:  # factors of size 1 that no dimension of size 1 was left for
        dims[-1] = dims[-1] + tuple(reversed(pending))
    return Layout(tuple(_joined(dim) for dim in dims))


def _joined(dim: Dim) -> Dim:
    """Join neighbours that a view split before: (2, stride 3)(3, stride 1) is (6, stride 1) again."""
    out: list[Factor] = []
    for f in dim:
        last = out[-1] if out else None
        if last and last.role == f.role and (f.role == POSITION or last.stride == f.stride * f.size):
            out[-1] = Factor(f.role, last.size * f.size, f.stride)
        else:
            out.append(f)
    return tuple(out)


def permute(layout: Layout, order: Sequence[int]) -> Layout:
    """Return the layout after a permutation of the dimensions."""
    return Layout(tuple(layout.dims[i] for i in order))


def drop(layout: Layout, dims: Iterable[int], *, keep: bool = False) -> Layout:
    """Return the layout after a reduction over `dims`, which stay with size 1 if `keep`."""
    gone = {d % len(layout.dims) for d in dims} if layout.dims else set()
    left = ((() if i in gone else dim) for i, dim in enumerate(layout.dims) if keep or i not in gone)
    return normal(tuple(left))


def insert(layout: Layout, at: int, dim: Dim = ()) -> Layout:
    """Return the layout with `dim` inserted before dimension `at`."""
    return Layout((*layout.dims[:at], dim, *layout.dims[at:]))


def resized(dim: Dim, size: int) -> Dim:
    """Return `dim` after its extent became `size` (pooling, padding, slicing): what can be kept of its roles."""
    if prod(f.size for f in dim) == size:
        return dim
    if len(dim) == 1 and dim[0].role != POSITION:
        return (Factor(dim[0].role, size, dim[0].stride),)
    return position(size)


def with_units(dims: Sequence[Dim], at: int, size: int) -> Layout:
    """Return the layout of `dims` with `size` new units in dimension `at`; the units there were become positions."""
    new = [strip(dim) for dim in dims]
    new[at] = unit(size)
    return normal(tuple(new))


@lru_cache(maxsize=4096)
def broadcast(
    layouts: tuple[Layout | None, ...], shapes: tuple[tuple[int, ...], ...], shape: tuple[int, ...]
) -> Layout | None:
    """Return the layout of an elementwise result; operands of no layout have None.

    The operand that holds units and has the most dimensions leads; a dimension that it lacks, or holds with size 1,
    or as mere positions, comes from another operand that says more.
    """
    known = [(lay, shp) for lay, shp in zip(layouts, shapes, strict=True) if lay is not None]
    if not known:
        return None
    known.sort(key=lambda k: (k[0].units is None, -prod(k[1])))
    lead = known[0][0].units is not None
    dims: list[Dim] = []
    for i, size in enumerate(shape):
        best: Dim = ()
        for rank, (lay, _) in enumerate(known):
            at = i - (len(shape) - len(lay.dims))
            if at < 0 or prod(f.size for f in lay.dims[at]) != size:
                continue
            dim = lay.dims[at]
            if rank and lead and has(dim, UNIT) and size != 1:
                dim = _adopt(dim, known[0][0], i - (len(shape) - len(known[0][0].dims)))
            if _says(dim) > _says(best) or (not best and dim):
                best = dim
        if prod(f.size for f in best) != size:
            best = position(size)
        dims.append(best)
    return normal(tuple(dims))


def _adopt(dim: Dim, leader: Layout, at: int) -> Dim:
    """A follower's units are taken over only where the leader's one unit is stretched over them."""
    stretched = 0 <= at < len(leader.dims) and has(leader.dims[at], UNIT)
    return dim if stretched and leader.units == 1 else strip(dim)


def _says(dim: Dim) -> int:
    """How much a dimension tells: units over samples over positions over nothing."""
    roles = {f.role for f in dim}
    return 4 * (UNIT in roles) + 2 * (BATCH in roles) + (POSITION in roles)


@lru_cache(maxsize=4096)
def plan(layout: Layout) -> Plan:
    """Return along which axes to reduce a tensor of this layout."""
    factors = [f for dim in layout.dims for f in (dim or (Factor(POSITION, 1),))]
    expand = None if all(len(dim) <= 1 for dim in layout.dims) else tuple(f.size for f in factors)

    def axes(role: str) -> tuple[int, ...]:
        held = [(-f.stride, i) for i, f in enumerate(factors) if f.role == role]
        return tuple(i for _, i in sorted(held))

    return Plan(expand, axes(UNIT), axes(BATCH), axes(POSITION), tuple(f.size for f in factors))


@lru_cache(maxsize=4096)
def refit(layout: Layout, shape: tuple[int, ...], batch: int | None) -> Layout | None:
    """Return the layout of a tensor of another extent that was made the same way; None if it does not fit.

    Units keep their number. A dimension of one other factor takes any extent; in a dimension of several factors the
    samples, then the positions, make up the difference.
    """
    if len(layout.dims) != len(shape):
        return None
    dims = []
    for dim, size in zip(layout.dims, shape, strict=True):
        fitted = _refit(dim, size, batch)
        if fitted is None:
            return None
        dims.append(fitted)
    return normal(tuple(dims))


def _refit(dim: Dim, size: int, batch: int | None) -> Dim | None:
    if not dim:
        return position(size)
    free = [i for i, f in enumerate(dim) if f.role != UNIT]
    fixed = prod(f.size for f in dim if f.role == UNIT)
    if not free:
        return dim if size == fixed else None
    # No short cut where the extent is as before: 4 rows of 8 tokens may have become 8 rows of 4.
    sizes = {i: dim[i].size for i in free}
    for i in free:
        if dim[i].role == BATCH and len(free) > 1 and batch and dim[i].stride == 1:
            sizes[i] = batch
    last = next((i for i in reversed(free) if dim[i].role == POSITION), free[0])
    others = prod(n for i, n in sizes.items() if i != last) * fixed
    if size % others:
        return None
    sizes[last] = size // others
    return tuple(Factor(f.role, sizes.get(i, f.size), f.stride) for i, f in enumerate(dim))
