"""Frames: the modules of a model that hold others, at which forward passes begin and end."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from .. import tracing


class Frames:
    """Who is followed in a model, and whether it still is the model that it was.

    Args:
        model: the model.
        place: puts the hooks of a module, of which it is told the number, and what it held when it was last looked at.

    Attributes:
        paths: the path of every module.
        modules: those that are followed, by number.
        stale: a module holds more or fewer others than it did.
    """

    def __init__(self, model: nn.Module, place: Callable[[nn.Module, int, list[nn.Module | None]], None]) -> None:
        self.paths = tracing.module_paths(model)
        self.modules: list[nn.Module] = []
        self.stale = False
        self._model, self._place = model, place
        self._held: dict[nn.Module, list[nn.Module | None]] = {}

    def follow(self, module: nn.Module) -> None:
        """Follow a module, unless it is followed, or is TorchScript, which has no hooks."""
        if module not in self._held and not isinstance(module, torch.jit.ScriptModule):
            held = self._held[module] = list(module._modules.values())
            self.modules.append(module)
            self._place(module, len(self.modules) - 1, held)

    def follow_all(self) -> None:
        """Follow the model, and all modules that hold others."""
        for module in self.paths:
            if module is self._model or next(module.children(), None) is not None:
                self.follow(module)

    def met(self, module: nn.Module) -> None:
        """A module that is followed begins: does it hold as many as before?"""
        if len(self._held[module]) != len(module._modules):
            self.stale = True

    def changed(self) -> bool:
        """True if a module was replaced, added or removed."""
        return any(held != list(module._modules.values()) for module, held in self._held.items())

    def renew(self) -> None:
        """Find the modules that the model has now."""
        self.stale = False
        self.paths = tracing.module_paths(self._model)
        for module in self.paths:
            if module in self._held:
                self._held[module][:] = module._modules.values()
        self.follow_all()
