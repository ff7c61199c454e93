"""Values: option values that need more than a type."""

from __future__ import annotations

import math

from ..errors import InputError

_LARGEST = 1 << 31


def parse_fraction(text: str, option: str) -> float:
    """Return `5%` or `0.05` as 0.05.

    >>> parse_fraction("5%", "--fail-above"), parse_fraction("0.05", "--fail-above")
    (0.05, 0.05)

    Raises:
        InputError: it is neither, or out of 0..100 %.
    """
    stripped = text.strip()
    percent = stripped.endswith("%")
    try:
        number = float(stripped[:-1] if percent else stripped)
    except ValueError:
        number = math.nan
    fraction = number / 100 if percent else number
    if not 0 <= fraction <= 1:
        raise InputError(f"{option} {text!r} is not a fraction; write 5% or 0.05")
    if fraction == 1 and not percent:  # nobody who writes 1 means "never fail"
        raise InputError(f"{option} {text!r} could be 1 % or all; write 1% or 100%")
    return fraction


def check_device(name: str) -> str:
    """Return `name` if a tensor can be put there.

    Raises:
        InputError: no such device here.
    """
    import torch

    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).split("\n")[0].split(".")[0]
        raise InputError(f"--device {name!r} cannot be used here ({reason}); cpu always can") from None
    if device.type == "meta":
        raise InputError("--device 'meta' computes nothing; cpu always can be used")
    return name


def parse_shape(text: str) -> tuple[int, ...]:
    """Return `3,224,224` as (3, 224, 224).

    >>> parse_shape("3,224,224"), parse_shape("10")
    ((3, 224, 224), (10,))

    Raises:
        InputError: it is no list of sizes.
    """
    try:
        shape = tuple(int(field) for field in text.split(","))
    except ValueError:
        shape = ()
    if not shape or min(shape) < 1 or math.prod(shape) > _LARGEST:
        raise InputError(f"--input-shape {text!r} is no shape of one sample; write it as 3,224,224 (without the batch)")
    return shape


def parse_range(text: str) -> tuple[float, float]:
    """Return `0,1` as (0.0, 1.0).

    >>> parse_range("-1,1")
    (-1.0, 1.0)

    Raises:
        InputError: it is no range.
    """
    try:
        low, high = (float(field) for field in text.split(","))
    except ValueError:
        low, high = math.nan, math.nan
    if not (math.isfinite(low) and math.isfinite(high) and low <= high):
        raise InputError(f"--input-range {text!r} is no range; write the lowest and the highest value: 0,1")
    return low, high
