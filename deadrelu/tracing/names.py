"""Names: the paths of modules and parameters as a user writes them, without the wrappers around the model."""

from __future__ import annotations

import weakref
from collections.abc import Callable

import torch
from torch import nn

_WRAPPERS = ("DataParallel", "DistributedDataParallel", "FullyShardedDataParallel", "AveragedModel")
_WEIGHTS = ("weight", "weight_v", "weight_g", "weight_orig")


def unwrapped(model: nn.Module) -> nn.Module:
    """Return the model inside of data-parallel and compile wrappers."""
    while True:
        inner = getattr(model, "_orig_mod", None)
        if inner is None and type(model).__name__ in _WRAPPERS:
            inner = getattr(model, "module", None)
        if not isinstance(inner, nn.Module):
            return model
        model = inner


def module_paths(model: nn.Module) -> dict[nn.Module, str]:
    """Return the path of each module, the first if it has several; `module.` and `_orig_mod.` of wrappers stripped."""
    named: dict[str, nn.Module] = dict(model.named_modules())
    paths: dict[nn.Module, str] = {}
    for path, module in named.items():
        short = _stripped(path)
        # A path that would be taken for another module's stays whole, unless that is the wrapper of this one.
        other = named.get(short, module)
        paths[module] = short if short == "" or unwrapped(other) is unwrapped(module) else path
    return paths


def _stripped(path: str) -> str:
    parts = [part for part in path.split(".") if part != "_orig_mod"]
    while parts and parts[0] == "module":
        del parts[0]
    return ".".join(parts)


class ParameterNames:
    """Tells which op owns a weight: the path of a layer for its `weight`, the full name of any other parameter.

    Tensors computed from parameters alone (a transposed or normalised weight) keep the name while they live.
    """

    def __init__(self, model: nn.Module, scope: Callable[[], str]) -> None:
        self._scope = scope
        self._owned: dict[int, list[tuple[str, str]]] = {}
        self._derived: dict[int, tuple[weakref.ref[torch.Tensor], str]] = {}
        self._buffers = {id(buffer) for buffer in model.buffers()}
        for module in model.modules():  # constants that were never registered
            self._buffers |= {id(value) for value in vars(module).values() if isinstance(value, torch.Tensor)}
        for module, path in module_paths(model).items():
            for attribute, parameter in module.named_parameters(recurse=False):
                self._owned.setdefault(id(parameter), []).append((path, _label(path, attribute)))

    def __call__(self, tensor: torch.Tensor) -> str | None:
        """Return the name of the op that `tensor` is a weight of, None if it is no weight."""
        owners = self._owned.get(id(tensor))
        if owners is not None:
            if len(owners) == 1:
                return owners[0][1]
            # A tied weight belongs to the module that is running.
            scope = self._scope()
            return next((label for path, label in owners if path == scope), owners[0][1])
        held = self._derived.get(id(tensor))
        return held[1] if held is not None and held[0]() is tensor else None

    def owns(self, tensor: torch.Tensor) -> bool:
        """True if `tensor` is a parameter or a buffer of the model, or was computed from parameters alone."""
        return id(tensor) in self._buffers or self(tensor) is not None

    def identity(self, tensor: torch.Tensor) -> int | str | None:
        """Return what tells a tensor that is owned from others: in one module, its name follows from it."""
        at = id(tensor)
        if at in self._owned or at in self._buffers:
            return at
        held = self._derived.get(at)
        return held[1] if held is not None and held[0]() is tensor else None

    def derive(self, tensor: torch.Tensor, name: str) -> None:
        """Remember that `tensor` was computed from the parameters called `name`."""
        self._derived[id(tensor)] = (weakref.ref(tensor), name)

    def forget(self) -> None:
        """Forget the derived tensors of a forward pass."""
        self._derived.clear()


def _label(path: str, attribute: str) -> str:
    if ".parametrizations." in f".{path}.":
        return path.split(".parametrizations.")[0] if ".parametrizations." in path else ""
    if attribute in _WEIGHTS and path:
        return path
    return f"{path}.{attribute}" if path else attribute
