"""Formulas: the looks at one tensor in plain torch, in the form that a compiler fuses to one read of it.

A first reduction leaves a number per sample and unit, of all quantities at once, a second one reduces these, which are
few. Where a sample has a single position, the first one goes over eight samples, whose marks are one byte: a mark for
each element would be written by another loop. Whole numbers are counted in integers; sums are taken in float64, and the
eight in float32. A row that is added to is an argument; everything else is returned.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

from ..kinds import Interval
from .roles import POSITION, SAMPLE, UNIT

BYTE = "b"
"""The role of the eight samples of a byte."""
ROWS = {
    "engaged": ("count", "samples", "top"),
    "rectified": ("count", "samples", "top", "magnitude"),
    "maximum": (),
    "magnitude": ("magnitude",),
    "squares": ("square", "largest"),
}
"""The looks, and which rows of the sums each adds to."""
Function = Callable[..., tuple[torch.Tensor, ...]]


@dataclass(frozen=True, slots=True)
class Formula:
    """One look at tensors that fill their memory.

    Attributes:
        name: which of ROWS; `rectified` is `engaged` with the sum of max(z, 0).
        roles: those of the axes, in the order of memory.
        intervals: where z is engaged, for those that ask it.
    """

    name: str
    roles: str
    intervals: tuple[Interval, ...] = ()

    @property
    def rows(self) -> tuple[str, ...]:
        """Return the rows of the sums that it adds to."""
        return ROWS[self.name]

    def function(self) -> Function:
        """Return it as a function of a tensor and of these rows."""
        if self.name == "maximum":
            return _maximum(self.roles)
        if self.name == "magnitude":
            return _magnitude(self.roles)
        if self.name == "squares":
            return _squares(self.roles)
        return _engaged(self.roles, self.intervals, rectified=self.name == "rectified")


def in_order(marks: torch.Tensor, roles: str, samples: int, units: int) -> torch.Tensor:
    """Return the marks that a formula found in the order of memory as (samples, units), or (samples / 8, units)."""
    if UNIT in roles and SAMPLE in roles and roles.index(UNIT) < roles.index(SAMPLE):
        marks = marks.t()
    return marks.reshape(samples // 8 if BYTE in roles else samples, units)


def _engaged(roles: str, intervals: tuple[Interval, ...], *, rectified: bool) -> Function:
    """Return the function of where z is engaged, the axes of z in these roles; see `kernels.engaged`.

    Its arguments are z, and of the sums count, samples, top, and rectified magnitude; it returns the engaged positions
    of each sample and unit, or the bits of eight samples, uint8, in the order of memory.
    """
    first = roles.index(BYTE if BYTE in roles else POSITION)
    second = _without(roles, first).find(SAMPLE)

    def look(z: torch.Tensor, count: torch.Tensor, samples: torch.Tensor, top: torch.Tensor, *size: torch.Tensor):  # type: ignore[no-untyped-def]
        on = _inside(z, intervals)
        hits = on.sum(first, dtype=torch.int64).to(torch.uint8 if BYTE in roles else torch.int32)
        marks = _packed(on, first) if BYTE in roles else hits
        total = _summed(hits, second, torch.int64).double()
        count.copy_(count + total)
        samples.copy_(samples + (total if BYTE in roles else _summed(hits > 0, second, torch.int64).double()))
        _raise_to(top, _largest(_largest(z, first), second))
        if rectified:
            few = torch.float32 if BYTE in roles and z.dtype != torch.float64 else torch.float64
            size[0].copy_(size[0] + _summed(z.clamp(min=0).sum(first, dtype=few), second, torch.float64))
        return (marks,)

    return look


def _maximum(roles: str) -> Function:
    """Return the function of the largest z of each unit; see `kernels.maximum`. Its argument is z."""

    def look(z: torch.Tensor) -> tuple[torch.Tensor, ...]:
        for axis in _axes(roles):
            z = _largest(z, axis)
        return (z.double(),)

    return look


def _magnitude(roles: str) -> Function:
    """Return the function of the sum of |h|. Its arguments are h and the magnitude of the sums."""

    def look(h: torch.Tensor, size: torch.Tensor) -> tuple[torch.Tensor, ...]:
        part = h.abs()
        for axis in _axes(roles):
            part = part.sum(axis, dtype=torch.float64)
        size.copy_(size + part)
        return ()

    return look


def _squares(roles: str) -> Function:
    """Return the function of the sum of g^2 and the largest |g|. Its arguments are g, square and largest."""

    def look(g: torch.Tensor, square: torch.Tensor, largest: torch.Tensor) -> tuple[torch.Tensor, ...]:
        part, top = g.double().square(), g.abs()
        for axis in _axes(roles):
            part, top = part.sum(axis), _largest(top, axis)
        square.copy_(square + part)
        _raise_to(largest, top)
        return ()

    return look


def _axes(roles: str) -> list[int]:
    """Return the axes to reduce one after the other, positions first: each is where it stands by then."""
    found = []
    for role in (POSITION, SAMPLE):
        if role in roles:
            found.append(roles.index(role))
            roles = _without(roles, found[-1])
    return found


def _without(roles: str, axis: int) -> str:
    return roles[:axis] + roles[axis + 1 :]


def _summed(x: torch.Tensor, axis: int, dtype: torch.dtype) -> torch.Tensor:
    """Return the sum over an axis, -1: there is none."""
    return x.to(dtype) if axis < 0 else x.sum(axis, dtype=dtype)


def _largest(x: torch.Tensor, axis: int) -> torch.Tensor:
    """Return the largest element along an axis, NaN aside, NaN if there is no other; -1: there is no axis."""
    if axis < 0:
        return x
    number = x == x
    return torch.where(number.any(axis), torch.where(number, x, -math.inf).amax(axis), math.nan)


def _raise_to(row: torch.Tensor, top: torch.Tensor) -> None:
    """Raise a row to what is larger; NaN is not, and everything is larger than NaN."""
    found = top.double()
    row.copy_(torch.where((found > row) | ((row != row) & (found == found)), found, row))


def _packed(on: torch.Tensor, axis: int) -> torch.Tensor:
    """Return the bits of eight samples, the first one lowest, uint8."""
    shifts = torch.arange(8, device=on.device).view([8 if i == axis else 1 for i in range(on.ndim)])
    return (on.to(torch.int64) << shifts).sum(axis).to(torch.uint8)


def _inside(z: torch.Tensor, intervals: tuple[Interval, ...]) -> torch.Tensor:
    """Return where z is in one of these open intervals; `Kind.engaged` without operations in place."""
    found = None
    for low, high in intervals:
        on = z < high if low == -math.inf and high != math.inf else z > low
        if low != -math.inf and high != math.inf:
            on = on & (z < high)
        found = on if found is None else found | on
    return torch.zeros_like(z, dtype=torch.bool) if found is None else found
