"""Newcomers: modules that no traced forward pass has called, and that may run yet.

A hook on them costs nothing until then. When one runs, the model goes another way than those that were traced.
"""

from __future__ import annotations

import weakref
from collections.abc import Collection, Set
from typing import Any

import torch
from torch import nn
from torch.compiler import is_dynamo_compiling
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear

from ..guards import Guarded, Hook


class Newcomer(Hook):
    """The hook of one of them."""

    __slots__ = ("_met",)

    def __init__(self, met: Guarded) -> None:
        self._met = met

    def __call__(self, module: nn.Module, args: Any) -> None:
        if not is_dynamo_compiling():
            self._met()


class Newcomers:
    """The hooks on them; `met` is called when one of them is about to run."""

    def __init__(self, met: Guarded) -> None:
        self._hook = Newcomer(met)
        self._handles: weakref.WeakKeyDictionary[nn.Module, Any] = weakref.WeakKeyDictionary()

    def follow(self, modules: Collection[nn.Module], called: Set[nn.Module]) -> bool:
        """Follow those of the modules that hold no others and were not called; returns whether one was since."""
        came = [module for module in self._handles if module in called]
        for module in list(self._handles):
            if module in called or module not in modules:
                self._handles.pop(module).remove()
        for module in modules:
            if module not in called and module not in self._handles and _may_run(module):
                self._handles[module] = module.register_forward_pre_hook(self._hook)
        return bool(came)

    def close(self) -> None:
        """Remove every hook."""
        for handle in self._handles.values():
            handle.remove()
        self._handles.clear()


def _may_run(module: nn.Module) -> bool:
    """Return whether a module holds no others and is called at all: attention only takes its last layer's weights."""
    outside = isinstance(module, (torch.jit.ScriptModule, NonDynamicallyQuantizableLinear))
    return not outside and next(module.children(), None) is None
