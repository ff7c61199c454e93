"""The progress bar of long work, on standard error."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import track

T = TypeVar("T")


def bar(items: Iterable[T], what: str, total: int | None) -> Iterator[T]:
    """Yield the items, drawing how far they are; the bar is gone at the end."""
    yield from track(items, what, total, console=Console(stderr=True), transient=True)
