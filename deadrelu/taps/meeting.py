"""Meeting: the activation calls of the forward pass that runs, met one by one where its table says.

This is the long way, of captured steps and of whatever is not as expected; see `shortcuts.py` for the short one.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from ..batches import tensors_in
from ..calls import in_backward
from ..kinds import Arguments, Kind, refined
from ..sites import Site
from .compiled import Compiled
from .express import Express
from .frames import Frames
from .scout import Scout
from .table import Output, Place, Sink, Table
from .ways import Ways


class Meeting:
    """Compares the calls with the table, and hands over what was reached.

    Args:
        sink: who is told.
        frames, ways, express, scout, compiled: what is known of the model.
        beside: called when something is met, for it may be outside of all passes that are followed.

    Attributes:
        live: this pass is looked at, and not traced.
        counted: the outermost module of a pass that counts, None outside of one.
        stack: the modules that run, of those that are followed, while functions are met.
        closely: they are.
    """

    def __init__(
        self,
        sink: Sink,
        frames: Frames,
        ways: Ways,
        express: Express,
        scout: Scout,
        compiled: Compiled,
        beside: Callable[[], None],
    ) -> None:
        self.live = self.closely = False
        self.counted: nn.Module | None = None
        self.stack: list[nn.Module] = []
        self._sink, self._frames, self._ways, self._express = sink, frames, ways, express
        self._scout, self._compiled, self._beside = scout, compiled, beside
        self._table: Table | None = None
        self._batch: int | None = None
        self._unknown = self._careful = False
        self._met: dict[Place, int] = {}
        self._ordered: set[Place] = set()  # places of calls of which only the number told
        self._handed: dict[int, tuple[weakref.ref[torch.Tensor], Place, int]] = {}

    def begin(self, module: nn.Module, batch: int | None) -> None:
        """A forward pass that counts begins."""
        self.counted, self._batch = module, batch
        self._table = None
        self._met.clear()
        self._ordered.clear()
        self._handed.clear()
        self._unknown = False

    def open(self, table: Table, *, closely: bool, careful: bool) -> None:
        """Expect what the table says; closely: functions are met, too; careful: ask closely what made each z."""
        self._table, self.live, self.closely, self._careful = table, True, closely, careful

    def interrupt(self) -> None:
        """The pass has ended without a word."""
        self.live = self.closely = False
        self.counted = None
        self.stack.clear()

    def end(self, places: set[Place]) -> list[Site]:
        """The pass ends; returns the sites whose part in it cannot be trusted. `places` are all that have taps."""
        module, table, live = self.counted, self._table, self.live
        self.interrupt()
        return self._check(module, table, places) if live and module is not None and table is not None else []

    def _check(self, module: nn.Module, table: Table, places: set[Place]) -> list[Site]:
        """Compare the calls of a forward pass with those traced; trace the next one if they differ.

        A place that serves several sites, which nothing tells apart, is met by the order of its calls: if their number
        is another, what was seen of these sites cannot be trusted.
        """
        suspect: list[Site] = []
        taken = self._express.shut(beside=bool(self._met))
        if taken is None:
            if not self._compiled.used:
                self._frames.whole(places)
            return suspect
        for place, taps in table.taps.items():
            met = self._met.get(place, 0) + taken.get(place, 0)
            if met == len(taps) or place in table.elastic:
                continue
            if not met:
                self._frames.stale |= self._frames.changed()
            if place in table.told and place not in self._ordered:
                continue
            one = len({tap.site.name for tap in taps}) == 1
            if not met:
                self._ways.astray()
            elif met > len(taps) or not one:
                if one:  # called more often than it was: trace until both ways were met
                    self._unknown = True
                    self._ways.astray()
                table.dynamic |= not one
                suspect += [tap.site for tap in taps]
        for _, place, _ in self._handed.values():
            if isinstance(place, Output) and self._sink.thorough:  # no activation took it
                self._scout.distrust(place)
                suspect += [tap.site for tap in table.taps[place]]
                self._unknown = True
        self._handed.clear()
        if self._unknown:
            self._ways.doubt(module)
        return suspect

    # -- hooks ---------------------------------------------------------------------------------------------------

    def tap(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """An activation module is about to run."""
        self._beside()
        if self.live or self._sink.thorough:
            z = args[0] if args else None
            if not isinstance(z, torch.Tensor):
                z = next(tensors_in((args, kwargs)), None)
            if z is not None:
                self._hand_over(module, z)

    def made(self, module: nn.Module, args: Any, out: Any) -> None:
        """A layer whose output is a pre-activation has run."""
        self._beside()
        if (self.live or self._sink.thorough) and isinstance(out, torch.Tensor):
            place = Output(module)
            if self._table is not None and place in self._table.taps:
                self._hand_over(place, out)

    def function(self, kind: Kind, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """A torch function that may be an activation is about to run."""
        z = next(tensors_in((args, kwargs)), None)
        if z is None or not self.stack or refined(kind, Arguments(args, kwargs)) is None:
            return
        held = self._handed.get(id(z))
        if held is not None and held[0]() is z and held[2] == _version(z):  # a hook has met it
            del self._handed[id(z)]
            return
        self._meet((self._frames.paths[self.stack[-1]], name), z)

    def strayed(self) -> None:
        """The pass goes another way than those that were traced."""
        if self.live and self.counted is not None and not in_backward():
            self._careful = True
            self._express.doubt()
            self._frames.stale |= self._frames.changed()
            self._ways.lost(self.counted)

    # -- calls ---------------------------------------------------------------------------------------------------

    def _hand_over(self, place: Place, z: torch.Tensor) -> None:
        if self.closely:
            self._handed[id(z)] = (weakref.ref(z), place, _version(z))
        with torch._C.DisableTorchFunction():  # our own arithmetic need not pass through any mode
            self._meet(place, z)

    def _meet(self, place: Place, z: torch.Tensor) -> None:
        if in_backward():
            if self._sink.thorough:
                self._replay(place, z)
            return
        if not self.live or self._table is None:
            return
        if place not in self._table.taps:
            if place not in self._table.left_out:
                self.strayed()
            return
        number = self._met.get(place, 0) + self._express.spill(place)
        self._met[place] = number + 1
        if not z.numel():
            return
        tap, sure = self._table.tap(place, number, z, closely=self._careful)
        if tap is not None and not sure:
            self._ordered.add(place)
        elif tap is None and not sure:
            tap = self._table.guess(place, number, z, self._frames.owners)
            self.strayed()
        if tap is None:  # all that is known here can be told by its mark: of which number it is does not matter
            self._met[place] = number
            return
        if self._compiled.shadowing and tap.site.name in self._compiled.unseen:  # in no other step either
            return
        known = len(tap.plans)
        plan = tap.plan(z.shape, self._batch)
        if len(tap.plans) != known:
            self._express.forget()
        if plan is None:
            self._table.dynamic = True
            return
        self._sink.observe(tap.site, tap.kind, z, plan)

    def _replay(self, place: Place, z: torch.Tensor) -> None:
        """A checkpointed block runs again in backward: its gradients belong to sites that are met once only."""
        for table in self._ways.tables.values():
            taps = table.taps.get(place, ())
            if taps and len({tap.site.name for tap in taps}) == 1:
                plan = taps[0].plan(z.shape, self._batch)
                if plan is not None:
                    self._sink.observe_replay(taps[0].site, z, plan)
                return


def _version(z: torch.Tensor) -> int:
    """Return how often z was written; -1 where nobody counts."""
    return -1 if z.is_inference() else z._version
