"""Own: which parameters of a model belong to one site itself; all others are upstream of it, or past it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from torch import nn

from ..sites import Site
from ..tracing import module_paths


@dataclass(frozen=True, slots=True)
class Own:
    """The names of the parameters and buffers that make z of a site from its input.

    Attributes:
        weights: the weights of its layer, the scale of a norm behind it, and the statistics of that norm.
        bias: the biases of both.
    """

    weights: tuple[str, ...]
    bias: tuple[str, ...]


def own_of(model: nn.Module, sites: Iterable[Site]) -> dict[str, Own]:
    """Return what belongs to each site, the sites in order of execution.

    That is its producers and the norm nearest to it. What belongs to an earlier site already (a residual stream is fed
    by all the blocks before) is upstream, unless nothing else is left.
    """
    taken: set[str] = set()
    found = {}
    labels = _Labels(model)
    for site in sites:
        nearest = dict.fromkeys([*site.producers, *sorted(site.lineage)])
        fresh = [label for label in nearest if label not in taken] or list(site.producers)
        taken.update(nearest)
        names = dict.fromkeys(name for label in fresh for name in labels.names(label))
        bias = tuple(name for name in names if _is_bias(name))
        found[site.name] = Own(tuple(name for name in names if name not in bias), bias)
    return found


class _Labels:
    """What a tracer calls a producer: the path of a module with a weight, or the full name of a parameter."""

    def __init__(self, model: nn.Module) -> None:
        self._paths: Mapping[str, nn.Module] = {path: module for module, path in module_paths(model).items()}
        self._names: dict[int, str] = {}
        for name, tensor in (*model.named_parameters(), *model.named_buffers()):
            self._names.setdefault(id(tensor), name)

    def names(self, label: str) -> list[str]:
        """Return the names of the parameters and buffers of a producer."""
        module = self._paths.get(label)
        if module is None:
            path, _, attribute = label.rpartition(".")
            tensor = getattr(self._paths.get(path), attribute, None)
            return [self._names[id(tensor)]] if id(tensor) in self._names else []
        parts = [module]
        if hasattr(module, "parametrizations"):
            parts += list(module.parametrizations.modules())  # type: ignore[union-attr]
        held = [t for part in parts for t in (*part.parameters(recurse=False), *part.buffers(recurse=False))]
        return [self._names[id(tensor)] for tensor in held if id(tensor) in self._names]


def _is_bias(name: str) -> bool:
    return "bias" in name.rpartition(".")[2] or "parametrizations.bias" in name
