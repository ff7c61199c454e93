"""Stepper: the steps of a training, as its forward passes and its updates tell of them.

Step t is the forward passes since update t - 1, and then update t. What is seen of a step goes into the window, and on
the captured steps of a window also what is dearer: counts, gradients, reference rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from .drift import Drift
from .edits import Edits
from .kernels import Plan
from .kinds import Kind
from .meter import Meter
from .schedule import Schedule
from .sites import Site
from .snapshots import FIRST, Snapshots
from .tracing import Layout
from .windows import Live, Met, Slot, Window

LAG = 8
"""Steps after which what a window has left is looked at, where it comes to the host by itself: more than the host is
ahead of a device, and always as many, so that what is decided then does not depend on who is faster."""
IDLE = 256
"""Forward passes of one step after which it is said that no update came; more than anyone accumulates."""


class Stepper:
    """Takes in what taps and optimizers tell.

    Args:
        window, drift, snapshots, edits: where it goes.
        schedule: which steps are observed, and which captured.
        optimizers: what updates the parameters; without any, `end_update` is called by the user.
        guard: wraps what goes into hooks.
        full: called when a window is full; returns whether what it left is on the host already.
        arrived: called when it is, as far as that takes longer.
        idle, unseen, unmet: called when so many forward passes came without an update that one was forgotten; when
            code runs without our hooks; when a step has ended and no site was met yet.
        meter: told of when steps begin and end, None to measure nothing.
        rest, wake: called when nothing will be observed for some steps, and before it is; None if that may not be.

    Attributes:
        number: the step that is under way, and so the number of steps that have ended.
        samples: samples seen.
        forwards: forward passes of this step.
        open: a forward pass of this step was seen.
        observing: this step is observed.
        thorough: this step is captured.
        patience: forward passes without an update after which `idle` is told.
        idle: called then.
        unseen: called when code runs that has no hooks.
        resting: no forward pass is followed at present, and steps are counted by their updates.
    """

    def __init__(
        self,
        window: Window,
        drift: Drift,
        snapshots: Snapshots,
        edits: Edits,
        schedule: Schedule,
        optimizers: list[Optimizer],
        *,
        guard: Callable[[Callable[..., Any]], Callable[..., Any]],
        full: Callable[[], bool],
        arrived: Callable[[], None],
        idle: Callable[[], None],
        unseen: Callable[[], None],
        unmet: Callable[[], None],
        meter: Meter | None = None,
        rest: Callable[[], None] | None = None,
        wake: Callable[[], None] | None = None,
    ) -> None:
        self.patience = IDLE
        self.number = self.samples = self.forwards = 0
        self.open = self.updated = self.observing = self.thorough = False
        self._window, self._drift, self._snapshots, self._edits = window, drift, snapshots, edits
        self._optimizers = optimizers
        self._schedule, self._meter = schedule, meter
        self._rest, self._wake = (rest, wake) if len(optimizers) == 1 else (None, None)
        self.resting = False
        self._guard, self._full, self._arrived = guard, full, arrived
        self.idle, self.unseen, self._unmet = idle, unseen, unmet
        self._due = -1  # after so many steps the last window is looked at
        self._early = False
        self._batch = 0
        self._rows: int | None = None
        self._gradients: list[Any] = []

    # -- what the taps tell --------------------------------------------------------------------------------------

    def begin_forward(
        self, rows: int | None, module: nn.Module, args: tuple[Any, ...] | None, kwargs: dict[str, Any]
    ) -> None:
        """A forward pass of this outermost module that counts begins; `args` is None if its inputs are not known."""
        if self.updated:
            self.end_step()
        if not self.open:
            self.open = True
            if self._meter is not None:
                self._meter.begin_step()
            self.observing = self._schedule.observes(self.number)
            if self.observing:
                self.thorough = self._schedule.captures(len(self._window), self._drift.groups.present(), rows)
                self._window.begin_step(self.number)
                if self.thorough:
                    self._drift.arm(rows)
                    self._drift.intake.take(self.number, module, (args, kwargs))
            if self._snapshots.refused is None and args is not None:
                self._snapshots.begin_forward(module, args, kwargs, self.thorough or self.number < FIRST)
                if self._early or not self._optimizers:
                    self._snapshots.before_update(self.number, self._drift.groups.present(), self.thorough)
        self._batch, self._rows = 1 if rows is None else rows, rows
        self.forwards += 1
        if self.forwards == IDLE:
            self.idle()

    def found(self, site: Site, layout: Layout, nearest: str | None, *, fed: bool) -> None:
        """A traced forward pass met a site."""
        self.settle()  # what is on its way knows of no new one
        self._drift.follow(site, layout, nearest, fed=fed, capturing=self.thorough)

    def ran(self, path: str, module: nn.Module, x: Any, out: Any) -> None:
        """A layer ran in a traced forward pass."""
        if self.thorough:
            self._drift.remember(path, module, x, out)

    def row(self) -> int:
        """Return the row of the window that largest z may be written into as they are; -1 if more is to be done.

        In the first forward pass of a step that is not captured, once each site has its counts of this window.
        """
        plain = self.observing and not self.thorough and self.forwards == 1 and self._meter is None
        return self._window.row() if plain else -1

    def slot(self, site: Site) -> Slot | None:
        """Return the place of a site in the window, None before it was observed."""
        return self._window.slots.get(site.name)

    def met(self, calls: Iterable[Met]) -> None:
        """These calls wrote their largest z into the row of this step, each the only one of its site."""
        self._window.met(calls)

    def compiled(self, lives: Iterable[Live], rows: int | None) -> None:
        """Compiled code has kept what the sites have reached in its forward passes of this step, on so many samples."""
        if self.observing:
            slots, known = self._window.slots, list(lives)
            places = [slots.get(live.site.name) or self._place(live.site, live.blank) for live in known]
            samples = [rows if live.batched and rows is not None else 1 for live in known]
            self._window.take(zip(places, known, samples, strict=True))

    def observe(self, site: Site, kind: Kind, z: torch.Tensor, plan: Plan) -> None:
        """An activation is about to run on z."""
        if not self.observing:
            return
        plain = z.detach()
        slot = self._window.slots.get(site.name) or self._place(site, plain)
        top = self._window.observe(slot, kind, plain, plan, self._rows)
        if self.thorough or slot.wants_counts:
            active = slot.counter.counted(plain, kind, plan, self._rows, top=top)
            if self.thorough:
                slot.captured = True
                self._drift.take(site, z, active, plan.sample_count * plan.position_count)
                self._measure_gradient(site, z, plan)

    def _place(self, site: Site, z: torch.Tensor) -> Slot:
        self.settle()
        return self._window.slot(site, z)

    def observe_replay(self, site: Site, z: torch.Tensor, plan: Plan) -> None:
        """A checkpointed block runs again in backward: its gradients are measured there."""
        self._measure_gradient(site, z, plan)

    def _measure_gradient(self, site: Site, z: torch.Tensor, plan: Plan) -> None:
        if z.requires_grad and site.name in self._window.slots:
            counter = self._window.slots[site.name].counter
            note = self._guard(partial(counter.observe_gradient, plan=plan, quick=True))
            # A hook that returns None leaves the gradient as it is.
            self._gradients.append(z.register_hook(note))  # type: ignore[no-untyped-call]

    def end_forward(self, suspect: Iterable[Site]) -> None:
        """A forward pass that counts has ended."""
        ran = self._window.end_forward() if self.observing else ()
        if ran or not self.observing:  # a metric beside the model is a module, too
            self.samples += self._batch
        for site in suspect:
            if site.name in self._window.slots and self.observing:
                self._window.distrust(self._window.slots[site.name])
        if self.thorough or not self._window.counted:
            for slot in ran:
                if self.thorough or slot.wants_counts:
                    slot.counter.end_forward()
        if self.thorough:
            self._drift.end_forward()

    # -- updates -------------------------------------------------------------------------------------------------

    def before_update(self) -> None:
        """An optimizer is about to update the parameters."""
        if self.resting:
            return
        edited = self._edits.before_update(self.number)
        if self._snapshots.refused is not None:
            return
        if edited:
            self._snapshots.edited(self.number - 1, late=len(self._optimizers) > 1)
        if self.open:
            self._snapshots.before_update(self.number, self._drift.groups.present(), self.thorough)
        else:  # the forward pass comes in the closure that the optimizer was given
            self._early = True

    def after_update(self, optimizer: Optimizer) -> None:
        """An optimizer has updated its parameters."""
        if self.resting:
            self._drift.groups.after_update(optimizer, self.number, wait=False)
            self._count_step()
            return
        self._edits.after_update()
        self._drift.groups.after_update(optimizer, self.number, wait=self.thorough)
        self.end_update()

    def end_update(self) -> None:
        """The parameters were updated; the step ends, or, with several optimizers, when the next forward begins."""
        if not self.open:
            return
        self.updated = True
        # With several optimizers the next forward pass tells that the last of them is through.
        if len(self._optimizers) < 2:
            self.end_step()

    def end_step(self) -> None:
        """End the step that is under way."""
        self._snapshots.after_update()
        if self.observing:
            if self.thorough:
                self._drift.after_update(self.number)
                self.let_go()
            self._window.end_step()
            if not self._window.slots and self._batch:
                self._unmet()
        self.thorough = self.observing = False
        self.open = self.updated = self._early = False
        self.forwards = 0
        if self._meter is not None:
            self._meter.end_step()
        self._count_step()

    def _count_step(self) -> None:
        """A step has ended: look at a window that is full, and rest until the next step that is observed."""
        self.number += 1
        if self.number == self._due:
            self.settle()
        if not self.resting and self._schedule.full(self.number, len(self._window)):
            self.look()
        rests = self._rest is not None and not self._schedule.observes(self.number)
        if rests and not self.resting and self._rest is not None:
            self._edits.pause()
            self._rest()
        elif self.resting and not rests and self._wake is not None:
            self._wake()
        self.resting = rests

    def look(self) -> None:
        """End the window, and look at it as soon as what it left is on the host without a wait."""
        self.settle()
        if len(self._window) and not self._full():
            self._due = self.number + max(1, min(LAG, self._schedule.room // 2))

    def settle(self) -> None:
        """Look at the window that has ended last, if that is still to come."""
        if self._due >= 0:
            self._due = -1
            self._arrived()

    def let_go(self) -> None:
        """Take the hooks of this step back."""
        for handle in self._gradients:
            handle.remove()
        self._gradients = []
