"""Table: where the activation calls of a traced forward pass are met again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
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
from .marks import Mark, Marks

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
        mark: that of its z when it was traced.
        plans: how to reduce a z of another shape.
    """

    site: Site
    kind: Kind
    layout: Layout
    shape: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device
    checkpointed: bool
    mark: Mark
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
class Known:
    """A site that was met at a place: one call of it, and what tells its calls from those of other sites there."""

    tap: Tap
    marks: Marks


@dataclass(slots=True)
class Table:
    """What the traced forward pass of one outermost module called, in order, by place.

    Attributes:
        taps: the calls at each place.
        functional: some call is met by the function mode alone.
        elastic: places that serve one site and are called now more, now less often.
        dynamic: it cannot be trusted to be the same the next time.
        known: the sites of each place, by name, also those that only other passes met.
        told: the places that serve several sites, all of which their marks tell apart.
        left_out: the places of calls that nobody wants to hear of, and what tells these.
    """

    taps: dict[Place, list[Tap]] = field(default_factory=dict)
    functional: bool = False
    elastic: set[Place] = field(default_factory=set)
    dynamic: bool = False
    known: dict[Place, dict[str, Known]] = field(default_factory=dict)
    told: set[Place] = field(default_factory=set)
    left_out: dict[Place, Marks] = field(default_factory=dict)

    def learn_from(self, before: Table | None) -> bool:
        """Take over what the passes before this one showed; returns whether this one explains why it was traced.

        It does if it met a site where none was, or one by another graph than before.
        """
        if before is not None:
            self._stretch(before)
            self._take_over(before)
            self.left_out = {**before.left_out, **self.left_out}
        new = False
        for place, taps in self.taps.items():
            new |= self._meet(place, taps, before)
        return new

    def tap(self, place: Place, number: int, z: torch.Tensor, *, closely: bool) -> tuple[Tap | None, bool]:
        """Return which call has just come to a place, that of this number or another, and whether that is sure.

        None if it is not known: another layer has made z than any that was traced, or, if that is sure, one that is
        left out. What has no mark is told by its number alone. Closely: all that is near must be as it was.
        """
        taps, known = self.taps[place], self.known[place]
        tap = taps[number] if number < len(taps) else taps[0]
        if isinstance(place, Output):  # of what no other layer makes
            return tap, True
        if z.grad_fn is None:
            return tap, False
        if known[tap.site.name].marks.fit(z, closely=closely):
            return tap, True
        mark = Mark.of(z)
        if not mark.entries:
            return tap, False
        met = [held for held in known.values() if held.marks.have(mark)]
        sure = bool(met)
        if not met and place in self.left_out and self.left_out[place].have(mark):
            return None, True
        met = met or [held for held in known.values() if held.marks.many]
        return next((tap for held in met if held.tap.site is tap.site), met[0].tap if met else None), sure

    def leave_out(self, calls: Mapping[Place, Iterable[Mark]]) -> None:
        """Take in the calls that the patterns leave out."""
        for place, marks in calls.items():
            held = self.left_out.setdefault(place, Marks())
            for mark in marks:
                held.learn(mark)

    def guess(
        self, place: Place, number: int, z: torch.Tensor, names: Callable[[nn.Parameter], set[str]]
    ) -> Tap | None:
        """Return which call has come by a graph that is not known; None if another layer may have made z.

        A layer that was thawed or pruned is still that layer, by the names of its parameters; one that was frozen is
        told where nothing else is known.
        """
        taps, known = self.taps[place], self.known[place]
        tap = taps[number] if number < len(taps) else taps[0]
        mark = Mark.of(z)
        if mark.through:
            return tap if len(known) == 1 and place not in self.left_out else None
        made = [names(entry.parameter) for entry in mark.entries]
        fit = [held.tap for held in known.values() if not any(held.tap.site.lineage.isdisjoint(each) for each in made)]
        return next((tap for held in fit if held.site is tap.site), fit[0] if len(fit) == 1 else None)

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

    def _meet(self, place: Place, taps: list[Tap], before: Table | None) -> bool:
        """Put the calls of a place to those that were met there before; returns whether anything is new."""
        earlier = {} if before is None else before.known.get(place, {})
        here = {tap.site.name for tap in taps}
        gone = [name for name in earlier if name not in here]
        known = {name: earlier[name] for name in (*gone[-_SITES:], *(name for name in earlier if name in here))}
        new = False
        for tap in taps:
            held = known.setdefault(tap.site.name, Known(tap, Marks()))
            held.tap = tap
            new |= held.marks.learn(tap.mark)
        self.known[place] = known
        Marks.compare([held.marks for held in known.values()])
        if len(known) > 1 and all(held.marks.tell for held in known.values()):
            self.told.add(place)
        return new or len(known) > len(earlier)
