"""Layers: which units a checkpoint has, as far as names, shapes and order tell, and the norm that goes with each layer.

Nothing here is certain as a model is: a name may lie. What could be one thing or another is declined, with the reason.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ..checkpoint import Weights
from .modules import Module, find_modules

_EMBEDDING = re.compile(r"emb(ed(ding)?s?)?|wte|wpe|codebook|lookup|(word|token|tok|pos|position|type)s?")
_TRANSPOSED = re.compile(r"transp|deconv|upconv|up_conv|convt|unpool")
_TABLE = "an embedding, or a last layer: nothing here takes its outputs"
_UNCLEAR = "its units could be rows or columns of the weight: neither bias nor norm tells; not read"
_MISFIT = "its bias fits neither rows nor columns of the weight: not read"
_SCALED = "a scale follows, perhaps that of a PReLU, with which no unit can die: not read"
_LONE_NORM = "a norm of no layer here: what follows it need not be a rectifier"
_LONE_SCALE = "one number per unit that is no norm (a PReLU, a scale): nothing is said of it"

_MOST = 3  # one layer and one norm make a pair; of more it is not certain which


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer whose output may go to a rectifier, or a BatchNorm that belongs to none.

    Attributes:
        module: what holds the weight.
        unit_dim: the dimension of the weight that holds the units; 0 for a norm.
        units: how many.
        norm: the norm right behind it, of as many channels; None if there is none.
        perhaps: a BatchNorm of as many channels that may follow; None if there is none.
        before: the norm that feeds it directly, where the numbering of a Sequential says so.
    """

    module: Module
    unit_dim: int
    units: int
    norm: Module | None = None
    before: Module | None = None
    perhaps: str | None = None

    @property
    def name(self) -> str:
        """The path of the layer."""
        return self.module.name

    @property
    def is_norm(self) -> bool:
        """It is a norm of its own."""
        return self.module.sort == "norm"


def find_layers(weights: Weights) -> tuple[list[Layer], list[tuple[str, str]]]:
    """Return the layers, in the order of the file or by name where that is lost, and (module, reason) for the rest."""
    modules, declined = find_modules(weights)
    if not weights.ordered:
        modules.sort(key=lambda module: _natural(module.name))
    table = _Table(modules, weights)
    layers: dict[int, Layer] = {}
    for index, module in enumerate(modules):
        if module.sort == "layer":
            outcome = table.layer(index)
            if isinstance(outcome, Layer):
                layers[index] = outcome
            else:
                declined.append((module.name, outcome))
    taken = {layer.norm.name for layer in layers.values() if layer.norm is not None} | table.scales
    for index, module in enumerate(modules):
        if module.sort == "layer" or module.name in taken:
            continue
        if module.is_batch_norm and len(module.shape) == 1:
            layers[index] = Layer(module, 0, module.shape[0])
        else:
            declined.append((module.name, _LONE_NORM if module.sort == "norm" else _LONE_SCALE))
    lone = {layer.units: layer.name for layer in layers.values() if layer.is_norm}
    found = [layers[index] for index in sorted(layers)]
    return [_wary(layer, lone.get(layer.units)) for layer in found], declined


def _wary(layer: Layer, norm: str | None) -> Layer:
    """Note at a layer without a norm that a BatchNorm as wide, which belongs to no layer, may be its own."""
    return layer if layer.is_norm or layer.norm is not None else replace(layer, perhaps=norm)


