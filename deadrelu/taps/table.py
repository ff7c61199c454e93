"""Table: where the activation calls of a traced forward pass are met again."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import torch
from torch import nn

from .. import tracing
from ..guards import Guarded
from ..kernels import Plan
from ..kinds import Kind
from ..sites import Site
from ..tracing import Layout
from ..windows import Live, Met, Slot
from .marks import Mark

Guard = Callable[[Callable[..., Any]], Guarded]
"""Wraps a function of ours, so that what goes wrong in it never reaches the training: it returns None then."""


_PLANS = 512
"""Shapes of one call that are remembered."""
_SITES = 32
"""Sites of one place that are told from each other."""


class Sink(Protocol):
    """Who is told of what the taps see.

    Attributes:
        observing: this step is observed.
        thorough: this step is looked at closely: its calls are checked, and blocks that run again in backward told of.
        resting: no step is looked at for a while.
        patience: forward passes without an update after which `idle` is to be told.
    """

    observing: bool
    thorough: bool
    resting: bool
    patience: int

    def idle(self) -> None: ...

    def unseen(self) -> None: ...

    def begin_forward(
        self, rows: int | None, module: nn.Module, args: tuple[Any, ...] | None, kwargs: dict[str, Any]
    ) -> None: ...

    def compiled(self, lives: Iterable[Live], rows: int | None) -> None:
        """Compiled code has kept what the sites have reached in its forward passes of this step, on so many samples."""

    def row(self) -> int:
        """Return the row of the window that largest z may be written into as they are; -1 if more is to be done."""

    def slot(self, site: Site) -> Slot | None:
        """Return the place of a site in the window, None before it was observed."""

    def met(self, calls: Iterable[Met]) -> None:
        """These calls wrote their largest z into that row, each the only one of its site in this step."""

    def found(self, site: Site, layout: Layout, nearest: str | None, *, fed: bool) -> None: ...

    def ran(self, path: str, module: nn.Module, x: Any, out: Any) -> None: ...

    def observe(self, site: Site, kind: Kind, z: torch.Tensor, plan: Plan) -> None: ...

    def observe_replay(self, site: Site, z: torch.Tensor, plan: Plan) -> None: ...

    def end_forward(self, suspect: Iterable[Site]) -> None: ...


@dataclass(slots=True)
class Tap:
    """One activation call of a traced forward pass, to be met again.

    Attributes:
        site, kind: what it belongs to, and what its arguments made of the kind.
        layout, shape, dtype, device: of its z when it was traced.
        checkpointed: it was called from within a checkpoint, to be called again in backward.
        mark: by which its z is told from that of another site; None if it cannot be.
        plans: how to reduce a z of another shape.
    """

    site: Site
    kind: Kind
    layout: Layout
    shape: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device
    checkpointed: bool
    mark: Mark | None = None
    plans: dict[tuple[torch.Size, int | None], Plan | None] = field(default_factory=dict)

    def plan(self, shape: torch.Size, batch: int | None) -> Plan | None:
        """Return how to reduce a z of this shape; None if it does not fit what was traced."""
        key = (shape, batch)  # 4 rows of 8 tokens and 8 rows of 4 have one shape when folded
        try:
            return self.plans[key]
        except KeyError:
            if len(self.plans) >= _PLANS:
                self.plans.clear()
            layout = tracing.refit(self.layout, tuple(shape), batch)
            plan = self.plans[key] = None if layout is None else tracing.plan(layout)
            return plan


class Output(NamedTuple):
    """The output of a layer, where it is z itself."""

    layer: nn.Module


Place = nn.Module | Output | tuple[str, str]
"""Where a call is met again: an activation module, the output of a layer, or (path of the running module, function)."""


@dataclass(slots=True)
class Table:
    """What the traced forward pass of one outermost module called, in order, by place.

    Attributes:
        taps: the calls at each place.
        functional: some call is met by the function mode alone.
        elastic: places that serve one site and are called now more, now less often.
        dynamic: it cannot be trusted to be the same the next time.
        known: the sites of each place, one call of each, also of those that only other passes met.
        told: the places that serve several sites, all of which their marks tell apart.
        unmarked: the sites whose mark is another from pass to pass.
    """

    taps: dict[Place, list[Tap]] = field(default_factory=dict)
    functional: bool = False
    elastic: set[Place] = field(default_factory=set)
    dynamic: bool = False
    known: dict[Place, dict[str, Tap]] = field(default_factory=dict)
    told: set[Place] = field(default_factory=set)
    unmarked: set[str] = field(default_factory=set)

    def learn_from(self, before: Table | None) -> bool:
        """Take over what the passes before this one showed; returns whether this one explains why it was traced.

        It does if it met a site where none was, or a mark that is another than it was.
        """
        anew = before is None or any(
            tap.site.name not in before.known.get(place, {}) for place, taps in self.taps.items() for tap in taps
        )
        if before is not None:
            self._stretch(before)
            self._take_over(before)
            self.unmarked |= before.unmarked
        marked = len(self.unmarked)
        for place, taps in self.taps.items():
            self._meet(place, taps, {} if before is None else before.known.get(place, {}))
        return anew or len(self.unmarked) > marked

    def tap(self, place: Place, number: int, z: torch.Tensor) -> Tap | None:
        """Return which call has just come to a place, that of this number or another; None if it is not known."""
        taps = self.taps[place]
        tap = taps[number] if number < len(taps) else taps[0]
        known = self.known[place].values()
        if z.grad_fn is None or (len(known) == 1 and tap.mark is None):
            return tap
        met = [t for t in known if t.mark is not None and t.mark.on(z)]
        met = met or [t for t in known if t.mark is None] or _nearest(known, z)
        return next((t for t in met if t.site is tap.site), met[0] if met else None)

    def _stretch(self, before: Table) -> None:
        """Note the places that are called now more, now less often."""
        self.dynamic |= before.dynamic
        self.elastic |= before.elastic & self.taps.keys()
        for place, taps in self.taps.items():
            names = {tap.site.name for tap in (*taps, *before.taps.get(place, ()))}
            if len(names) == 1 and len(before.taps.get(place, taps)) != len(taps):
                self.elastic.add(place)

    def _take_over(self, before: Table) -> None:
        """Keep what did not run this time and may run the next time; what has moved to another place stands there."""
        here = {tap.site.name for taps in self.taps.values() for tap in taps}
        for place, taps in before.taps.items():
            if place not in self.taps and here.isdisjoint(tap.site.name for tap in taps):
                self.taps[place] = taps
                self.functional |= type(place) is tuple

    def _meet(self, place: Place, taps: Iterable[Tap], before: dict[str, Tap]) -> None:
        """Put the calls of a place to those that were met there before, and ask whether their marks tell them apart."""
        known = dict(before)
        for tap in taps:
            earlier = known.get(tap.site.name)
            if earlier is not None and earlier is not tap and earlier.mark is not None:
                if tap.mark is None or not tap.mark.same(earlier.mark):
                    self.unmarked.add(tap.site.name)
                else:
                    tap.mark.learn(earlier.mark)
            known[tap.site.name] = tap
        for tap in (*known.values(), *taps):
            if tap.site.name in self.unmarked:
                tap.mark = None
        self.known[place] = dict(list(known.items())[-_SITES:])
        if len(known) > 1 and _distinct([tap.mark for tap in known.values()]):
            self.told.add(place)


def _distinct(marks: Iterable[Mark | None]) -> bool:
    """Return whether there are marks, and no two can be taken for each other."""
    held: list[Mark] = []
    for mark in marks:
        if mark is None or any(mark.alike(other) for other in held):
            return False
        held.append(mark)
    return True


def _nearest(taps: Iterable[Tap], z: torch.Tensor) -> list[Tap]:
    """Return the calls among these that have the nearest parameter of z, whatever the way to it."""
    mark = Mark.of(z)
    found = [tap for tap in taps if mark is not None and tap.mark is not None and tap.mark.same(mark)]
    if len(found) == 1 and mark is not None and found[0].mark is not None:
        found[0].mark.learn(mark)
    return found
