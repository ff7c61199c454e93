"""Derived: weights that a module computes from other tensors of the checkpoint (pruned, weight norm, spectral norm)."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ..checkpoint import Weights

_LEAF = re.compile(r"(?P<leaf>weight|bias)_(?P<part>orig|mask|g|v|u)")
_PARAMETRIZED = re.compile(r"(?:(?P<path>.*)\.)?parametrizations\.(?P<leaf>weight|bias)\.(?P<part>.+)")

_REAL = (torch.float64, torch.float32, torch.float16, torch.bfloat16)

Parts = Mapping[str, str]
"""The role of each ingredient -> its name in the checkpoint."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """How one tensor is computed.

    Attributes:
        main: the ingredient that has its shape, and that an optimizer holds.
        names: of all ingredients.
        make: computes it.
    """

    main: str
    names: tuple[str, ...]
    make: Callable[[], Tensor]


class Effective(Weights):
    """Weights as the modules use them: what is computed from others stands in their place, and is computed when read.

    What cannot be computed without code stays as the checkpoint has it.
    """

    def __init__(self, weights: Weights) -> None:
        self._held = weights
        self.ordered = weights.ordered
        self._recipes = _recipes(weights)
        used = {name: made for made, recipe in self._recipes.items() for name in recipe.names}
        self._names = dict.fromkeys(used.get(name, name) for name in weights)

    def __getitem__(self, name: str) -> Tensor:
        return self._recipes[name].make() if name in self._recipes else self._held[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def main(self, name: str) -> str:
        """Return the name of the tensor in the checkpoint that an optimizer holds for `name`."""
        return self._recipes[name].main if name in self._recipes else name

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a tensor without reading it."""
        return self._held.shape(self.main(name))

    def dtype(self, name: str) -> torch.dtype:
        """Return the dtype of a tensor without reading it."""
        return self._held.dtype(self.main(name))

    @property
    def nbytes(self) -> int:
        """The bytes of all tensors of the checkpoint."""
        return self._held.nbytes

    def tied(self) -> dict[str, str]:
        """Return, for each name of a tensor that an earlier name holds too, that earlier name."""
        return {name: first for name, first in self._held.tied().items() if name in self._names}


def _recipes(weights: Weights) -> dict[str, Recipe]:
    grouped: dict[str, dict[str, str]] = {}
    for name in weights:
        path, _, last = name.rpartition(".")
        within = _PARAMETRIZED.fullmatch(name)
        plain = None if within else _LEAF.fullmatch(last)
        if within is not None:
            path, leaf, part = within["path"] or "", within["leaf"], within["part"]
        elif plain is not None:
            leaf, part = plain["leaf"], plain["part"]
        else:
            continue
        grouped.setdefault(f"{path}.{leaf}" if path else leaf, {})[part] = name
    found = {}
    for name, parts in grouped.items():
        recipe = None if name in weights else _recipe(weights, parts)
        if recipe is not None:
            found[name] = recipe
    return found


def _recipe(weights: Weights, parts: Parts) -> Recipe | None:
    """Return how the tensor with these ingredients is computed; None if that is not certain."""
    if any(weights.dtype(name) not in _REAL for role, name in parts.items() if role != "mask"):
        return None
    if any(0 in weights.shape(name) for name in parts.values()):
        return None
    roles = set(parts)
    if roles == {"orig", "mask"}:
        return _masked(weights, parts["orig"], parts["mask"])
    for g, v in (("g", "v"), ("original0", "original1")):
        if roles == {g, v}:
            return _normed(weights, parts[g], parts[v])
    for original, u, v in (("orig", "u", "v"), ("original", "0._u", "0._v")):
        if roles == {original, u, v}:
            return _spectral(weights, parts[original], parts[u], parts[v])
    return None


def _masked(weights: Weights, original: str, mask: str) -> Recipe | None:
    """torch.nn.utils.prune: what the mask leaves."""
    if weights.shape(original) != weights.shape(mask):
        return None
    return Recipe(original, (original, mask), lambda: weights[original] * weights[mask].to(weights.dtype(original)))


def _normed(weights: Weights, g: str, v: str) -> Recipe | None:
    """Weight norm: g v / |v|, a norm for each entry of g (Salimans & Kingma 2016, arXiv:1602.07868)."""
    length, shape = weights.shape(g), weights.shape(v)
    if length and (len(length) != len(shape) or any(a not in (1, b) for a, b in zip(length, shape, strict=True))):
        return None
    dims = [dim for dim, size in enumerate(length or (1,) * len(shape)) if size == 1]

    def make() -> Tensor:
        direction = weights[v]
        size: Tensor = torch.linalg.vector_norm(direction, dim=dims, keepdim=True, dtype=torch.float64)
        made: Tensor = direction * (weights[g] / size)
        return made.to(direction.dtype)

    return Recipe(v, (g, v), make) if shape and dims else None


def _spectral(weights: Weights, original: str, u: str, v: str) -> Recipe | None:
    """Spectral norm, as in eval mode: w / (u . w v), for the rows or for the columns (Miyato et al. 2018)."""
    shape = weights.shape(original)
    sides = weights.shape(u), weights.shape(v)
    fitting = [dim for dim in (0, 1) if len(shape) > 1 and sides == ((shape[dim],), (math.prod(shape) // shape[dim],))]
    if not fitting:
        return None
    dim = fitting[0]

    def sigma() -> float:
        rows = weights[original].movedim(dim, 0).flatten(1).double()
        return float(weights[u].double() @ (rows @ weights[v].double()))

    found = sigma()
    if not math.isfinite(found) or found <= 0:
        return None
    return Recipe(original, (original, u, v), lambda: weights[original] / found)
