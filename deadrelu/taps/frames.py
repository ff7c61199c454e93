"""Frames: the modules of a model that hold others, at which forward passes begin and end.

Any of them may be the outermost of a forward pass. Yet most models are only ever called as a whole, and two hooks at
each module inside cost more than all that is looked at there: so these rest until something runs by itself. Those that
hold no place where we look do not rest, for nothing in them would tell that they run.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable

import torch
from torch import nn

from .. import tracing
from .placed import Placed
from .table import Output, Place

WHOLE = 20
"""Forward passes of the whole model, and of nothing else, after which the modules inside are not followed any more."""


class Frames:
    """Who is followed in a model, and whether it still is the model that it was.

    Args:
        model: the model.
        place: puts the hooks of a module, of which it is told the number, and what it held when it was last looked at.

    Attributes:
        paths: the path of every module.
        modules: those that are followed, by number.
        stale: a module holds more or fewer others than it did.
        inner: the hooks of each module inside of the model.
        resting: some of these are not followed at present.
    """

    def __init__(self, model: nn.Module, place: Callable[[nn.Module, int, list[nn.Module | None]], None]) -> None:
        self.paths = tracing.module_paths(model)
        self.modules: list[nn.Module] = []
        self.stale = self.resting = False
        self.inner: dict[nn.Module, Placed] = {}
        self._model, self._place = model, place
        self._held: dict[nn.Module, list[nn.Module | None]] = {}
        self._times: float = 0
        self._holders: list[dict[str, nn.Module | None]] = []
        self._sizes: list[int] = []

    def follow(self, module: nn.Module) -> None:
        """Follow a module, unless it is followed, or is TorchScript, which has no hooks."""
        if module not in self._held and not isinstance(module, torch.jit.ScriptModule):
            held = self._held[module] = list(module._modules.values())
            self.modules.append(module)
            if module is not self._model:
                self.inner[module] = Placed()
            self._place(module, len(self.modules) - 1, held)

    def follow_all(self) -> None:
        """Follow the model, and all modules that hold others."""
        for module in self.paths:
            if module is self._model or next(module.children(), None) is not None:
                self.follow(module)

    def met(self, module: nn.Module) -> None:
        """A module that is followed begins: does it, or do those of which we are not told, hold as many as before?"""
        grown = len(self._held[module]) != len(module._modules)
        self.stale |= grown or (self.resting and list(map(len, self._holders)) != self._sizes)

    def whole(self, places: Iterable[Place]) -> None:
        """The model has run as a whole, and as expected; at these places hooks look at something."""
        self._times += 1
        if self._times != WHOLE:
            return
        looked_at = {place.layer if isinstance(place, Output) else place for place in places}
        self._holders = [module._modules for module in self._held]
        self._sizes = list(map(len, self._holders))
        for module, placed in self.inner.items():
            if any(held in looked_at for held in module.modules()):
                placed.rest()
                self.resting = True

    def running(self) -> nn.Module | None:
        """Return the outermost module that runs and is not followed, None if there is none; slow."""
        found, frame = None, sys._getframe(1)
        while frame.f_back is not None:
            frame = frame.f_back
            if frame.f_code.co_name == "_call_impl":
                placed = self.inner.get(frame.f_locals.get("self"))  # type: ignore[arg-type]
                if placed is not None and placed.resting:
                    found = frame.f_locals["self"]
        return found

    def part(self) -> None:
        """Something else runs, or all modules need to be followed: do so for good."""
        self._wake()
        self._times = math.inf

    def _wake(self) -> None:
        if not self.resting:  # a model that is called by parts asks in every pass
            return
        self.resting = False
        for placed in self.inner.values():
            if placed.resting:
                placed.wake()

    def changed(self) -> bool:
        """True if a module was replaced, added or removed."""
        return any(held != list(module._modules.values()) for module, held in self._held.items())

    def owners(self, parameter: nn.Parameter) -> set[str]:
        """Return the names by which a parameter is known in a lineage: of the layers that hold it, and its own."""
        held = (
            (path, name)
            for module, path in self.paths.items()
            for name, p in module._parameters.items()
            if p is parameter
        )
        return {
            name for path, own in held for name in (path.partition(".parametrizations")[0], f"{path}.{own}".lstrip("."))
        }

    def renew(self) -> None:
        """Find the modules that the model has now."""
        self.stale = False
        self._wake()
        self._times = 0 if self._times < math.inf else math.inf
        self.paths = tracing.module_paths(self._model)
        for module in self.paths:
            if module in self._held:
                self._held[module][:] = module._modules.values()
        self.follow_all()
