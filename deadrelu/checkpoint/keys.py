"""Keys: what a file may make a key of, and which keys a stranger could choose so that all of them collide."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from .names import Global, Opaque
from .refusals import Damaged

FEW = 64
"""As many colliding keys cost nothing worth counting."""

_DEEPEST = 4
_PARTS = 64
_WORD = 1 << 64


def check_key(key: object) -> bool:
    """Return whether `key` is a number of two parts or a tuple with numbers, whose hash its writer can choose freely.

    A text's hash is salted, and too few plain numbers share one; of these as many collide as the writer wants, and n of
    them in one dict or set cost n^2 comparisons.

    Raises:
        Damaged: it may be no key. A tuple of tuples without end would take as long to hash as it is long to write out.
    """
    waiting, parts, chosen = [(key, 0)], 0, False
    while waiting:
        part, depth = waiting.pop()
        parts += 1
        if isinstance(part, tuple):
            if depth > _DEEPEST or parts + len(waiting) + len(part) > _PARTS:
                raise Damaged
            waiting += [(inner, depth + 1) for inner in part]
        elif isinstance(part, int):
            if abs(part) >= _WORD:
                raise Damaged
        elif not isinstance(part, (str, bytes, float, complex, Global, Opaque, torch.dtype, type(None))):
            raise Damaged
        chosen = chosen or isinstance(part, complex) or (depth > 0 and isinstance(part, (int, float)))
    return chosen


def check_keys(keys: Iterable[object]) -> int:
    """Return how many of `keys` are of the kind that `check_key` tells; see there for what is raised."""
    return sum(check_key(key) for key in keys)
