"""Reference kernels in plain torch: what every faster kernel must equal to the last count.

Chosen for what is cheap on a CPU: a comparison written into floats is vectorised and summed at the speed of memory,
while a comparison to bool and its sum cost several times the ReLU that they observe. Work is cut into blocks that
stay in the cache, so that no second activation-sized buffer is ever needed. Nothing here synchronises with a GPU.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch

from ..kinds import Kind
from .looks import Engaged, Sums, wide
from .plan import Plan

BLOCK = 1 << 18
"""Elements of a CPU block: 1 MiB of float32."""
_SMALL = 1 << 14
"""Elements up to which a comparison to bool costs no more than the call that the other way takes besides."""
_WIDE = 512
"""Elements of a row from which on a reduction over rows runs at the speed of memory."""


def engaged(z: torch.Tensor, kind: Kind, plan: Plan, sums: Sums, top: torch.Tensor | None = None) -> Engaged:
    """See `kernels.engaged`."""
    z = _viewed(z, plan)
    if plan.is_matrix and kind.positive and z.numel() <= _SMALL:
        counts = z.gt(kind.intervals[0][0])
        count = counts.sum(0)
    else:
        counts = _engaged_count(z, kind, plan)
        exact = plan.sample_count * plan.position_count < 1 << 24  # in float32
        count = counts.sum(0) if exact else counts.sum(0, dtype=sums.rows.dtype)
    if plan.position_count == 1:
        sums.counts.add_(count)
    else:
        sums.count.add_(count)
        sums.samples.add_((counts > 0).sum(0))
    torch.fmax(sums.top, _maximum(z, plan, top), out=sums.top)
    return Engaged(counts, plan.sample_count, count=count)


def squares(g: torch.Tensor, plan: Plan, sums: Sums, *, quick: bool = False) -> None:
    """See `kernels.squares`."""
    g = _viewed(g, plan)
    sums.square.add_(_total(g, plan, _quick_square if quick else _square))
    torch.fmax(sums.largest, _largest(g.abs(), plan), out=sums.largest)


def engaged_count(z: torch.Tensor, kind: Kind, plan: Plan) -> torch.Tensor:
    """Return how many positions of each sample and unit are engaged, float32 or float64, shape (samples, units).

    NaN is never engaged. Exact: float32 holds integers up to 2^24, beyond which float64 is used.
    """
    return _engaged_count(_viewed(z, plan), kind, plan)


def _engaged_count(z: torch.Tensor, kind: Kind, plan: Plan) -> torch.Tensor:
    """Return the same for a z with one role per axis."""
    dtype = torch.float32 if plan.position_count < 1 << 24 else torch.float64
    parts = []
    for block in _blocks(z, plan):
        if kind.positive:
            mask = torch.empty_like(block, dtype=dtype)  # in the memory format of z, or every element is sought
            torch.gt(block, kind.intervals[0][0], out=mask)
        else:
            mask = kind.engaged(block).to(dtype)
        parts.append(mask.sum(plan.positions) if plan.positions else mask)
    return plan.matrix(parts[0] if len(parts) == 1 else torch.cat(parts))


def top(z: torch.Tensor, plan: Plan) -> torch.Tensor:
    """Return the largest element of each unit, shape (units,), NaN if one is; only for a plan that is plain.

    A reduction to a few units that lie side by side (channels last, a narrow layer) is not vectorised by torch: it
    takes up to twenty times the ReLU. Rows are then folded into one another, as long as they are shorter than a block.
    """
    axis = plan.units[0]
    if not plan.slender or z.stride(axis) != 1:
        return z.amax(plan.over)
    rows = z.movedim(axis, -1).flatten(0, -2)
    count, units = rows.shape
    fold = 1
    while fold * units < _WIDE and count % (2 * fold) == 0:
        fold *= 2
    if fold == 1:
        return rows.amax(0)
    return rows.reshape(count // fold, fold * units).amax(0).view(fold, units).amax(0)


def maximum(z: torch.Tensor, plan: Plan) -> torch.Tensor:
    """Return the largest element of each unit, NaN aside, float64 where the device has it; NaN if there is no other."""
    return _maximum(_viewed(z, plan), plan).to(wide(z.device))


def _maximum(z: torch.Tensor, plan: Plan, highest: torch.Tensor | None = None) -> torch.Tensor:
    """Return the same in the dtype of z, which has one role per axis.

    Highest: the largest elements, NaN if one is, if they are known.
    """
    axes = plan.over
    if not axes:
        return _unit_order(z, plan)
    if z.device.type != "cpu":  # where a branch on data would wait for the device
        found = _raised(z, -torch.inf).amax(axes).masked_fill_(z.isnan().amin(axes), torch.nan)
        return _unit_order(found, plan)
    if highest is None:
        highest = top(z, plan) if plan.plain else z.amax(axes)
    if math.isnan(highest.sum().item()):  # a sum is NaN if a number is, or if inf meets -inf
        nan = z.isnan()
        highest = torch.where(nan.all(axes), torch.nan, torch.where(nan, -torch.inf, z).amax(axes))
    return _unit_order(highest, plan)


def _largest(size: torch.Tensor, plan: Plan) -> torch.Tensor:
    """Return the largest of what is never negative, as `_maximum` does; off the CPU 0 if all is NaN."""
    if size.device.type == "cpu" or not plan.over:
        return _maximum(size, plan)
    return _unit_order(_raised(size, 0.0).amax(plan.over), plan)


def _raised(z: torch.Tensor, floor: float) -> torch.Tensor:
    """Return z with this number for each NaN."""
    return z.nan_to_num(nan=floor, posinf=torch.inf, neginf=-torch.inf)


def magnitude(h: torch.Tensor, kind: Kind, plan: Plan) -> torch.Tensor:
    """Return the sum of |h| over samples and positions of each unit, shape (units,)."""
    return _total(_viewed(h, plan), plan, None if kind.nonnegative else torch.Tensor.abs).to(wide(h.device))


def square_sum(g: torch.Tensor, plan: Plan, *, quick: bool = False) -> torch.Tensor:
    """Return the sum of g^2 over samples and positions of each unit, shape (units,).

    Quick: the squares of float32 stay in float32, which takes a sixth of the time; those of |g| under 1e-19 vanish.
    """
    return _total(_viewed(g, plan), plan, _quick_square if quick else _square).to(wide(g.device))


def _viewed(tensor: torch.Tensor, plan: Plan) -> torch.Tensor:
    """Return a tensor with one role per axis, without its history."""
    return plan.view(tensor.detach() if tensor.requires_grad else tensor)


def _square(block: torch.Tensor) -> torch.Tensor:
    return block.to(wide(block.device)).square()


def _quick_square(block: torch.Tensor) -> torch.Tensor:
    return (block.float() if block.dtype in (torch.float16, torch.bfloat16) else block).square()


def _total(tensor: torch.Tensor, plan: Plan, of: Callable[[torch.Tensor], torch.Tensor] | None) -> torch.Tensor:
    """Return the sum of a tensor with one role per axis, or of what `of` makes of its blocks, shape (units,).

    Of one block in float32 or wider, of several in the widest float.
    """
    total: torch.Tensor | None = None
    for block in _blocks(tensor, plan):
        part = block if of is None else of(block)
        if part.dtype in (torch.float16, torch.bfloat16):
            part = part.float()
        # Within a block in its own dtype, which torch sums in pairs: ten times as fast as in float64.
        summed = _unit_order(part.sum(plan.over), plan) if plan.over else _unit_order(part, plan)
        total = summed if total is None else total.to(wide(tensor.device)) + summed
    assert total is not None
    return total


def _unit_order(reduced: torch.Tensor, plan: Plan) -> torch.Tensor:
    """Return the units left of a full reduction, shape (units,), in the producer's order."""
    if plan.plain:
        return reduced
    order = sorted(plan.units)
    return reduced.permute([order.index(i) for i in plan.units]).reshape(plan.unit_count)


def _blocks(z: torch.Tensor, plan: Plan) -> Iterator[torch.Tensor]:
    """Cut along the samples where they are the first axis; on a GPU launches cost more than memory."""
    rows = z.shape[0] if z.ndim else 1
    if z.device.type != "cpu" or plan.batch != (0,) or z.numel() <= BLOCK:
        yield z
        return
    step = max(1, BLOCK * rows // z.numel())
    yield from torch.split(z, step)
