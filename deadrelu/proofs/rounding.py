"""Rounding: how far what a device computes may lie from real arithmetic, added to every bound, outwards.

Model: IEEE arithmetic, rounded to nearest, in the dtype of each result; sums of products in any order, with or without
fused multiply-add. A sum of n products is then off by at most n u of the sum of absolute values (Jeannerod & Rump 2013,
doi:10.1137/120894488, no condition on n u), with u the unit roundoff. Rounding is monotone, so that a sum of terms that
are all <= 0 is <= 0 in every order. Results under the smallest normal number may be flushed to zero. TF32
products are covered where torch's settings allow them on the device of the proof. Not covered: Winograd or FFT
convolutions, and reductions at less than the precision of their result.
"""

from __future__ import annotations

import torch

FUNCTION_ULPS = 64.0
"""Roundoffs granted to a transcendental function, of its argument and of its value: vectorised ones stay under 5."""


def roundoff(dtype: torch.dtype) -> float:
    """Return what one operation may be off by, relative: twice the unit roundoff u of `dtype`, 0 for integers.

    Once u for the model; the rest pays for our own float64, which for a float64 model rounds as coarsely as the model.

    >>> roundoff(torch.float32) == 2.0**-23
    True
    """
    return torch.finfo(dtype).eps if dtype.is_floating_point else 0.0


def product_error(dtype: torch.dtype, device: torch.device) -> float:
    """Return what each product of a matrix product or convolution may be off by, relative, beyond `roundoff`.

    float32 products may be computed with operands of fewer bits: TF32 (convolutions on CUDA: the default), or bfloat16,
    as torch's settings say at the moment.
    """
    if dtype != torch.float32:
        return 0.0
    try:
        allowed = {"highest": 0.0, "high": 2.0**-9, "medium": 2.0**-6}[torch.get_float32_matmul_precision()]
        tf32 = device.type == "cuda" and (torch.backends.cudnn.allow_tf32 or torch.backends.cuda.matmul.allow_tf32)
    except (RuntimeError, KeyError):  # set through a newer interface, which the older one refuses to read
        return 2.0**-6
    return max(allowed, 2.0**-9 if tf32 else 0.0)


def smallest(dtype: torch.dtype) -> float:
    """Return the smallest normal number of `dtype`, under which a result may be flushed to zero; 0 for integers."""
    return torch.finfo(dtype).tiny if dtype.is_floating_point else 0.0


def largest(dtype: torch.dtype) -> float:
    """Return the largest finite number of `dtype`."""
    if dtype == torch.bool:
        return 1.0
    return float(torch.finfo(dtype).max if dtype.is_floating_point else torch.iinfo(dtype).max)


def outward(
    low: torch.Tensor, high: torch.Tensor, dtype: torch.dtype, ulps: float = 2.0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return bounds of what rounding a value within [low, high] to `dtype` gives; zero stays zero, no sign changes."""
    step, floor = ulps * roundoff(dtype), smallest(dtype)
    if not step:
        return low, high
    down = low - step * low.abs() - floor * (low != 0)
    up = high + step * high.abs() + floor * (high != 0)
    return torch.where(low >= 0, down.clamp(min=0), down), torch.where(high <= 0, up.clamp(max=0), up)


def settled(low: torch.Tensor, high: torch.Tensor, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """Return bounds that say "anything" where they are NaN, or where a result of `dtype` may overflow."""
    top = largest(dtype)
    low = torch.where(low.isnan(), -torch.inf, low)
    high = torch.where(high.isnan(), torch.inf, high)
    if dtype.is_floating_point:  # an infinity of one sign; what NaN it makes later is inactive
        low = torch.where(low < -top, -torch.inf, low).clamp(max=top)
        return low, torch.where(high > top, torch.inf, high).clamp(min=-top)
    wraps = (high > top) | (low < (0 if dtype in (torch.bool, torch.uint8) else -top - 1))
    return torch.where(wraps, -torch.inf, low), torch.where(wraps, torch.inf, high)
