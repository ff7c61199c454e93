"""Recall: what was worked out before, by all that it depends on."""

from __future__ import annotations

from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")

MOST = 1 << 14
"""Entries that are kept before all are forgotten: a model may go ever new ways."""


class Recall(Generic[K, V]):
    """A dictionary that does not grow without bound."""

    def __init__(self) -> None:
        self._held: dict[K, V] = {}
        self.get = self._held.get

    def put(self, key: K, value: V) -> V:
        """Remember a value, and return it."""
        if len(self._held) >= MOST:
            self._held.clear()
        self._held[key] = value
        return value
