"""Placed: hooks that stand in a model, and can be taken away for a while and put back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Placed:
    """The hooks of a monitor; `resting`: they are put where they belong when they wake."""

    def __init__(self, *, resting: bool = False) -> None:
        self.resting = resting
        self._places: list[Callable[[], Any]] = []  # each puts one hook where it belongs
        self._handles: list[Any] = []

    def put(self, place: Callable[..., Any], hook: Callable[..., Any], **how: bool) -> None:
        """Put a hook where `place` registers hooks."""
        self._places.append(lambda: place(hook, **how))
        if not self.resting:
            self._handles.append(self._places[-1]())

    def rest(self) -> None:
        """Take the hooks away for a while, between two steps."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self.resting = True

    def wake(self) -> None:
        """Put the hooks back."""
        self.resting = False
        self._handles = [place() for place in self._places]

    def close(self) -> None:
        """Remove every hook for good."""
        self.rest()
        self._places.clear()
