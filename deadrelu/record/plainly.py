"""Plainly: what the values of a record hold, as JSON without a number that JSON has not."""

from __future__ import annotations

import json
import math
from typing import Any, NoReturn


def to_json(told: Any) -> bytes:
    """Return JSON without spaces, as bytes.

    Raises:
        ValueError: a number is not finite.
    """
    return json.dumps(told, separators=(",", ":"), allow_nan=False).encode()


def finite(number: float | None) -> float | None:
    """Return a number that JSON has, None for NaN and infinity."""
    return None if number is None or not math.isfinite(number) else float(number)


def refuse(constant: str) -> NoReturn:
    """Refuse NaN and infinity, which are no JSON.

    Raises:
        ValueError: always.
    """
    raise ValueError(f"{constant} is no JSON")
