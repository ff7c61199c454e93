"""Shortcuts: hooks that take the largest z at once, in forward passes that run as they were traced.

Nearly every step of a training is like the one before it, and then all that is to be done at an activation is one
reduction into a row that waits for it. Whatever is not as it was expected goes the long way, call by call.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.compiler import is_dynamo_compiling

from ..calls import in_compiled
from ..guards import Guarded, Hook, Release, Releases
from ..kernels import Plan, Reach, reach, top
from ..windows import Slot
from .marks import Marks
from .relays import State


class Passage:
    """The forward pass that runs, as far as shortcuts ask for it.

    Attributes:
        number: counts the passes.
        row: the row of the window that largest z may be written into, -1 where there is no shortcut.
        outer: the outermost module.
        careful: marks are looked at also where a single site is known.
        met: the calls whose shortcut was taken, until they are told of.
        late: rows, and what belongs into them in another dtype, until it is written for all calls together.
    """

    __slots__ = ("careful", "late", "met", "number", "outer", "row")

    def __init__(self) -> None:
        self.number, self.row, self.careful = 0, -1, False
        self.outer: nn.Module | None = None
        self.met: list[Beat] = []
        self.late: tuple[list[torch.Tensor], list[torch.Tensor]] = [], []

    def open(self, outer: nn.Module, row: int, *, careful: bool) -> None:
        """Allow shortcuts in the forward pass that begins."""
        self.number += 1
        self.outer, self.row, self.careful, self.met = outer, row, careful, []
        if self.late[0]:  # of a pass that was interrupted
            self.late = [], []

    def write(self) -> None:
        """Write what is late."""
        rows, tops = self.late
        self.late = [], []
        torch._foreach_copy_(rows, tops)

    def shut(self) -> None:
        """Allow none until the next pass."""
        self.outer, self.row = None, -1


class Beat:
    """One call that is expected, with a z of one shape: where its largest z goes.

    Attributes:
        slot, samples: the site, and the samples that the call is on.
        marks: what tells z of this site from others, None if nothing does.
        alone: no other site is known at its place.
        reach: the kernel that writes it, None if torch is to do it.
    """

    __slots__ = ("_asked", "_dtype", "_over", "_plan", "alone", "marks", "reach", "samples", "slot")

    def __init__(self, slot: Slot, plan: Plan, marks: Marks | None, *, alone: bool) -> None:
        self.slot, self.samples, self.marks, self.alone = slot, plan.sample_count, marks, alone
        self._plan, self._over = plan, plan.over
        # Written straight into the row where the reduction can; None: by way of another tensor.
        device, dtype = slot.ring
        self._dtype = None if plan.slender and device.type == "cpu" else dtype
        self.reach: Reach | None = None
        self._asked = False

    def keep(self, z: torch.Tensor, passage: Passage) -> None:
        """Write the largest z of each unit into the row of this passage, by torch."""
        row = self.slot.rows[passage.row]
        if z.dtype is self._dtype:
            torch.amax(z.detach(), self._over, False, out=row)
        elif z.is_cpu:
            row.copy_(top(z.detach(), self._plan))
        else:  # half precision, as of autocast: a launch less
            rows, tops = passage.late
            rows.append(row)
            tops.append(top(z.detach(), self._plan))
        if not self._asked:
            self._asked = True
            self.reach = reach(z, self._plan, row)


class Shortcut(Hook):
    """The hook of one place: a shortcut, or the guarded function that knows the long way.

    Attributes:
        beats: of each call that is expected, in order, what is known of it by the shape of its z.
    """

    __slots__ = ("_count", "_long", "_number", "_passage", "beats")

    def __init__(self, long: Guarded, passage: Passage) -> None:
        self._long, self._passage = long, passage
        self.beats: list[dict[torch.Size, Beat]] = []
        self._count = 0
        self._number = -1  # of the passage that they were met in

    def taken(self) -> int:
        """Return how many calls were met here in the present passage."""
        return self._count if self._number == self._passage.number else 0

    def drop(self) -> int:
        """Take no further call until there are new `beats`; returns how many there were in the present passage."""
        count = self.taken()
        self.beats, self._count = [], 0
        return count

    def _take(self, z: Any) -> bool:
        """Take the largest z, if this is the call that is expected."""
        passage = self._passage
        if self._number != passage.number:
            self._number, self._count = passage.number, 0
        count = self._count
        if count >= len(self.beats) or z.__class__ is not torch.Tensor or torch._C._current_graph_task_id() != -1:
            return False
        beat = self.beats[count].get(z.shape)
        if beat is None:
            return False
        marks, careful = beat.marks, passage.careful
        asked = marks is not None and (careful or not beat.alone) and z.grad_fn is not None
        if asked and not marks.fit(z, closely=careful):  # type: ignore[union-attr]
            return False
        if beat.reach is None or not beat.reach.into(z, beat.slot.addresses[passage.row]):
            beat.keep(z, passage)
        passage.met.append(beat)
        self._count = count + 1
        return True


class ShortcutBefore(Shortcut):
    """Before an activation module, whose first input is z."""

    __slots__ = ()

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if is_dynamo_compiling():  # asked first: a passage must not become part of compiled code
            return
        if self._passage.row >= 0 and args:
            try:
                if self._take(args[0]):
                    return
            except Exception as error:
                self._long.fail(error)
                return
        self._long(module, args, kwargs)


class ShortcutAfter(Shortcut):
    """After a layer, whose output is z."""

    __slots__ = ()

    def __call__(self, module: nn.Module, args: Any, out: Any) -> None:
        if is_dynamo_compiling():
            return
        if self._passage.row >= 0:
            try:
                if self._take(out):
                    return
            except Exception as error:
                self._long.fail(error)
                return
        self._long(module, args, out)


class Entry(Hook):
    """Where a module that holds others begins: inside of a passage nothing is to be done, unless it has changed.

    Attributes:
        began: compiled code entered it as the outermost one.
    """

    def __init__(
        self, long: Guarded, passage: Passage, state: State, number: int, held: list[nn.Module | None]
    ) -> None:
        self.began = False
        self._long, self._passage, self._state, self._number, self._held = long, passage, state, number, held

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self._state.inside:  # of compiled code, in a graph or between two
            return
        if is_dynamo_compiling():
            self.began = self._state.enter(module, self._number, args, kwargs)
            return
        if not self._state.eager and in_compiled():
            self.began = self._state.enter(module, self._number, args, kwargs)
            return
        inside = self._passage.row >= 0 and module is not self._passage.outer
        if not inside or len(self._held) != len(module._modules):
            self._long(module, args, kwargs)


class Exit(Release):
    """Where it ends."""

    def __init__(self, taps: Releases, passage: Passage, state: State, entry: Entry) -> None:
        super().__init__(taps)
        self._passage, self._state, self._entry = passage, state, entry

    def __call__(self, module: nn.Module, args: Any, out: Any) -> None:
        if is_dynamo_compiling() or self._state.inside:
            if self._entry.began:
                self._entry.began = False
                self._state.leave()
            return
        if self._passage.row >= 0 and module is not self._passage.outer:
            return
        self._taps.release(module, args, out)
