"""Site: one activation call of the model, told apart from all others, and named."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from types import FrameType
from typing import Any

from .kinds import Kind


@dataclass(slots=True)
class Site:
    """One activation call, fed by one set of ops with parameters.

    Attributes:
        name: unique; the path of the activation module, or the enclosing module and the function, then #1, #2, ...
        kind: what the activation does.
        source: `file:line` of a functional call, None for a module.
        units: number of units.
        unit_dim: dimension of z that holds them, None if none is left.
        lineage: the nearest ops with parameters, norms included, seen through activations.
        producers: ops with parameters that made z, in order of first sight.
        calls: the largest number of calls in one forward pass.
        batch_lost: the batch axis was lost in some call.
        guessed: the unit axis was guessed from the shape of z.
    """

    name: str
    kind: Kind
    source: str | None
    units: int
    unit_dim: int | None
    lineage: frozenset[str] = frozenset()
    producers: dict[str, None] = field(default_factory=dict)
    calls: int = 0
    batch_lost: bool = False
    guessed: bool = False


Key = tuple[str, str, frozenset[Any], int]
"""What makes two calls one site: enclosing path, function, lineage of z, number of units."""


class Sites:
    """The sites found so far, in order of first execution."""

    def __init__(self, include: Iterable[str] | str | None = None, exclude: Iterable[str] | str | None = None) -> None:
        self._include = _patterns(include)
        self._exclude = _patterns(exclude)
        self._by_key: dict[Key, Site | None] = {}
        self._taken: Counter[str] = Counter()

    def __iter__(self) -> Any:
        return (site for site in self._by_key.values() if site is not None)

    def find(self, key: Key) -> tuple[bool, Site | None]:
        """Return (known, site); a known site that the patterns leave out is None."""
        return key in self._by_key, self._by_key.get(key)

    def add(self, key: Key, base: str, kind: Kind, source: str | None, unit_dim: int | None) -> Site | None:
        """Name a new site; None if the patterns leave it out."""
        count = self._taken[base]
        self._taken[base] += 1
        name = base if not count else f"{base}#{count}"
        lineage = frozenset(mark for mark in key[2] if isinstance(mark, str))
        site = Site(name, kind, source, key[3], unit_dim, lineage) if self._wanted(name) else None
        self._by_key[key] = site
        return site

    @property
    def patterns(self) -> str:
        """The patterns as a user gave them."""
        given = (("include", self._include), ("exclude", self._exclude))
        return " and ".join(f"{name} {', '.join(patterns)}" for name, patterns in given if patterns is not None)

    @property
    def left_out(self) -> int:
        """Number of sites that the patterns left out."""
        return sum(site is None for site in self._by_key.values())

    def _wanted(self, name: str) -> bool:
        if self._include is not None and not any(fnmatchcase(name, p) for p in self._include):
            return False
        return not any(fnmatchcase(name, p) for p in self._exclude or ())


def _patterns(given: Iterable[str] | str | None) -> tuple[str, ...] | None:
    if given is None:
        return None
    return (given,) if isinstance(given, str) else tuple(given)


_HIDDEN = ("torch/nn/functional.py", "torch/overrides.py", "torch/_tensor.py", "torch/nn/modules/activation.py")


def calling_line() -> str | None:
    """Return `file:line` of the code that called an activation function, relative to where Python found it."""
    home = str(Path(__file__).parent)
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        file = frame.f_code.co_filename
        if not file.startswith(home) and not file.replace("\\", "/").endswith(_HIDDEN):
            return f"{_relative(file)}:{frame.f_lineno}"
        frame = frame.f_back
    return None


def _relative(file: str) -> str:
    best = ""
    for entry in (str(Path.cwd()), *sys.path):
        root = entry.rstrip("/") + "/"
        if entry and file.startswith(root) and len(root) > len(best):
            best = root
    return file[len(best) :] if best else Path(file).name
