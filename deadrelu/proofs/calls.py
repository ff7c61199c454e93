"""Call: one op of a forward pass, with its arguments by name and their bounds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch

from .enclosure import Enclosure, Tensor
from .rounding import outward, roundoff
from .shadow import Shadow

Result = Enclosure | None
Handler = Callable[["Call"], "Result | tuple[Result, ...]"]


class Unfollowed(Exception):  # noqa: N818 - nothing went wrong
    """Raised by a handler: this call has no bounds; the message says why."""


class Call:
    """One call of an op.

    Attributes:
        func: the overload.
        name: of the op, without the underscore of an in-place form: `add`.
        given: the arguments by the names of the schema, defaults included.
        outs: the tensors that it returned, once it has run.
    """

    def __init__(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], memory: Shadow) -> None:
        self.func = func
        self.name = _name(func)
        self.outs: list[Tensor] = []
        self._memory = memory
        arguments = func._schema.arguments
        self.given: dict[str, Any] = {a.name: a.default_value for a in arguments if a.has_default_value()}
        positional = [a.name for a in arguments if not a.kwarg_only]
        self.given.update(zip(positional, args, strict=False))
        self.given.update(kwargs)

    def __getitem__(self, key: str) -> Any:
        return self.given[key]

    def get(self, key: str, default: Any = None) -> Any:
        """Return an argument; `default` if this overload has none of that name."""
        return self.given.get(key, default)

    @property
    def tensors(self) -> list[Tensor]:
        """The tensors among the arguments, lists looked into."""
        return list(flat(self.given.values()))

    @property
    def written(self) -> list[Tensor]:
        """The tensors that it overwrites: in place, or as `out`."""
        if torch.Tag.inplace_view in self.func.tags:
            return []
        names = [a.name for a in self.func._schema.arguments if a.alias_info is not None and a.alias_info.is_write]
        return list(flat(self.given.get(name) for name in names))

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the first result."""
        return self.outs[0].dtype

    @property
    def shape(self) -> torch.Size:
        """The shape of the first result."""
        return self.outs[0].shape

    def bounds(self, key: str) -> Enclosure:
        """Return the bounds of an operand, a tensor or a number, as it is in the dtype of the result."""
        return self.within(self.given[key])

    def within(self, value: Any) -> Enclosure:
        """Return the bounds of a tensor or a number, as it is in the dtype of the result."""
        if isinstance(value, Tensor):
            found = self._memory.read(value)
            if value.dtype == self.dtype or not self.dtype.is_floating_point:
                return found
            return cast(found, value.dtype, self.dtype)
        device = self.outs[0].device
        exact = torch.tensor(float(value), dtype=torch.float64, device=device)
        stored = torch.tensor(value, device=device).to(self.dtype).double()
        return Enclosure(torch.minimum(exact, stored), torch.maximum(exact, stored))

    def read(self, key: str) -> Enclosure:
        """Return the bounds of a tensor in its own dtype."""
        return self._memory.read(self.given[key])

    def constant(self, key: str) -> Tensor | None:
        """Return a tensor that is the same for every input, as float64; None if it is not."""
        value = self.given[key]
        if not isinstance(value, Tensor):
            return None
        if self._memory.constant(value):
            return value.detach().double()
        found = self._memory.read(value)
        return found.low if found.point else None

    def is_constant(self, value: Tensor) -> bool:
        """True if a tensor is the same for every input."""
        return self._memory.constant(value) or self._memory.read(value).point

    def needed(self, key: str) -> Tensor:
        """Return a tensor that has to be the same for every input, as float64; None stays None.

        Raises:
            Unfollowed: it depends on the input.
        """
        value = self.constant(key)
        if value is None:
            raise Unfollowed(f"its {key} depends on the input")
        return value

    def source(self, key: str) -> Any:
        """Return what tells whether two tensors are the same numbers."""
        value = self.given[key]
        return self._memory.source(value) if isinstance(value, Tensor) else None


def flat(values: Any) -> Iterator[Tensor]:
    """Yield the tensors among values, lists looked into."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, (tuple, list)):
            yield from flat(value)


def cast(found: Enclosure, source: torch.dtype, target: torch.dtype) -> Enclosure:
    """Return bounds after a conversion between dtypes of which the target is a float."""
    if not target.is_floating_point:
        return found
    if source.is_floating_point and torch.finfo(target).eps <= torch.finfo(source).eps:
        exact = torch.finfo(target).max >= torch.finfo(source).max
        return found if exact else Enclosure(*outward(found.low, found.high, target), reason=found.reason)
    low, high = outward(found.low, found.high, target)
    if not source.is_floating_point:  # small whole numbers are exact
        limit = 1.0 / roundoff(target)
        low = torch.where(found.low.abs() <= limit, found.low, low)
        high = torch.where(found.high.abs() <= limit, found.high, high)
    return Enclosure(low, high, reason=found.reason, ball=found.ball)


def _name(func: Any) -> str:
    name = str(func._schema.name).removeprefix("aten::")
    return name if name.endswith("__") else name.rstrip("_") or name
