"""Self-check: compiled kernels against the reference, on a few tensors, before they are trusted."""

from __future__ import annotations

import torch

from ..kinds import KINDS
from . import reference
from .looks import Sums
from .native import Native
from .plan import Plan

_DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
_EXACT = ("count", "samples", "top", "largest")
_KINDS = (KINDS["relu"], KINDS["gelu"], KINDS["relu6"])


def check(native: Native) -> str:
    """Return what compiled kernels compute wrongly; empty if nothing."""
    with torch.inference_mode(False), torch.no_grad(), torch._C.DisableTorchFunction():
        for dtype in _DTYPES:
            for z, plan in _tensors(dtype):
                if not _agrees(native, z, plan):
                    return f"{str(dtype).removeprefix('torch.')} of shape {tuple(z.shape)}"
    return ""


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
