"""Native kernels: all numbers in one read of the tensor, by C code that this machine's compiler has made.

What they cannot read, they decline, and the reference does it: other devices and dtypes, tensors that are no memory
(fake, functorch's, sparse), and axes of one role that no single stride enumerates.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..kinds import Interval, Kind
from .looks import Engaged, Sums
from .plan import Plan
from .roles import is_memory, rounded, steps

_CELLS = {torch.float32: 0, torch.float64: 1, torch.bfloat16: 2, torch.float16: 3}
_TOP, _POSITIVE, _RECTIFIED, _INTERVALS, _MAGNITUDE, _SQUARES, _REACH = range(7)
_CPU = torch.device("cpu")
_ALONE = 1 << 20
"""Elements up to which one thread is as fast as several."""
_SHARED = 1 << 17
"""Elements from which on torch's threads, which wait for work, find the largest sooner than one thread."""
_LONGEST = 1 << 31
"""Elements of one unit that the native counters hold."""


class Look(ctypes.Structure):
    """What is asked of which tensor, as native.c spells it."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("cell", "op", "samples", "units", "positions")),
        *((name, ctypes.c_int64) for name in ("sample_step", "unit_step", "position_step")),
        ("low", ctypes.c_double * 2),
        ("high", ctypes.c_double * 2),
    )


class Reach:
    """How the largest element of each unit is written into a row, for a z and a row like those that it was made for."""

    __slots__ = ("_address", "_dtype", "_look", "_strides", "_write")

    def __init__(self, write: Any, look: Look, tensor: torch.Tensor) -> None:
        self._write, self._look, self._address = write, look, ctypes.addressof(look)
        self._dtype, self._strides = tensor.dtype, tensor.stride()

    def into(self, z: torch.Tensor, row: int) -> bool:
        """Write what a z of that shape reaches into the row at this address; False, and nothing, if it cannot."""
        if z.dtype is not self._dtype or z.stride() != self._strides or not z.is_cpu or z.is_neg():
            return False
        try:
            data = z.data_ptr()
        except RuntimeError:  # of functorch's, which is no memory
            return False
        return bool(data) and not self._write(self._address, data, row)


class Words(ctypes.Structure):
    """Words of a memory, as native.c spells them: one in every `step`, of `width` bytes."""

    _fields_ = (("data", ctypes.c_void_p), *((name, ctypes.c_int64) for name in ("width", "step", "count")))


class Kept:
    """Elements of some arrays, as they were when they were kept; the arrays stay where they are.

    Attributes:
        held: their bytes, one array after the other.
    """

    def __init__(self, call: Any, arrays: Sequence[NDArray[Any]]) -> None:
        self.held = np.empty(sum(array.nbytes for array in arrays), np.uint8)
        words = [Words(a.ctypes.data, a.itemsize, a.strides[0] // a.itemsize, len(a)) for a in arrays]
        self._alive = list(arrays), (Words * len(words))(*words)
        self._given = ctypes.addressof(self._alive[1]), len(words), self.held.ctypes.data
        self._call = call

    def keep(self) -> None:
        """Keep what they are now."""
        self._call(*self._given, 1)

    def changed(self) -> bool:
        """Return whether any is something else."""
        return bool(self._call(*self._given, 0))


class Native:
    """The kernels of one compiled library. Each method returns None or False where it cannot read the tensor."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._add = library.deadrelu_add
        self._add.argtypes = (*[ctypes.c_void_p] * 4, ctypes.c_int)
        self._reach = library.deadrelu_reach
        self._reach.argtypes = (ctypes.c_void_p,) * 3
        self._words = library.deadrelu_words
        self._words.argtypes = (ctypes.c_void_p, ctypes.c_int64, ctypes.c_void_p, ctypes.c_int)

    def engaged(
        self, z: torch.Tensor, kind: Kind, plan: Plan, sums: Sums, *, rectified: bool = False
    ) -> Engaged | None:
        """See `kernels.engaged`."""
        op = (_RECTIFIED if rectified else _POSITIVE) if kind.positive else _INTERVALS
        look = _found(op, z, plan, kind.intervals)
        if look is None:
            return None
        marks = torch.empty(((plan.sample_count + 7) // 8, plan.unit_count), dtype=torch.uint8, device=_CPU)
        done = self._run(look, z, sums, marks.data_ptr())
        return Engaged(marks, plan.sample_count, op == _RECTIFIED) if done else None

    def reach(self, z: torch.Tensor, plan: Plan, row: torch.Tensor) -> Reach | None:
        """See `kernels.reach`."""
        wide = torch.float64 if z.dtype == torch.float64 else torch.float32
        if row.dtype != wide or row.shape != (plan.unit_count,) or not (row.is_cpu and row.is_contiguous()):
            return None
        if z.numel() > _SHARED and torch.get_num_threads() > 1:
            return None
        look = _found(_REACH, z, plan)
        return None if look is None else Reach(self._reach, look, z)

    def kept(self, arrays: Sequence[NDArray[Any]]) -> Kept:
        """Return what keeps elements of arrays with one axis, and tells whether they have changed."""
        return Kept(self._words, arrays)

    def maximum(self, z: torch.Tensor, plan: Plan) -> torch.Tensor | None:
        """See `kernels.maximum`."""
        look = _found(_TOP, z, plan)
        if look is None:
            return None
        sums = Sums(plan.unit_count, z.device)
        return sums.top if self._run(look, z, sums) else None

    def magnitude(self, h: torch.Tensor, plan: Plan, sums: Sums) -> bool:
        """See `kernels.magnitude`."""
        look = _found(_MAGNITUDE, h, plan)
        return look is not None and self._run(look, h, sums)

    def squares(self, g: torch.Tensor, plan: Plan, sums: Sums) -> bool:
        """See `kernels.squares`."""
        look = _found(_SQUARES, g, plan)
        return look is not None and self._run(look, g, sums)

    def _run(self, look: Look, tensor: torch.Tensor, sums: Sums, marks: int | None = None) -> bool:
        threads = 1 if tensor.numel() <= _ALONE else torch.get_num_threads()
        data, rows = tensor.data_ptr(), sums.rows
        if not data or type(rows) is not torch.Tensor or not rows.is_cpu:  # its storage was given back; no memory
            return False
        return not self._add(ctypes.addressof(look), data, rows.data_ptr(), marks, threads)


def _found(op: int, tensor: torch.Tensor, plan: Plan, intervals: tuple[Interval, ...] = ()) -> Look | None:
    """Return how to look at a tensor, worked out once for each shape, dtype and strides; None if it cannot be done."""
    if not (tensor.is_cpu and is_memory(tensor)):
        return None
    key = (op, intervals, tensor.dtype, tensor.shape, tensor.stride())
    try:
        return plan.memo[key]  # type: ignore[no-any-return]
    except KeyError:
        look = plan.memo[key] = _look(op, tensor, plan, intervals)
        return look


def _look(op: int, tensor: torch.Tensor, plan: Plan, intervals: tuple[Interval, ...]) -> Look | None:
    """Return how to look at tensors like this one; None if it cannot be done."""
    if not tensor.numel() or len(intervals) > 2 or tensor.numel() >= _LONGEST:
        return None
    strides, bounds = steps(tensor, plan), _bounds(intervals, tensor.dtype, op)
    if strides is None or bounds is None:
        return None
    return Look(_CELLS[tensor.dtype], op, plan.sample_count, plan.unit_count, plan.position_count, *strides, *bounds)


def _bounds(
    intervals: tuple[Interval, ...], dtype: torch.dtype, op: int
) -> tuple[tuple[float, float], tuple[float, float]] | None:
    """Return the lower and the upper ends as native.c wants them: NaN is no end, and an interval above inf is none."""
    found = rounded(intervals, dtype)
    if found is None:
        return None
    ends = []
    for low, high in found:
        if op == _INTERVALS and low == -math.inf and high != math.inf:
            low = math.nan
        ends.append((low, math.nan if high == math.inf else high))
    ends += [(math.inf, math.nan)] * (2 - len(ends))
    return (ends[0][0], ends[1][0]), (ends[0][1], ends[1][1])
