"""Edits: parameters that were changed between two updates, by something else than an optimizer."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from operator import attrgetter

import numpy as np
import torch

from .fingerprints import Change, Fingerprints

RARE = 0.05
"""What is edited at more of the steps than this belongs to the training, as the clipping of weights does."""
HALF = 0.5
"""Part of a margin's fall that an edit of the bias must have made to be what killed."""
LARGE = 0.2
"""Relative size of an edit of a weight that may kill: margins are a few times what the parts of z amount to."""
STEADY, LEAST = 0.25, 5
"""A pull by hand edits at so many of the steps, and that often at least."""
_KEPT = 64
"""Edits of one parameter that are remembered."""

_VERSION = attrgetter("_version")


@dataclass(frozen=True, slots=True, eq=False)
class _Edit:
    """An edit after the update of a step; `raised`: its version tells; `change` is None where it was not read."""

    step: int
    raised: bool
    change: Change | None

    def reaches(self, unit: int) -> bool:
        """Return whether it may have killed a unit, as far as that is known."""
        change = self.change
        if change is None or unit >= len(change.rows):
            return True
        return bool(change.rows[unit]) and not change.size < LARGE

    def shift(self, unit: int) -> float | None:
        """Return by how much it has raised this element of a vector, None if that is not known."""
        change = self.change
        return None if change is None or change.shift is None else float(change.shift[unit])


@dataclass(frozen=True, slots=True)
class Blame:
    """The edit that killed a unit.

    Attributes:
        name: the parameter.
        step: after which update, that of the last one if there were several.
        pull: the bias was pulled down step after step.
    """

    name: str
    step: int
    pull: bool


class Edits:
    """Notes edits of parameters. Memory is O(parameters).

    They are told by the version, which every change in place raises, and by what a parameter holds: a change through
    `.data` raises no version.
    """

    def __init__(self, parameters: Iterable[tuple[str, torch.Tensor]]) -> None:
        named = list(parameters)
        self._names = [name for name, _ in named]
        self._parameters = [parameter for _, parameter in named]
        self._versions: list[int] | None = None
        self._prints = Fingerprints(())
        self._reads = False
        self._numbers = list(range(len(named)))
        self._versioned = self._parameters
        self._seen: dict[str, deque[_Edit]] = {}
        self._count: Counter[str] = Counter()
        self._steps = 0

    def before_update(self, step: int) -> bool:
        """Note what has changed since the update before this one; returns whether anything has."""
        self._steps = step
        if self._versions is None:
            return False
        changed = self._prints.changed()
        now = list(map(_VERSION, self._versioned))
        if not changed and now == self._versions:
            return False
        versions = zip(self._numbers, now, self._versions, strict=True)
        raised = {i for i, is_, was in versions if is_ != was}
        # Several of which nothing that is read has changed were put back: weights that are swapped for a validation.
        if not changed and len(raised) > 1 and all(map(self._prints.reads, raised)):
            return True
        for i in sorted(raised.union(changed)):
            self._note(step - 1, i, raised=i in raised, read=i in changed)
        return True

    def _note(self, step: int, number: int, *, raised: bool, read: bool) -> None:
        name = self._names[number]
        self._count[name] += 1
        if self._count[name] <= _KEPT or self._rare(name):
            change = self._prints.change(number) if read else None
            self._seen.setdefault(name, deque(maxlen=_KEPT)).append(_Edit(step, raised, change))

    def after_update(self) -> None:
        """Remember what the parameters are right after an update."""
        if not self._reads:  # not sooner: until the first forward pass some may not be there yet
            self._prints, self._reads = Fingerprints(self._parameters), True
        if self._prints.keep():  # what is read as a whole needs no version
            self._numbers = [i for i in range(len(self._parameters)) if not self._prints.whole(i)]
            self._versioned = [self._parameters[i] for i in self._numbers]
        self._versions = list(map(_VERSION, self._versioned))

    def pause(self) -> None:
        """Say nothing of what changes until the next update that is told of."""
        self._versions = None

    def close(self) -> None:
        """Let go of the parameters."""
        self._parameters, self._versioned, self._versions = [], [], None
        self._prints.close()

    def blamed(
        self, first: int, last: int, names: Sequence[str], unit: int, *, bias: str | None, fall: float
    ) -> Blame | None:
        """Return the edit, after an update of the steps from `first` to `last`, that killed a unit; None if none did.

        Args:
            first, last: the steps in which the margin fell.
            names: the parameters that feed the unit.
            unit: which one.
            bias: the one of them that is added to z.
            fall: by how much the margin fell, in units of z.
        """
        for name in names:
            edits = self._between(first, last, name)
            shifts = [e.shift(unit) for e in edits] if name == bias else [None]
            measured = [shift for shift in shifts if shift is not None]
            added = len(measured) == len(edits)
            if added:
                edits = [e for e, shift in zip(edits, measured, strict=True) if shift < 0]
            else:
                edits = [e for e in edits if e.reaches(unit)]
            pull = len(edits) >= max(LEAST, STEADY * (last - first + 1))
            killed = -sum(measured) >= HALF * fall and (pull or self._rare(name))
            if edits and (killed if added else self._rare(name) and not pull):
                return Blame(name, edits[-1].step, pull)
        return None

    def spoilt(self, first: int, last: int, names: Sequence[str], unit: int) -> str | None:
        """Return the parameter into which an edit has written a number that is not finite, for this unit."""
        for name in names:
            for change in (e.change for e in self._between(first, last, name)):
                if change is not None and unit < len(change.rows) and change.rows[unit]:
                    size = change.size if change.shift is None else change.shift[unit]
                    if not np.isfinite(size):
                        return name
        return None

    def _between(self, first: int, last: int, name: str) -> list[_Edit]:
        swapped = any(self._names[i] == name for i in self._prints.restless)
        return [e for e in self._seen.get(name, ()) if first <= e.step <= last and (e.raised or not swapped)]

    def _rare(self, name: str) -> bool:
        return self._count[name] <= max(2, RARE * self._steps)
