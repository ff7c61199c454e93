"""What a slow look at each element finds, compared with what compiled kernels say."""

from __future__ import annotations

import itertools

import numpy as np
import torch
from tensors import IMAGES_ONLY, MEMORY, SHAPES, Array, inside

from deadrelu.kernels import Plan, Sums
from deadrelu.kernels.inductor import Inductor
from deadrelu.kernels.native import Native
from deadrelu.kinds import INF, KINDS, Kind

Kernels = Native | Inductor
KIND_LIST = (
    KINDS["relu"],
    KINDS["relu6"],
    KINDS["hardshrink"],
    KINDS["logsigmoid"],
    KINDS["gelu"],
    KINDS["hardtanh"],
    Kind("everything", intervals=((-INF, INF),)),  # all but -inf and NaN
    Kind("both ends open", intervals=((-INF, -1.0), (1.0, INF))),
)
CPU = torch.device("cpu")
CASES = [(shape, unit, memory) for (shape, unit), memory in itertools.product(SHAPES, MEMORY)]
CASES += [(shape, unit, memory) for (shape, unit), memory in itertools.product(SHAPES, IMAGES_ONLY) if len(shape) == 4]


def sums(units: int, device: torch.device = CPU) -> Sums:
    return Sums(units, device)


def assert_engaged(kernels: Kernels, z: torch.Tensor, flat: Array, kind: Kind, made: Plan) -> None:
    """Compare with `flat`, the same elements as (samples, positions, units)."""
    to = sums(made.unit_count, z.device)
    seen = kernels.engaged(z, kind, made, to)
    assert seen is not None
    on = inside(kind, flat, z.dtype)
    np.testing.assert_array_equal(to.count.cpu(), on.sum((0, 1)))
    np.testing.assert_array_equal(to.samples.cpu(), on.any(1).sum(0))
    np.testing.assert_array_equal(seen.fired.cpu(), on.any(1))
    np.testing.assert_array_equal(to.top.cpu(), np.fmax.reduce(flat.reshape(-1, flat.shape[-1])))


def assert_sizes(kernels: Kernels, z: torch.Tensor, flat: Array, made: Plan) -> None:
    """Compare sums, and the largest elements, with the same."""
    to, rows = sums(made.unit_count, z.device), flat.reshape(-1, flat.shape[-1])
    near = 1e-13 if z.dtype == torch.float64 else 5e-7
    assert kernels.magnitude(z, made, to)
    np.testing.assert_allclose(to.magnitude.cpu(), np.abs(rows).sum(0), rtol=near)
    assert kernels.squares(z, made, to)
    with np.errstate(invalid="ignore"):
        np.testing.assert_allclose(to.square.cpu(), np.square(rows).sum(0), rtol=1e-13)
    np.testing.assert_array_equal(to.largest.cpu(), np.fmax(0, np.fmax.reduce(np.abs(rows))))
    rectified = sums(made.unit_count, z.device)
    seen = kernels.engaged(z, KINDS["relu"], made, rectified, rectified=True)
    assert seen is not None
    assert seen.rectified
    np.testing.assert_allclose(rectified.magnitude.cpu(), np.maximum(rows, 0).sum(0), rtol=near)
    np.testing.assert_array_equal(rectified.count.cpu(), (rows > 0).sum(0))
    highest = kernels.maximum(z, made)
    assert highest is not None
    np.testing.assert_array_equal(highest.cpu(), np.fmax.reduce(rows))
