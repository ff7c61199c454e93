"""Box: the inputs that a proof holds for: their shapes, their ranges, their dtype."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from ..errors import DataError

Tensor = torch.Tensor
Shape = Sequence[int]
_SEED = 20260


@dataclass(frozen=True, slots=True)
class Side:
    """The range of one input.

    Attributes:
        shape: of one sample.
        low, high: float64, of that shape.
        dtype: None: that of the model's parameters.
    """

    shape: tuple[int, ...]
    low: Tensor
    high: Tensor
    dtype: torch.dtype | None

    @property
    def whole(self) -> bool:
        """True if the ends of the range are whole numbers, as those of tokens are."""
        return bool((self.low == self.low.round()).all() and (self.high == self.high.round()).all())

    def ends(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Return (low, high), widened to what the ends become when they are stored in `dtype`."""
        low, high = (torch.as_tensor(end).to(dtype).double() for end in (self.low, self.high))
        return torch.minimum(self.low, low), torch.maximum(self.high, high)

    def sample(self, rows: int, dtype: torch.dtype, generator: torch.Generator) -> Tensor:
        """Return `rows` random inputs of the range."""
        spread = torch.rand(rows, *self.shape, dtype=torch.float64, generator=generator)
        low, high = self.ends(dtype)
        if not dtype.is_floating_point:
            return (low + (spread * (high - low + 1)).floor()).clamp(low, high).to(dtype)
        return (low + spread * (high - low)).to(dtype)


@dataclass(frozen=True, slots=True)
class Box:
    """The ranges of all inputs.

    Attributes:
        positional: in order.
        named: by keyword.
    """

    positional: tuple[Side, ...]
    named: Mapping[str, Side]

    @property
    def sides(self) -> list[Side]:
        """The ranges, positional first."""
        return [*self.positional, *self.named.values()]

    def as_tokens(self) -> Box | None:
        """Return the box of the same whole numbers; None if a dtype was named or a range does not end in them."""
        if any(side.dtype is not None or not side.whole for side in self.sides):
            return None
        return Box(
            tuple(replace(side, dtype=torch.int64) for side in self.positional),
            {name: replace(side, dtype=torch.int64) for name, side in self.named.items()},
        )

    def inputs(
        self, rows: int, batch_dim: int, draw: int, device: torch.device | None, dtype: torch.dtype
    ) -> tuple[list[Tensor], dict[str, Tensor]]:
        """Return (positional, keyword) inputs of `rows` samples, random ones of the box, the same for each `draw`."""
        generator = torch.Generator().manual_seed(_SEED + draw)

        def sampled(side: Side) -> Tensor:
            return side.sample(rows, side.dtype or dtype, generator).movedim(0, batch_dim).contiguous().to(device)

        return [sampled(s) for s in self.positional], {name: sampled(s) for name, s in self.named.items()}

    def __str__(self) -> str:
        parts = [_words(side) for side in self.positional]
        return "; ".join([*parts, *(f"{name}: {_words(side)}" for name, side in self.named.items())])


def _words(side: Side) -> str:
    low, high = float(side.low.min()), float(side.high.max())
    shape = "x".join(map(str, side.shape)) or "one number"
    kind = "whole numbers" if side.dtype is not None and not side.dtype.is_floating_point else "numbers"
    return f"{shape} {kind} from {low:g} to {high:g}"


def declared(shapes: Any, ranges: Any, dtype: torch.dtype | None) -> Box:
    """Return the box of what a caller declared: one shape and range, or one per input, or by name.

    Raises:
        DataError: they do not fit each other.
    """
    if isinstance(shapes, Mapping):
        named = {name: _side(shape, _range_of(ranges, name), dtype) for name, shape in shapes.items()}
        return Box((), named)
    if not isinstance(shapes, (tuple, list, torch.Size)):
        raise DataError(f"input_shape is {shapes!r}; expected the shape of one sample, such as (3, 224, 224)")
    if all(isinstance(n, (int, np.integer)) for n in shapes):
        return Box((_side(shapes, ranges, dtype),), {})
    several = isinstance(ranges, (tuple, list)) and all(isinstance(r, (tuple, list)) for r in ranges)
    if several and len(ranges) != len(shapes):
        raise DataError(
            f"{len(shapes)} input shapes, but {len(ranges)} ranges; give one range per input, or one for all"
        )
    pairs = ranges if several else [ranges] * len(shapes)
    return Box(tuple(_side(shape, pair, dtype) for shape, pair in zip(shapes, pairs, strict=True)), {})


def _range_of(ranges: Any, name: str) -> Any:
    if not isinstance(ranges, Mapping):
        return ranges
    if name not in ranges:
        raise DataError(f"input_range names {', '.join(map(str, ranges)) or 'no input'}; expected {name!r} too")
    return ranges[name]


def _side(shape: Any, pair: Any, dtype: torch.dtype | None) -> Side:
    size = tuple(int(n) for n in shape)
    if any(n < 0 for n in size):
        raise DataError(f"input_shape {size} has a negative size; expected the shape of one sample")
    if not isinstance(pair, (tuple, list)) or len(pair) != 2:
        raise DataError(f"input_range is {pair!r}; expected (low, high), each a number or of shape {size}")
    low, high = (_end(end, size) for end in pair)
    if not bool(low.isfinite().all() and high.isfinite().all()):
        raise DataError("input_range is not finite; expected the range that the inputs really have")
    if bool((low > high).any()):
        raise DataError("input_range has a low end over its high end; expected (low, high)")
    side = Side(size, low, high, dtype)
    if dtype is not None and not dtype.is_floating_point and not side.whole:
        raise DataError(f"input_range of {dtype} inputs does not end in whole numbers")
    return side


def _end(end: Any, shape: tuple[int, ...]) -> Tensor:
    try:
        return torch.as_tensor(end, dtype=torch.float64).detach().cpu().expand(shape).contiguous()
    except (RuntimeError, TypeError, ValueError):
        raise DataError(
            f"an end of input_range does not fit the input shape {shape}; expected a number or that shape"
        ) from None
