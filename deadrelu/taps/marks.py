"""Marks: what a pre-activation of a training tells of the layers that made it, by the graph behind it.

A module or function that is called in several places is met by its calls, and these may come in another order, or in
other places, from one forward pass to the next. What autograd keeps for the backward pass tells one from the other:
from z back, the first parameters by each way are those of the layers that made it, and of what was added to it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import nn

Way = tuple[int, ...]
_DEEP, _BROAD, _MOST = 12, 64, 8
"""Ops from z back to a parameter, ops that are looked at, and parameters that are kept, at most."""
_CHAIN = 4
"""Ops of one input each, such as a cast or a transposition, between a layer and its parameter, at most."""
_JOINS = tuple(f"{op}Backward" for op in ("Add", "Sub", "Mul", "Div", "Cat", "Stack", "Where", "Lerp", "Addcmul"))
"""Ops that join what several layers made, also with a parameter of their own."""
_VARIANTS = 8
"""Graphs behind the calls of one site that are remembered; where there are more, they say nothing."""


class Entry:
    """A parameter, and the way to it: which input of each op, from z back.

    Attributes:
        parameter: held, and not weakly: `torch.utils.swap_tensors` refuses tensors that something refers to weakly.
        key: what can be compared.
    """

    __slots__ = ("_way", "key", "parameter")

    def __init__(self, parameter: nn.Parameter, way: Way) -> None:
        self.parameter, self._way = parameter, way
        self.key = id(parameter), way

    def on(self, z: torch.Tensor) -> bool:
        """Return whether this way leads from z to this parameter."""
        node: Any = z.grad_fn
        try:
            for i in self._way:
                node = node.next_functions[i][0]
            return node.variable is self.parameter
        except (AttributeError, IndexError):  # this way ends before, or elsewhere
            return False


class Mark:
    """The nearest parameters of one pre-activation; none where there is no graph, or they are not near.

    Attributes:
        entries: these, and the ways to them.
        keys: what can be compared of it.
        through: a way leads through another layer, such as one that is frozen.
    """

    __slots__ = ("entries", "keys", "through")

    def __init__(self, entries: Iterable[Entry], *, through: bool) -> None:
        self.entries, self.through = tuple(entries), through
        self.keys = frozenset(entry.key for entry in self.entries)

    @classmethod
    def of(cls, z: torch.Tensor) -> Mark:
        """Return the mark of z."""
        found = [] if z.grad_fn is None else list(_nearest(z.grad_fn))
        return cls((entry for entry, _ in found), through=any(through for _, through in found))

    def on(self, z: torch.Tensor) -> bool:
        """Return whether z has all of it."""
        if len(self.entries) == 1:  # asked at every call of a module that is shared
            return self.entries[0].on(z)
        return all(entry.on(z) for entry in self.entries)


class Marks:
    """The marks that the calls of one site at one place have had, and what of them no other site there has.

    Attributes:
        many: there are too many to tell anything.
        vague: some of them may be those of another site, too.
    """

    __slots__ = ("_own", "_variants", "_whole", "many", "vague")

    def __init__(self) -> None:
        self.many = self.vague = self._whole = False
        self._variants: list[Mark] = []
        self._own: list[Mark] = []

    @property
    def tell(self) -> bool:
        """Whether they tell this site from the others."""
        return bool(self._variants) and not self.vague

    def learn(self, mark: Mark) -> bool:
        """Take in the mark of a traced call; returns whether it is another than before."""
        if self.many or not mark.entries or self.have(mark):
            return False
        self._variants.append(mark)
        self.many = len(self._variants) > _VARIANTS
        if self.many:
            self._variants = []
        self._own = self._variants
        return True

    def have(self, mark: Mark) -> bool:
        """Return whether this is one of them, with all that is near."""
        return any(mark.keys == held.keys for held in self._variants)

    def fit(self, z: torch.Tensor, *, closely: bool) -> bool:
        """Return whether z is one of this site: by what is its own among the sites known, or by all that is near."""
        if closely or self._whole:
            return self.have(Mark.of(z))
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
            site._whole = whole


def _nearest(op: Any) -> Iterator[tuple[Entry, bool]]:
    """Find the parameters that are the fewest ops away, by each way: what lies behind a layer is not looked at.

    Also tells whether the way to them leads through an op of several inputs that joins nothing: a layer without any.
    """
    level: list[tuple[Any, Way, bool]] = [(op, (), False)]
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
            joins = type(node).__name__.startswith(_JOINS)
            if not found or joins:
                beyond = through or not (joins or len(node.next_functions) == 1)
                rest = (one for i, one in enumerate(inputs) if i not in found and one[0] not in seen)
                below += [(*one, beyond) for one in rest]
                seen.update(back for back, _ in inputs)
        level = below[:_BROAD]


def _parameter(op: Any, way: Way) -> Entry | None:
    """Return the parameter that ops of one input each lead to."""
    for _ in range(_CHAIN):
        variable = getattr(op, "variable", None)
        if isinstance(variable, nn.Parameter):
            return Entry(variable, way)
        if op is None or len(op.next_functions) != 1:
            return None
        ((op, _),) = op.next_functions
        way = (*way, 0)
    return None
