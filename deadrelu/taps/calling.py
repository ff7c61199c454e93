"""Calling: torch functions that may be activations, met on their way by a function mode."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from .. import tracing
from ..kinds import Kind, kind_of_function
from .table import Guard

_FUNCTIONS = 4096


class Calling(TorchFunctionMode):
    """Tells of every call of a torch function that may be an activation.

    Args:
        blind: True where nothing is to be told.
        look: told of (kind, name of the function, args, kwargs), before the call.
        guard: keeps what goes wrong in it from the training.
    """

    def __init__(self, blind: Callable[[], bool], look: Callable[..., Any], guard: Guard) -> None:
        super().__init__()
        self._blind, self._look = blind, guard(look)
        self._asks = guard(self._name)
        self._named: dict[Any, tuple[Kind, str] | None] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if torch.compiler.is_compiling() or self._blind():
            return func(*args, **kwargs)
        try:
            named = self._named[func]
        except KeyError:
            named = self._asks(func)
        if named is not None:
            self._look(*named, args, kwargs)
        return func(*args, **kwargs)

    def _name(self, func: Any) -> tuple[Kind, str] | None:
        """Return (kind, name) of a torch function that may be an activation."""
        name = tracing.canonical_name(func)
        kind = kind_of_function(name)
        named = None if kind is None else (kind, name)
        if len(self._named) < _FUNCTIONS:  # functions that are made anew at each call would fill it
            self._named[func] = named
        return named