class _Table:
    """All modules, to look at the neighbours of one.

    Attributes:
        scales: the names of those that follow a layer.
    """

    def __init__(self, modules: Sequence[Module], weights: Weights) -> None:
        self.modules = modules
        self.weights = weights
        self.scales: set[str] = set()
        self._by_name = {module.name: module for module in modules}
        self._beside: dict[tuple[str, str], list[Module]] = {}
        self._takers: Counter[int] = Counter()
        for module in modules:
            self._beside.setdefault((module.parent, _ending(module.place)), []).append(module)
            self._takers.update({module.shape[dim] for dim in _dims(module)})
        columns = [m for m in modules if len(m.shape) == 2 and self._by_bias(m) == (1,)]
        self._column_names = {m.place[:2] for m in columns}  # GPT-2 and its like keep a Linear as (inputs, units)

    def layer(self, index: int) -> Layer | str:
        """Return the layer at a place, or why there is none."""
        module = self.modules[index]
        if len(module.shape) == 2 and "bias" not in module.leaves and self._is_embedding(module):
            return _TABLE
        follower = self._follower(index)
        unit_dim = self._unit_dim(index, follower)
        if isinstance(unit_dim, str):
            return unit_dim
        found = Layer(module, unit_dim, module.shape[unit_dim])
        if follower is not None and follower.shape == (found.units,):
            if follower.sort == "scale":
                self.scales.add(follower.name)
                return _SCALED
            found = replace(found, norm=follower)
        return replace(found, before=self._before(found))

    def _by_bias(self, module: Module) -> tuple[int, ...]:
        """Return the dimensions that could hold the units: those as long as the bias, or both without one."""
        if "bias" not in module.leaves:
            return (0, 1)
        shape = self.weights.shape(module.leaves["bias"])
        return tuple(dim for dim in (0, 1) if shape == (module.shape[dim],))

    def _unit_dim(self, index: int, follower: Module | None) -> int | str:
        module = self.modules[index]
        possible = self._by_bias(module)
        if len(possible) < 2:
            return possible[0] if possible else _MISFIT
        square = module.shape[0] == module.shape[1]
        if not square and follower is not None and follower.shape[0] in module.shape[:2]:
            return module.shape.index(follower.shape[0])
        if len(module.shape) > 2 and _TRANSPOSED.search(module.name.lower()):
            return 1
        if len(module.shape) == 2 and module.place[:2] in self._column_names:
            return _UNCLEAR
        if len(module.shape) > 2 and not square and index and self.modules[index - 1].shape[0] == module.shape[0]:
            return _UNCLEAR
        return 0

    def _is_embedding(self, module: Module) -> bool:
        """Return whether a matrix without bias is a table: by its name, or because nothing takes so many numbers."""
        if any(_EMBEDDING.fullmatch(word) for word in re.split(r"[._]", module.name.lower())):
            return True
        own = {module.shape[dim] for dim in _dims(module)}
        takers = [width for width, count in self._takers.items() if count > (width in own)]
        return bool(takers) and not any(width % module.shape[0] == 0 for width in takers)

    def _follower(self, index: int) -> Module | None:
        """Return the norm or scale that stands right behind a layer, in the same module."""
        module = self.modules[index]
        if self.weights.ordered:
            following = self.modules[index + 1] if index + 1 < len(self.modules) else None
            near = following is not None and following.parent == module.parent and following.sort != "layer"
            return following if near else None
        place = _index(module.place)
        if place is not None:
            found = self._by_name.get(_sibling(module, place + 1))
            return found if found is not None and found.sort != "layer" else None
        alike = self._beside[module.parent, _ending(module.place)][:_MOST]
        norms = [m for m in alike if m.sort != "layer"]
        return norms[0] if len(norms) == 1 and len(alike) == 2 else None

    def _before(self, layer: Layer) -> Module | None:
        """Return the norm that feeds a Linear, if a Sequential numbers them one after the other."""
        module, place = layer.module, _index(layer.module.place)
        if len(module.shape) != 2 or not place:
            return None
        found = self._by_name.get(_sibling(module, place - 1))
        inputs = module.shape[1 - layer.unit_dim]
        fits = found is not None and found.sort == "norm" and not found.is_batch_norm and found.shape == (inputs,)
        return found if fits else None


def _dims(module: Module) -> tuple[int, ...]:
    return (0, 1) if module.sort == "layer" else (0,)


def _sibling(module: Module, place: int) -> str:
    return f"{module.parent}.{place}" if module.parent else str(place)


def _index(name: str) -> int | None:
    """Return a name that is the number of a place in a Sequential; None for any other."""
    return int(name) if re.fullmatch(r"[0-9]{1,9}", name) else None


def _ending(name: str) -> str:
    """Return the digits at the end of a name, as in `conv2` and `bn2`."""
    return name[len(name.rstrip("0123456789")) :]


def _natural(name: str) -> list[tuple[int, int, str]]:
    """Return a key that sorts numbers in names as numbers."""
    parts = re.split(r"([0-9]{1,9})", name)
    return [(1, int(part), "") if index % 2 else (0, 0, part) for index, part in enumerate(parts)]
