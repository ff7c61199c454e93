"""Roles: how the samples, units and positions of a tensor lie in memory, and the bounds that its dtype holds."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import torch

from ..kinds import Interval
from .plan import Plan

SAMPLE, UNIT, POSITION = "sup"
_DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


@dataclass(frozen=True, slots=True)
class Dense:
    """A tensor whose elements fill their memory, one axis for each role.

    Attributes:
        roles: the letters of SAMPLE, UNIT, POSITION in the order of memory, outermost first, those of size 1 left out.
        sizes: the size of each.
        strides: its elements between two neighbours.
    """

    roles: str
    sizes: tuple[int, ...]
    strides: tuple[int, ...]


def is_memory(tensor: torch.Tensor) -> bool:
    """True if the elements of a tensor lie at its address as they are, and nobody else follows what is done with it."""
    return (
        (type(tensor) is torch.Tensor or type(tensor) is torch.nn.Parameter)
        and tensor.dtype in _DTYPES
        and tensor.layout is torch.strided
        and torch._C._len_torch_dispatch_stack() == 0
        and torch._C._functorch.peek_interpreter_stack() is None
        and not (tensor.is_neg() or tensor.is_nested or tensor._is_zerotensor() or torch.compiler.is_compiling())
        and not torch._C._functorch.is_functorch_wrapped_tensor(tensor)
    )


def steps(tensor: torch.Tensor, plan: Plan) -> tuple[int, int, int] | None:
    """Return the strides with which one index runs through the samples, the units, the positions; None if none does."""
    if plan.expand is not None:
        try:
            tensor = tensor.detach().view(plan.expand)
        except RuntimeError:  # a copy would be needed
            return None
    if tuple(tensor.shape) != plan.shape:
        return None
    strides = tensor.stride()
    samples, units, positions = (
        _step([(plan.shape[i], strides[i]) for i in axes], ordered=axes is not plan.positions)
        for axes in (plan.batch, plan.units, plan.positions)
    )
    return None if samples is None or units is None or positions is None else (samples, units, positions)


def _step(axes: list[tuple[int, int]], *, ordered: bool) -> int | None:
    """Return the stride with which one index runs through all of these (size, stride), outermost first; or None."""
    axes = [(size, stride) for size, stride in axes if size != 1]
    if not ordered:
        axes.sort(key=lambda axis: -axis[1])
    for (_, outer), (size, inner) in pairwise(axes):
        if outer != size * inner:
            return None
    return axes[-1][1] if axes else 0


def dense(tensor: torch.Tensor, plan: Plan) -> Dense | None:
    """Return how a tensor fills its memory; None if it does not, or roles are interleaved."""
    found = steps(tensor, plan)
    if found is None or not tensor.numel():
        return None
    counts = (plan.sample_count, plan.unit_count, plan.position_count)
    axes = [axis for axis in zip(found, counts, (SAMPLE, UNIT, POSITION), strict=True) if axis[1] > 1]
    axes.sort(key=lambda axis: -axis[0])
    width = 1
    for stride, size, _ in reversed(axes):
        if stride != width:
            return None
        width *= size
    return Dense("".join(role for *_, role in axes), tuple(axis[1] for axis in axes), tuple(axis[0] for axis in axes))


def rounded(intervals: tuple[Interval, ...], dtype: torch.dtype) -> tuple[Interval, ...] | None:
    """Return intervals as torch compares with them, in the dtype of the tensor; None if an end becomes infinite."""
    found = []
    for given in intervals:
        ends = torch.tensor(given, dtype=torch.float64, device="cpu").to(dtype).tolist()
        if any(math.isinf(end) and not math.isinf(was) for end, was in zip(ends, given, strict=True)):
            return None
        found.append((ends[0], ends[1]))
    return tuple(found)
