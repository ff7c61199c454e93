"""Source: where the rows of a record come from - event files, or TensorBoard's data provider."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

LOSS_POINTS = 2000


@dataclass(frozen=True, slots=True)
class Row:
    """One value of one tag: bytes, or an array."""

    step: int
    wall_time: float
    content: bytes | NDArray[Any]


@dataclass(frozen=True, slots=True, eq=False)
class Curve:
    """One of the user's own scalars, arrays of shape (points,)."""

    tag: str
    steps: NDArray[np.int64]
    values: NDArray[np.float64]

    def thinned(self, most: int = LOSS_POINTS) -> Curve:
        """Return the curve with at most so many points, the last among them."""
        every = -(-len(self.steps) // most) if len(self.steps) else 1
        kept = np.arange(len(self.steps) - 1, -1, -every)[::-1]
        return Curve(self.tag, self.steps[kept], self.values[kept])


class Source(Protocol):
    """What a record is read from."""

    def tags(self) -> frozenset[str]:
        """Return the tags of the record that there are."""

    def rows(self, tags: Sequence[str], most: int | None = None) -> dict[str, list[Row]]:
        """Return the rows of each of the tags, in the order in which they were written.

        Args:
            tags: tags of the record; those that are not there are left out.
            most: no more rows of each than that, the last among them.
        """

    def loss(self) -> Curve | None:
        """Return the loss, found by its name among the user's scalars; None if there is none."""

    def damage(self) -> str | None:
        """Return in words what cannot be read of it, None if there is no such thing."""


def loss_tag(tags: Iterable[str]) -> str | None:
    """Return the tag that the training loss has most likely, None if none looks like one.

    >>> loss_tag(["acc", "val/loss", "train/loss_epoch", "train/loss"]), loss_tag(["Loss/test"]), loss_tag(["glossy"])
    ('train/loss', 'Loss/test', None)
    """
    found = [tag for tag in tags if looks_like_loss(tag)]
    return min(found, key=_unlikeliness, default=None)


@lru_cache(4096)
def looks_like_loss(tag: str) -> bool:
    """Return whether the name of a scalar says that it is a loss."""
    return any(word.startswith("loss") or word.endswith("loss") for word in _words(tag))


_HELD_OUT = frozenset(("val", "valid", "validation", "test", "eval", "evaluation", "dev", "heldout"))


def _unlikeliness(tag: str) -> tuple[bool, bool, bool, int, str]:
    words = _words(tag)
    return (
        bool(_HELD_OUT & set(words)),
        words[-1] != "loss" and words[:1] != ["loss"],
        "train" not in words,
        len(tag),
        tag,
    )


def _words(tag: str) -> list[str]:
    return "".join(c.lower() if c.isalnum() else " " for c in tag).split()
