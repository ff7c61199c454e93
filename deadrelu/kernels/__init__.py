"""Kernels: reductions of one tensor of pre-activations to a few numbers per unit.

Three implementations of one interface, equal to the last count: `reference.py` in plain torch, for every tensor;
`native.py`, C compiled for this processor, and `inductor.py`, which torch's own compiler makes for a GPU, read a tensor
once. `choice.py` says which of them computes.
"""

from __future__ import annotations

import torch

from ..kinds import Kind
from . import reference
from .choice import CHOICE, LARGE
from .inductor import Inductor
from .looks import Engaged, Sums
from .native import Kept, Native, Reach
from .plan import Plan
from .reference import top

__all__ = [
    "CHOICE",
    "Engaged",
    "Kept",
    "Native",
    "Plan",
    "Reach",
    "Sums",
    "described",
    "described_cuda",
    "engaged",
    "magnitude",
    "maximum",
    "prepare",
    "reach",
    "squares",
    "top",
]


def engaged(
    z: torch.Tensor,
    kind: Kind,
    plan: Plan,
    sums: Sums,
    *,
    rectified: bool = False,
    top: torch.Tensor | None = None,
) -> Engaged:
    """Add where z is engaged to `sums`, and the largest z of each unit. Returns which samples fired.

    NaN is never engaged, and the largest only where there is nothing else. Rectified: the sum of max(z, 0) is the
    magnitude, and is added, too, if it costs no further read; only for a kind that is engaged above a bound. Top: the
    largest z of each unit, NaN if one is, if that is known.
    """
    native = _native(z)
    seen = None if native is None else native.engaged(z, kind, plan, sums, rectified=rectified)
    return reference.engaged(z, kind, plan, sums, top) if seen is None else seen


def magnitude(h: torch.Tensor, kind: Kind, plan: Plan, sums: Sums) -> None:
    """Add the sum of |h| over samples and positions of each unit to `sums`."""
    native = _native(h)
    if native is None or not native.magnitude(h, plan, sums):
        sums.magnitude.add_(reference.magnitude(h, kind, plan))


def squares(g: torch.Tensor, plan: Plan, sums: Sums, *, quick: bool = False) -> None:
    """Add the sum of g^2 of each unit to `sums`, and the largest |g|.

    Quick: where it saves time, the squares of float32 stay in float32; those of |g| under 1e-19 vanish.
    """
    native = _native(g)
    if native is None or not native.squares(g, plan, sums):
        reference.squares(g, plan, sums, quick=quick)


def maximum(z: torch.Tensor, plan: Plan) -> torch.Tensor:
    """Return the largest element of each unit, NaN aside, NaN if no other; (units,), the widest float of the device."""
    native = _native(z)
    seen = None if native is None else native.maximum(z, plan)
    return reference.maximum(z, plan) if seen is None else seen


def reach(z: torch.Tensor, plan: Plan, row: torch.Tensor) -> Reach | None:
    """Return how the largest z of each unit, NaN if one is, is written into such a row; None if torch is to do it.

    Only for a plan that is plain.
    """
    native = _native(z)
    return None if native is None else native.reach(z, plan, row)


def prepare() -> None:
    """See to it that there will be compiled kernels: small tensors are worth them if they come again and again."""
    CHOICE.ready(LARGE)


def described() -> str:
    """Return one line that says which kernels compute on the CPU, or will.

    Raises:
        InputError: the environment asks for what there is not.
    """
    return CHOICE.described()


def described_cuda() -> str:
    """Return one line that says which kernels compute on CUDA, or would.

    Raises:
        InputError: the environment asks for what there is not.
    """
    return CHOICE.described_cuda()


def _native(tensor: torch.Tensor) -> Native | Inductor | None:
    # What compiles a model traces through here: it is to find nothing but torch.
    if torch.compiler.is_compiling():
        return None
    return CHOICE.ready(tensor.numel()) if tensor.is_cpu else CHOICE.ready_on(tensor)
