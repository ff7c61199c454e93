"""Marks: what a pre-activation of a training tells of the layer that made it, by the graph behind it.

A module or function that is called in several places is met by its calls, and these may come in another order, or in
other places, from one forward pass to the next. What autograd keeps for the backward pass tells one from the other:
from z back, the first parameter is that of the layer that made it, or of what it was added to.
"""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch import nn

_DEEP, _BROAD = 8, 64
"""Ops from z back to the parameter, and ops that are looked at, at most."""
_WAYS = 8
"""Ways from z to the same parameter that are remembered, for its ops may depend on shapes."""
Way = tuple[int, ...]


class Mark:
    """The parameter that is nearest to a pre-activation, and the ways to it: which input of each op, from z back."""

    __slots__ = ("_parameter", "_ways")

    def __init__(self, parameter: nn.Parameter, way: Way) -> None:
        self._parameter = weakref.ref(parameter)
        self._ways = [way]

    @classmethod
    def of(cls, z: torch.Tensor) -> Mark | None:
        """Return the mark of z, None where no parameter near it takes part in a backward pass."""
        found = _nearest(z)
        return None if found is None else cls(*found)

    def alike(self, other: Mark) -> bool:
        """Return whether both may be those of one pre-activation."""
        return self.same(other) and not set(self._ways).isdisjoint(other._ways)

    def same(self, other: Mark) -> bool:
        """Return whether the nearest parameter is the same."""
        return self._parameter() is other._parameter()

    def on(self, z: torch.Tensor) -> bool:
        """Return whether z has this mark, by a way that is known; False does not say that it has another."""
        node: Any = z.grad_fn
        parameter = self._parameter()
        for way in self._ways:
            try:
                for i in way:
                    node = node.next_functions[i][0]
                if node.variable is parameter:
                    return True
            except (AttributeError, IndexError):  # this way ends before, or elsewhere
                pass
            node = z.grad_fn
        return False

    def learn(self, other: Mark) -> None:
        """Take over the ways to the same parameter."""
        self._ways += [way for way in other._ways if way not in self._ways]
        del self._ways[_WAYS:]


def _nearest(z: torch.Tensor) -> tuple[nn.Parameter, Way] | None:
    """Return the parameter that is the fewest ops away from z, and the way to it."""
    level: list[tuple[Any, Way]] = [(z.grad_fn, ())]
    seen: set[Any] = set()
    for _ in range(_DEEP):
        below = []
        for node, way in level:
            for i, (back, _) in enumerate(() if node is None else node.next_functions):
                if back is None or back in seen:
                    continue
                seen.add(back)
                variable = getattr(back, "variable", None)
                if isinstance(variable, nn.Parameter):
                    return variable, (*way, i)
                below.append((back, (*way, i)))
        level = below[:_BROAD]
    return None
