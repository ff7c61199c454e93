"""Tensors for kernels: every layout in memory, every special value, and what a slow look at each element finds."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from deadrelu.kernels import Plan
from deadrelu.kernels.formulas import Formula
from deadrelu.kinds import Kind

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
Array = NDArray[np.float64]
Run = Callable[[list[torch.Tensor]], Sequence[torch.Tensor]]


def plain(shape: tuple[int, ...], unit: int) -> Plan:
    """Return the plan of a tensor whose first dimension holds samples, and whose units are one dimension."""
    return Plan(None, (unit,), (0,), tuple(i for i in range(1, len(shape)) if i != unit), shape)


def _last(z: torch.Tensor) -> torch.Tensor:
    return z.contiguous(memory_format=torch.channels_last)


def _every_second(z: torch.Tensor) -> torch.Tensor:
    wide = torch.full((*z.shape[:-1], 2 * z.shape[-1]), 77.0, dtype=z.dtype)
    wide[..., ::2] = z
    return wide[..., ::2]


def _inside(z: torch.Tensor) -> torch.Tensor:
    """A part of a larger tensor that begins in its middle, and holds other values around it."""
    wide = torch.full(tuple(n + 3 for n in z.shape), 77.0, dtype=z.dtype)
    part = wide[tuple(slice(2, 2 + n) for n in z.shape)]
    part.copy_(z)
    return part


MEMORY: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "contiguous": torch.Tensor.contiguous,
    "transposed": lambda z: z.transpose(0, 1).contiguous().transpose(0, 1),
    "turned": lambda z: z.transpose(0, -1).contiguous().transpose(0, -1),
    "every second": _every_second,
    "inside": _inside,
    "one sample for all": lambda z: z[:1].expand(z.shape),
    "one unit for all": lambda z: z[:, :1].expand(z.shape),
}
IMAGES_ONLY: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {"channels last": _last}

SHAPES: tuple[tuple[tuple[int, ...], int], ...] = (
    ((1, 1), 1),
    ((7, 5), 1),
    ((8, 64), 1),
    ((19, 100), 1),
    ((33, 1030), 1),  # more units than are taken at a time
    ((3, 9, 70), 2),  # tokens
    ((17, 4, 6), 2),
    ((9, 3, 130, 40), 3),
    ((2, 5, 4, 4), 1),  # fewer samples than a byte has bits
    ((11, 5, 4, 4), 1),
    ((9, 33, 7, 7), 1),
    ((10, 3, 16, 16), 1),
    ((5, 20, 12, 11), 1),
    ((1, 2, 64, 65), 1),
    ((16, 17, 8, 8), 1),
    ((12, 1, 9, 9), 1),
    ((6, 13, 200), 1),
    ((9, 3, 23, 25), 1),  # long runs
    ((20, 17, 577), 1),  # more of them than are read upwards at a time
)


def values(shape: tuple[int, ...], dtype: torch.dtype, seed: int) -> torch.Tensor:
    """Return pre-activations: ties at 0, 1 and 6, both zeros, denormals, infinities, NaN."""
    rng = np.random.default_rng(seed)
    z = np.asarray(3 * rng.standard_normal(shape))
    pick = rng.integers(0, 24, shape)
    tiny = float(torch.finfo(dtype).smallest_normal) / 4
    for code, value in enumerate((0.0, -0.0, 6.0, 1.0, math.nan, math.inf, -math.inf, tiny, -tiny)):
        z[pick == code] = value
    return torch.from_numpy(z).to(dtype)


def with_strange_units(z: torch.Tensor, unit: int) -> torch.Tensor:
    """Make one unit NaN, the next one -inf, and one NaN but for a single -inf; in place."""
    units = z.shape[unit]
    if units >= 5:
        z.select(unit, 1).fill_(math.nan)
        z.select(unit, 2).fill_(-math.inf)
        z.select(unit, units - 1).fill_(math.nan)
        z.select(unit, units - 1)[(-1,) * (z.ndim - 1)] = -math.inf
    return z


def matrix(z: torch.Tensor, unit: int) -> Array:
    """Return (samples, positions, units), one copy in float64."""
    found: Array = z.detach().to(torch.float64).movedim(unit, -1).reshape(z.shape[0], -1, z.shape[unit]).numpy()
    return found


def inside(kind: Kind, value: Array, dtype: torch.dtype) -> NDArray[np.bool_]:
    """Return where values lie in an interval of a kind; torch rounds a bound to the dtype of what it compares."""
    on = np.zeros(value.shape, bool)
    for low, high in kind.intervals:
        below, above = (float(torch.tensor(end, dtype=dtype)) for end in (low, high))
        over = ~np.isnan(value) if low == -math.inf and high != math.inf else value > below
        under = ~np.isnan(value) if high == math.inf else value < above
        on |= over & under
    return on


def as_written(formula: Formula, sizes: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Run:
    """Return the function of a formula as it stands, in place of a compiled one."""
    return lambda given: formula.function()(*given)
