"""Guards: hooks that never harm the training that they watch, and that do nothing in a copy of the model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import nn

from .errors import TrainingStopped
from .meter import Meter


class Watched(Protocol):
    """Who owns guarded functions: asked whether it still watches, and told of what went wrong."""

    attached: bool
    strict: bool

    def detach(self) -> None: ...

    def failed(self, error: Exception) -> None: ...


class Releases(Protocol):
    """Who is told that a module ends."""

    def release(self, module: nn.Module, args: Any, out: Any) -> None: ...


class Hook:
    """What stands in the hooks of a model; a copy of the model (deepcopy, pickle) gets hooks that do nothing."""

    __slots__ = ()

    def __deepcopy__(self, memo: Any) -> Callable[..., None]:
        return inert

    def __reduce__(self) -> Any:
        return inert_hook, ()


class Guarded(Hook):
    """A function of the monitor's that lets nothing that goes wrong in it reach the training: it returns None then."""

    def __init__(self, owner: Watched, function: Callable[..., Any]) -> None:
        self._owner = owner
        self._function = function

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        owner = self._owner
        if not owner.attached or torch.compiler.is_dynamo_compiling():  # compiled code has hooks of its own
            return None
        try:
            return self._function(*args, **kwargs)
        except TrainingStopped:
            owner.detach()
            raise
        except Exception as error:
            self.fail(error)
            return None

    def fail(self, error: Exception) -> None:
        """Let the monitor detach, for this went wrong; strict: raise it."""
        if self._owner.strict:
            self._owner.detach()
            raise error
        self._owner.failed(error)


class Timed(Guarded):
    """The same, measured."""

    def __init__(self, owner: Watched, function: Callable[..., Any], meter: Meter) -> None:
        super().__init__(owner, function)
        self._meter = meter

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if torch.compiler.is_dynamo_compiling():
            return super().__call__(*args, **kwargs)
        return self._meter.call(super().__call__, *args, **kwargs)


class Release(Hook):
    """The hook that ends a module."""

    def __init__(self, taps: Releases) -> None:
        self._taps = taps

    def __call__(self, module: nn.Module, args: Any, out: Any) -> None:
        if not torch.compiler.is_dynamo_compiling():
            self._taps.release(module, args, out)


def inert(*args: Any, **kwargs: Any) -> None:
    """What a hook of ours becomes in a copy of the model."""


def inert_hook() -> Callable[..., None]:
    return inert
