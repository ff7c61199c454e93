"""Marks: what a pre-activation of a training tells of the layers that made it, by the graph behind it.

A module or function that is called in several places is met by its calls, and these may come in another order, or in
other places, from one forward pass to the next. What autograd keeps for the backward pass tells one from the other:
from z back, the first parameters by each way are those of the layers that made it, and of what was added to it.
"""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import nn

_DEEP, _BROAD, _MOST = 12, 64, 8
"""Ops from z back to a parameter, ops that are looked at, and parameters that are kept, at most."""
_CHAIN = 4
"""Ops of one input each, such as a cast or a transposition, between a layer and its parameter, at most."""
_JOINS = tuple(f"{op}Backward" for op in ("Add", "Sub", "Mul", "Div", "Cat", "Stack", "Where", "Lerp", "Addcmul"))
"""Ops that join what several layers made, also with a parameter of their own."""
_VARIANTS = 8
"""Graphs behind the calls of one site that are remembered; where there are more, they say nothing."""


class Entry:
    """A parameter, and the way to it: which input of each op, from z back."""

    __slots__ = ("_parameter", "_way", "key")

    def __init__(self, parameter: nn.Parameter, way: tuple[int, ...]) -> None:
        self._parameter, self._way = weakref.ref(parameter), way
        self.key = id(parameter), way

    @property
    def parameter(self) -> nn.Parameter | None:
        """The parameter, None once it is gone."""
        return self._parameter()

    def on(self, z: torch.Tensor) -> bool:
        """Return whether this way leads from z to this parameter."""
        node: Any = z.grad_fn
        try:
            for i in self._way:
                node = node.next_functions[i][0]
            return node.variable is self._parameter() is not None
        except (AttributeError, IndexError):  # this way ends before, or elsewhere
            return False


class Mark:
    """The nearest parameters of one pre-activation; none where there is a graph without parameters near.

    Attributes:
        entries: these, and the ways to them.
        through: a way leads through another layer, such as one that is frozen.
    """

    __slots__ = ("entries", "through")

    def __init__(self, entries: Sequence[Entry], *, through: bool) -> None:
        self.entries, self.through = tuple(entries), through

    @classmethod
    def of(cls, z: torch.Tensor) -> Mark | None:
        """Return the mark of z, None where there is no graph behind it."""
        if z.grad_fn is None:
            return None
        found = list(_nearest(z.grad_fn))
        return cls([entry for entry, _ in found], through=any(through for _, through in found))

    @property
    def keys(self) -> frozenset[Any]:
        """What can be compared of it."""
        return frozenset(entry.key for entry in self.entries)

    @property
    def lost(self) -> bool:
        """A parameter is gone, so that no pre-activation can have it."""
        return any(entry.parameter is None for entry in self.entries)

    def on(self, z: torch.Tensor) -> bool:
        """Return whether z has all of it."""
        if len(self.entries) == 1:  # asked at every call of a module that is shared
            return self.entries[0].on(z)
        return all(entry.on(z) for entry in self.entries)


class Marks:
    """The marks that the calls of one site at one place have had, and what of them no other site there has.

    Attributes:
        known: it can be told by them; not where they are too many, or lie too deep.
        vague: some of them may be those of another site, too.
        whole: only all that is near tells, for a layer that is in the way of one site feeds another.
    """

    __slots__ = ("_lost", "_own", "_variants", "known", "vague", "whole")

    def __init__(self, *, known: bool = True) -> None:
        self.known, self.vague, self.whole = known, False, False
        self._variants: list[Mark] = []
        self._own: list[Mark] = []
        self._lost = 0

    def learn(self, mark: Mark | None) -> bool:
        """Take in the mark of a traced call; returns whether it is another than before."""
        self._forget()
        if not self.known or mark is None or any(mark.keys == held.keys for held in self._variants):
            return False
        self._variants.append(mark)
        if not mark.entries or len(self._variants) + self._lost > _VARIANTS:
            self.known, self._variants = False, []
        self._own = self._variants
        return True

    @property
    def lost(self) -> bool:
        """A parameter of them is gone: another one may stand there now."""
        return any(mark.lost for mark in self._variants)

    def _forget(self) -> None:
        """Forget those whose parameters are gone."""
        there = [mark for mark in self._variants if not mark.lost]
        self._lost += len(self._variants) - len(there)
        self._own = self._variants = there

    def fit(self, z: torch.Tensor) -> bool:
        """Return whether z is one of this site, as far as marks tell."""
        if self.whole:
            mark = Mark.of(z)
            return mark is not None and any(mark.keys == held.keys for held in self._variants)
        if len(self._own) == 1:
            return self._own[0].on(z)
        return any(mark.on(z) for mark in self._own)

    @staticmethod
    def compare(sites: Sequence[Marks]) -> None:
        """Find what of the marks of each of these sites, which share a place, is its own."""
        shared = Counter(key for site in sites for key in {k for mark in site._variants for k in mark.keys})
        equal = Counter(keys for site in sites for keys in {mark.keys for mark in site._variants})
        whole = any(mark.through for site in sites for mark in site._variants)
        for site in sites if len(sites) > 1 else ():
            site._own = []
            for mark in site._variants:
                own = [entry for entry in mark.entries if shared[entry.key] == 1]
                site._own.append(Mark(own[:1], through=mark.through))
                whole |= not own
            site.vague = any(equal[mark.keys] > 1 for mark in site._variants)
        for site in sites:
            site.whole = whole


def _nearest(op: Any) -> Iterator[tuple[Entry, bool]]:
    """Find the parameters that are the fewest ops away, by each way: what lies behind a layer is not looked at.

    Also tells whether the way to them leads through an op of several inputs that joins nothing: a layer without any.
    """
    level: list[tuple[Any, tuple[int, ...], bool]] = [(op, (), False)]
    seen: set[Any] = set()
    count = 0
    for _ in range(_DEEP):
        below = []
        for node, way, through in level:
            inputs = [(back, (*way, i)) for i, (back, _) in enumerate(node.next_functions) if back is not None]
            found = {i: entry for i, (back, further) in enumerate(inputs) if (entry := _parameter(back, further))}
            for entry in found.values():
                if count < _MOST:
                    count += 1
                    yield entry, through
            joins = node.name().startswith(_JOINS)
            if not found or joins:
                beyond = through or not (joins or len(node.next_functions) == 1)
                rest = (one for i, one in enumerate(inputs) if i not in found and one[0] not in seen)
                below += [(*one, beyond) for one in rest]
                seen.update(back for back, _ in inputs)
        level = below[:_BROAD]


def _parameter(op: Any, way: tuple[int, ...]) -> Entry | None:
    """Return the parameter that an op of one input each leads to."""
    for _ in range(_CHAIN):
        variable = getattr(op, "variable", None)
        if isinstance(variable, nn.Parameter):
            return Entry(variable, way)
        if op is None or len(op.next_functions) != 1:
            return None
        ((op, _),) = op.next_functions
        way = (*way, 0)
    return None
