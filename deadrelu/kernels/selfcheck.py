"""Self-check: compiled kernels against the reference, on a few tensors, before they are trusted."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from ..kinds import KINDS, Kind
from . import reference
from .formulas import BYTE, Formula, in_order
from .looks import Engaged, Sums
from .native import Native
from .plan import Plan
from .roles import POSITION, SAMPLE, UNIT

_DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
_EXACT = ("count", "samples", "top", "largest")
_SIZES = {SAMPLE: 5, BYTE: 8, UNIT: 37, POSITION: 270}
_KINDS = (KINDS["relu"], KINDS["gelu"], KINDS["relu6"])


def check(native: Native) -> str:
    """Return what compiled kernels compute wrongly; empty if nothing."""
    with torch.inference_mode(False), torch.no_grad(), torch._C.DisableTorchFunction():
        for dtype in _DTYPES:
            for z, plan in _tensors(dtype):
                if not _agrees(native, z, plan):
                    return f"{str(dtype).removeprefix('torch.')} of shape {tuple(z.shape)}"
    return "" if _tells_changes(native) else "whether words have changed"


def _tells_changes(native: Native) -> bool:
    """Return whether words of each width are told to be the same, and not to be, side by side and apart."""
    whole = [np.arange(90, dtype=width) for width in ("u1", "u2", "u4", "u8", "c16") for _ in range(2)]
    arrays = [array[:: 1 + 3 * (i % 2)] for i, array in enumerate(whole)]
    kept = native.kept(arrays)
    kept.keep()
    right = kept.held.tobytes() == b"".join(array.tobytes() for array in arrays) and not kept.changed()
    for array, read in zip(whole, arrays, strict=True):
        read[-1] += 1
        right = right and kept.changed()
        read[-1] -= 1
        array[1] += len(read) < len(array)  # between two words
        right = right and not kept.changed()
    return right


def _tensors(dtype: torch.dtype) -> list[tuple[torch.Tensor, Plan]]:
    """Return one tensor for each way through the loops: images of three sizes, channels last, tokens, rows."""
    found = []
    for shape, unit in (((9, 5, 16, 9), 1), ((9, 2, 23, 25), 1), ((11, 3, 5, 3), 1), ((3, 70, 21), 2), ((19, 37), 1)):
        count = int(torch.Size(shape).numel())
        z = torch.arange(count, dtype=torch.float64, device="cpu").mul_(12.9898).sin_().mul_(9).reshape(shape)
        z.view(-1)[::17] = 0.0
        z.view(-1)[::53] = torch.nan
        z.view(-1)[::41] = torch.inf
        z = z.to(dtype)
        positions = tuple(i for i in range(1, len(shape)) if i != unit)
        plan = Plan(None, (unit,), (0,), positions, shape)
        found.append((z, plan))
        if len(shape) == 4:
            found.append((z.contiguous(memory_format=torch.channels_last), plan))
    return found


def _agrees(native: Native, z: torch.Tensor, plan: Plan) -> bool:
    finite = z.nan_to_num(0, 5, -5)
    for kind in _KINDS:
        found, expected = Sums(plan.unit_count, z.device), Sums(plan.unit_count, z.device)
        seen, known = native.engaged(z, kind, plan, found), reference.engaged(z, kind, plan, expected)
        if seen is None or not torch.equal(seen.fired, known.fired):
            return False
        if not (native.magnitude(finite, plan, found) and native.squares(finite, plan, found)):
            return False
        reference.squares(finite, plan, expected)
        expected.magnitude.add_(reference.magnitude(finite, KINDS["silu"], plan))
        if not all(torch.equal(getattr(found, name), getattr(expected, name)) for name in _EXACT):
            return False
        if not torch.allclose(found.rows, expected.rows, rtol=1e-5, atol=0):
            return False
    for given in (z, finite):
        row = torch.empty(plan.unit_count, dtype=torch.promote_types(z.dtype, torch.float32), device=z.device)
        made = native.reach(given, plan, row)
        if made is None or not made.into(given, row.data_ptr()):
            return False
        if not torch.equal(row.nan_to_num(7e30), given.amax(plan.over).to(row.dtype).nan_to_num(7e30)):
            return False
    sums = Sums(plan.unit_count, z.device)
    rectified = native.engaged(finite, KINDS["relu"], plan, sums, rectified=True)
    expected_sum = reference.magnitude(finite.relu(), KINDS["relu"], plan)
    return rectified is not None and torch.allclose(sums.magnitude, expected_sum, rtol=1e-5, atol=0)


def strange(formula: Formula, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """Return a tensor for a formula, small, with ties, infinities, NaN, and a unit of nothing but NaN."""
    sizes = [_SIZES[role] for role in formula.roles]
    z = torch.arange(torch.Size(sizes).numel(), dtype=torch.float64, device=device).mul_(12.9898).sin_().mul_(9)
    for every, value in ((17, 0.0), (53, torch.nan), (41, torch.inf), (43, -torch.inf)):
        z[::every] = value
    z = z.reshape(sizes)
    if UNIT in formula.roles:
        z.select(formula.roles.index(UNIT), 1).fill_(torch.nan)
    return z.to(dtype)


def agrees(
    run: Callable[[list[torch.Tensor]], Sequence[torch.Tensor]], formula: Formula, z: torch.Tensor, *, near: bool
) -> torch.Tensor:
    """Return whether a compiled function of a formula finds what the reference does, a bool on the device.

    Near: sums are compared, too. Those of the reference are in the dtype of z, and may be infinite for it.
    """
    roles, units = formula.roles, z.shape[formula.roles.index(UNIT)] if UNIT in formula.roles else 1
    samples = tuple(i for i, role in enumerate(roles) if role in (SAMPLE, BYTE))
    axes = [tuple(i for i, role in enumerate(roles) if role == each) for each in (UNIT, POSITION)]
    plan = Plan(None, axes[0], samples, axes[1], tuple(z.shape))
    found, expected = Sums(units, z.device), Sums(units, z.device)
    given = run([z, *(getattr(found, row) for row in formula.rows)])
    same = []
    kind = Kind("", intervals=formula.intervals)
    if formula.name in ("engaged", "rectified"):
        marks = in_order(given[0], roles, plan.sample_count, units)
        known = reference.engaged(z, kind, plan, expected).fired
        same.append((Engaged(marks, plan.sample_count).fired == known).all())
    elif formula.name == "maximum":
        found.top.copy_(given[0].reshape(units))
        expected.top.copy_(reference.maximum(z, plan))
    elif formula.name == "squares":
        reference.squares(z, plan, expected)
    if formula.name in ("rectified", "magnitude"):
        expected.magnitude.add_(reference.magnitude(z.clamp(min=0) if formula.name == "rectified" else z, kind, plan))
    for name in ("count", "samples", "top", "largest", *(("magnitude", "square") if near else ())):
        rtol = 1e-5 if name in ("magnitude", "square") else 0
        same.append(getattr(found, name).isclose(getattr(expected, name), rtol=rtol, atol=0, equal_nan=True).all())
    return torch.stack(same).all()
