"""Express: which forward passes may take shortcuts, and what they met."""

from __future__ import annotations

from collections import Counter
from types import FunctionType
from typing import TypeVar

import torch
from torch import nn

from ..guards import Guarded, Releases
from ..kernels import CHOICE
from .marks import Marks
from .relays import State
from .shortcuts import Beat, Entry, Exit, Passage, Shortcut, ShortcutAfter, ShortcutBefore
from .table import Place, Sink, Table, Tap

_KNOWN = 64
"""Batch sizes, times outermost modules, that are prepared at once."""
Armed = list[tuple[Place, Shortcut, list[dict[torch.Size, Beat]]]]

Made = TypeVar("Made", bound=type)


def own_code(made: Made) -> Made:
    """Return a class like this one whose calls are code of its own.

    What torch.compile knows of a hook of an outermost module it keeps by code, for a few instances and no more.
    """
    call = made.__call__
    code = call.__code__.replace()
    again = FunctionType(code, call.__globals__, call.__name__, call.__defaults__, call.__closure__)
    again.__qualname__ = call.__qualname__  # Python 3.10 does not take it from the code
    return type(made.__name__, (made,), {"__call__": again})  # type: ignore[return-value]


class Express:
    """The shortcuts of a model's taps.

    Attributes:
        passage: the forward pass that runs.
    """

    def __init__(self, sink: Sink) -> None:
        self.passage = Passage()
        self._sink = sink
        self._shortcuts: dict[Place, Shortcut] = {}
        self._known: dict[tuple[nn.Module, int | None], Armed] = {}
        self._armed: Armed = []
        self._expected = 0  # calls in a pass whose shortcuts are all taken, 0 if there is no such pass
        self._spilled = False
        self._native = CHOICE.native

    def before(self, place: Place, long: Guarded) -> ShortcutBefore:
        """Return the hook of an activation module."""
        self._shortcuts[place] = shortcut = ShortcutBefore(long, self.passage)
        return shortcut

    def after(self, place: Place, long: Guarded) -> ShortcutAfter:
        """Return the hook of a layer."""
        self._shortcuts[place] = shortcut = ShortcutAfter(long, self.passage)
        return shortcut

    def frame(
        self, long: Guarded, taps: Releases, state: State, number: int, held: list[nn.Module | None]
    ) -> tuple[Entry, Exit]:
        """Return the hooks at begin and end of a module that holds others, the one of that number."""
        entry = own_code(Entry)(long, self.passage, state, number, held)
        return entry, own_code(Exit)(taps, self.passage, state, entry)

    def open(self, outer: nn.Module, table: Table, batch: int | None, *, careful: bool) -> None:
        """A forward pass begins that should run as `table` says, on that many samples: take shortcuts if they fit.

        Careful: ask closely what made each z.
        """
        row = self._sink.row()
        if row < 0 or torch._C._len_torch_function_stack():  # our arithmetic need not pass through another's mode
            return
        if self._native is not CHOICE.native:  # there are faster ones now
            self._native = CHOICE.native
            self.forget()
        armed = self._known.get((outer, batch))
        if armed is None:
            armed = self._prepare(table, batch)
            if len(self._known) >= _KNOWN:
                self._known.clear()
            self._known[outer, batch] = armed
        if armed is not self._armed or self._spilled:
            for shortcut in self._shortcuts.values():
                shortcut.beats = []
            for _, shortcut, beats in armed:
                shortcut.beats = beats
            self._armed, self._spilled = armed, False
            calls = [len(beats) for _, _, beats in armed]
            self._expected = sum(calls) if all(calls) else 0
        self.passage.open(outer, row, careful=careful)

    def spill(self, place: Place) -> int:
        """This place goes the long way from now on, in this pass; returns the calls that it has taken until now."""
        shortcut = self._shortcuts.get(place)
        if self.passage.row < 0 or shortcut is None or not shortcut.beats:
            return 0
        self._spilled = True  # to be armed anew for the next pass
        self._tell()
        return shortcut.drop()

    def _tell(self) -> None:
        """Tell of the calls whose shortcut was taken."""
        if self.passage.late[0]:
            self.passage.write()
        self._sink.met(self.passage.met)
        self.passage.met = []

    def shut(self, *, beside: bool) -> dict[Place, int] | None:
        """The pass ends: returns how many calls were taken at each place; `beside`: others went the long way.

        None if all calls of the pass were taken, as expected.
        """
        if self.passage.row < 0:
            return {}
        # No place takes more calls than it expects: if their number is right, so is each.
        fit = 0 < self._expected == len(self.passage.met) and not (beside or self._spilled)
        self._tell()
        found = None if fit else {place: shortcut.taken() for place, shortcut in self._shortcuts.items()}
        self.passage.shut()
        return found

    def doubt(self) -> None:
        """The pass that runs has gone another way: look at what made each pre-activation from now on."""
        self.passage.careful = True

    def stop(self) -> None:
        """No shortcut any more in the pass that runs."""
        self.passage.shut()

    def forget(self) -> None:
        """What was prepared no longer holds."""
        self._known.clear()
        self._armed = []

    def _prepare(self, table: Table, batch: int | None) -> Armed:
        """Return what to expect at each place, nothing where only the long way will do."""
        sites = Counter(tap.site.name for taps in table.taps.values() for tap in taps)
        armed: Armed = []
        for place, taps in table.taps.items():
            shortcut = self._shortcuts.get(place)
            if shortcut is None:
                continue
            known = table.known[place]
            alone = len(known) == 1 and place not in table.left_out
            calls = [
                self._beats(tap, batch, known[tap.site.name].marks, alone=alone) if sites[tap.site.name] == 1 else {}
                for tap in taps
            ]
            armed.append((place, shortcut, [] if place in table.elastic or not all(calls) else calls))
        return armed

    def _beats(self, tap: Tap, batch: int | None, marks: Marks, *, alone: bool) -> dict[torch.Size, Beat]:
        slot = self._sink.slot(tap.site)
        if slot is None or (marks.many and not alone) or not tap.kind.positive or not slot.site.kind.positive:
            return {}
        beats = {}
        for (shape, rows), plan in tap.plans.items():
            if rows != batch or plan is None or not plan.plain or 0 in shape:
                continue
            beats[shape] = Beat(slot, plan, None if marks.many else marks, alone=alone)
        return beats
