"""Edits: parameters that were changed between two updates, by something else than an optimizer."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable
from operator import attrgetter

import torch

from .fingerprints import Fingerprints

RARE = 0.05
"""What is edited at more of the steps than this belongs to the training, as the clipping of weights does."""
STEADY, LEAST = 0.25, 5
"""And so does what is edited at so many of the steps that are asked for, and that often at least: a pull by hand."""

_VERSION = attrgetter("_version")


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
        self._prints = Fingerprints(self._parameters)
        self._seen: deque[tuple[int, str]] = deque(maxlen=4096)
        self._count: Counter[str] = Counter()
        self._steps = 0

    def before_update(self, step: int) -> None:
        """Note what has changed since the update before this one."""
        self._steps = step
        if self._versions is None:
            return
        changed = self._prints.changed()
        now = list(map(_VERSION, self._parameters))
        if changed or now != self._versions:
            written = {i for i, (a, b) in enumerate(zip(now, self._versions, strict=True)) if a != b}
            for name in (self._names[i] for i in sorted(written.union(changed))):
                self._seen.append((step - 1, name))
                self._count[name] += 1

    def after_update(self) -> None:
        """Remember what the parameters are right after an update."""
        self._versions = list(map(_VERSION, self._parameters))
        self._prints.keep()

    def pause(self) -> None:
        """Say nothing of what changes until the next update that is told of."""
        self._versions = None

    def close(self) -> None:
        """Let go of the parameters."""
        self._parameters, self._versions = [], None
        self._prints.close()

    def between(self, first: int, last: int, names: Iterable[str]) -> str | None:
        """Return the last of these parameters that was edited after an update of the steps from `first` to `last`.

        None if there is none, or if it is edited all the time.
        """
        steady = max(LEAST, STEADY * (last - first + 1))
        here = Counter(name for step, name in self._seen if first <= step <= last)
        ours = {self._names[i] for i in self._prints.restless}
        ours |= {name for name, n in self._count.items() if n > max(2, RARE * self._steps) or here[name] >= steady}
        chosen = set(names) - ours
        return next((n for step, n in reversed(self._seen) if first <= step <= last and n in chosen), None)
