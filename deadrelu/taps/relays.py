"""Relays: hooks that compiled code is traced with, so that what a unit reaches is computed in the graph itself.

Everything here that runs in a forward pass is traced by torch.compile: it must not break the graph, and what it reads
of Python's state becomes a guard of the compiled code, so that nothing may be read that changes from step to step. The
rest waits for the optimizer, whose hooks are never compiled.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import nn

from ..guards import Hook
from ..kernels import Plan
from ..kinds import Kind
from ..windows import LOWEST, Live, depth


class Call:
    """One call of a place: over which axes its z is reduced, how units are ordered then, and where they go."""

    def __init__(self, kind: Kind, reduction: Reduction, live: Live) -> None:
        self.intervals = None if kind.positive and live.site.kind.positive else kind.intervals
        self.over, self.sizes, self.order, self.kept, self.ndim = reduction
        self.parts = live.parts

    def fits(self, z: torch.Tensor) -> bool:
        """Return whether z is made like the one that was traced; its numbers of units are asked for, no others."""
        if z.ndim != self.ndim or z.device != self.parts[0].device or not z.is_floating_point():
            return False
        return all(z.shape[dim] == size for dim, size in self.kept)


class Reduction(NamedTuple):
    """How a tensor is reduced to its units.

    Attributes:
        over: the axes to reduce.
        sizes: what the others are split into.
        order: where the units' axes stand among these, outermost first.
        kept: the axes that are left, with their sizes.
        ndim: number of axes.
    """

    over: tuple[int, ...]
    sizes: tuple[int, ...]
    order: tuple[int, ...]
    kept: tuple[tuple[int, int], ...]
    ndim: int


def reduction(plan: Plan, shape: tuple[int, ...]) -> Reduction | None:
    """Return how to reduce a z of this shape, whatever its batch; None if its units share an axis with others.

    >>> reduction(Plan((2, 3, 5), (2,), (0,), (1,), (2, 3, 5)), (6, 5))  # tokens of all samples along one axis
    Reduction(over=(0,), sizes=(5,), order=(0,), kept=((1, 5),), ndim=2)
    >>> reduction(Plan((2, 3, 5), (2,), (0,), (1,), (2, 3, 5)), (2, 15)) is None  # units between positions
    True
    """
    over, left, kept, axis = [], [], [], 0
    for dim, size in enumerate(shape):
        held, extent = [], 1
        while extent < size:
            extent *= plan.shape[axis]
            held += [axis] if plan.shape[axis] != 1 else []
            axis += 1
        inner = [i in plan.units for i in held]
        if any(inner) and not all(inner):
            return None
        if any(inner):
            left += held
            kept.append((dim, size))
        else:
            over.append(dim)
    units = [i for i in plan.units if plan.shape[i] != 1]
    if not over or not left:
        return None
    sizes, order = tuple(plan.shape[i] for i in left), tuple(left.index(i) for i in units)
    return Reduction(tuple(over), sizes, order, tuple(kept), len(shape))


class State:
    """What the hooks of one model share.

    Attributes:
        eager: a forward pass runs that was not entered by compiled code.
        inside: one runs that was.
        epoch: counts the changes of what is hooked: to read it makes compiled code depend on it.
        count_eval: forward passes in eval mode or without gradients count, too.
        blind: a part that is compiled runs inside of a forward pass that is not.
        passed: the number of the module that compiled code entered last, -1 for none.
        inputs: what it was called with.
        autocast: the dtype of autocast in it, by device type.
        relays: the hooks that keep what z reaches.
    """

    def __init__(self, *, count_eval: bool) -> None:
        self.eager = self.inside = False
        self.epoch = 0
        self.count_eval = count_eval
        self.blind = False
        self.passed = -1
        self.inputs: tuple[tuple[Any, ...], dict[str, Any]] | None = None
        self.autocast: dict[str, torch.dtype] = {}
        self.relays: list[Relay] = []

    def enter(self, module: nn.Module, number: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        """A module that is followed begins in code that is compiled; True if that is the outermost one."""
        if self.eager or self.inside or self.epoch < 0:
            return False
        if not (self.count_eval or (module.training and torch.is_grad_enabled())):
            return False
        self.inside, self.passed = True, number
        self.inputs = args, kwargs  # unasked: to ask what a value is makes code depend on it
        self.autocast = ambient()
        for relay in self.relays:
            relay.number = 0
        return True

    def leave(self) -> None:
        """The outermost module that compiled code has entered ends."""
        self.inside = False
        for relay in self.relays:
            if not relay.alike and 0 < relay.number < len(relay.calls):
                relay.misfit = True


def ambient() -> dict[str, torch.dtype]:
    """Return the dtype that autocast is on with, by device type."""
    return {d: torch.get_autocast_dtype(d) for d in ("cpu", "cuda") if torch.is_autocast_enabled(d)}


class Beacon(Hook):
    """Makes compiled code depend on what is hooked, where nothing else of ours is in it yet."""

    def __init__(self, state: State) -> None:
        self.state = state

    def __call__(self, module: nn.Module, args: Any) -> None:
        if torch.compiler.is_compiling() and self.state.epoch < 0:  # never: to have asked is all
            self.state.inside = False


class Relay(Hook):
    """Keeps what z reaches at one place, in compiled code and where that falls back to eager code.

    Attributes:
        misfit: it was called more often, or with another z, than it had learned.
        stale: what it has learned does not hold.
    """

    def __init__(self, state: State, calls: list[Call]) -> None:
        self.state = state
        self.misfit = self.stale = self.elastic = False
        self.learn(calls, elastic=False)

    def learn(self, calls: list[Call], *, elastic: bool) -> None:
        """Expect these calls from now on; elastic: all are of one site, and there may be more or fewer of them."""
        self.stale, self.elastic = False, elastic and bool(calls)
        self.calls = calls
        self.alike = len({id(call.parts) for call in calls}) == 1
        self.number = 0  # calls in this forward pass

    def keep(self, z: Any) -> None:
        """Keep what this z reaches."""
        if self.state.epoch < 0:  # never: to have asked is all
            return
        if self.number < len(self.calls):
            self.number += 1
        elif not self.elastic:  # one call more than there were
            self.misfit = True
            return
        call = self.calls[self.number - 1]
        if not isinstance(z, torch.Tensor) or not call.fits(z):
            self.misfit = True
            return
        with torch.no_grad():
            z = z.detach()
            tops = [z] if call.intervals is None else [depth(z, call.intervals), z]
            for part, top in zip(call.parts, tops, strict=True):
                # The largest of the others where some are NaN, NaN where all are; two reductions that are fused.
                reached = torch.where(top.isnan(), LOWEST, top).amax(call.over)
                reached = torch.where((reached == LOWEST) & top.amax(call.over).isnan(), torch.nan, reached)
                reached = reached.reshape(call.sizes).permute(call.order).reshape(-1)
                part.copy_(torch.where(part == LOWEST, reached, torch.fmax(part, reached)))


class RelayBefore(Relay):
    """Before an activation module, whose first input is z."""

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self.state.inside and args:
            self.keep(args[0])


class RelayAfter(Relay):
    """After a layer, whose output is z."""

    def __call__(self, module: nn.Module, args: Any, out: Any) -> None:
        if self.state.inside:
            self.keep(out)
