"""Trace: what is known of one tensor of a forward pass - its layout and the ops with parameters that made it."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import torch

from . import layout as lay
from .layout import Layout
from .names import ParameterNames
from .recall import Recall


@dataclass(frozen=True, slots=True, eq=False)
class Trace:
    """What is known of one tensor; among the traces that `Traces` holds, equal ones are one object.

    Attributes:
        layout: what its dimensions hold, None if an op lost track of them.
        producers: the ops with parameters that made it, found through adds, views, norms, pooling, up to activations.
        lineage: what tells two pre-activations apart: the nearest ops with parameters (norms included, activations
            looked through) and how the units were sliced or negated since.
        zero: a constant of zeros.
    """

    layout: Layout | None = None
    producers: tuple[str, ...] = ()
    lineage: frozenset[Any] = frozenset()
    zero: bool = False

    def moved(self, layout: Layout | None, *marks: tuple[Any, ...]) -> Trace:
        """Return the trace of a view of this tensor."""
        return Trace(layout, self.producers, self.lineage | set(marks) if marks else self.lineage)


NOTHING = Trace()


class Traces:
    """The traces of the tensors alive in one forward pass; holds no tensor."""

    def __init__(self) -> None:
        self._held: dict[int, tuple[weakref.ref[torch.Tensor], Trace]] = {}
        self._different: Recall[tuple[Any, ...], Trace] = Recall()

    def get(self, tensor: Any) -> Trace | None:
        """Return what is known of `tensor`, None if nothing is."""
        held = self._held.get(id(tensor))
        # An id is reused as soon as a tensor is gone.
        return held[1] if held is not None and held[0]() is tensor else None

    def put(self, tensor: torch.Tensor, trace: Trace) -> None:
        """Remember what is known of `tensor`."""
        self.put_one(tensor, self.one(trace))

    def put_one(self, tensor: torch.Tensor, trace: Trace) -> None:
        """Remember what is known of `tensor`, with a trace that `one` or `get` has returned."""
        self._held[id(tensor)] = (weakref.ref(tensor), trace)

    def one(self, trace: Trace) -> Trace:
        """Return the one object that stands for all traces that say the same."""
        key = (trace.layout, trace.producers, trace.lineage, trace.zero)
        return self._different.get(key) or self._different.put(key, trace)

    def clear(self) -> None:
        """Forget the tensors."""
        self._held.clear()


@dataclass(slots=True)
class Tracer:
    """What an op handler may ask for and tell: the traces, the names of parameters, and who listens to producers.

    Attributes:
        traces: what is known of the tensors of this forward pass.
        names: which op owns a weight.
        scope: path of the module that is running.
        on_producer: told of every op with parameters: (its name, its input, groups, dimension of the input's features).
        unbatched: the model was fed one sample without a batch axis.
        batch: number of samples of this forward pass.
        foreign: modules that were handed a tensor of which nothing is known.
        fed: takes down what `on_producer` is told, if somebody asks for it.
        made: what ops have made of traces before, see `made.py`.
    """

    traces: Traces
    names: ParameterNames
    scope: Callable[[], str]
    on_producer: Callable[[str, torch.Tensor, int, int], None]
    unbatched: bool = False
    batch: int | None = None
    foreign: set[str] = field(default_factory=set)
    fed: list[tuple[str, torch.Tensor, int, int]] | None = None
    made: Recall[Any, Any] = field(default_factory=Recall)

    def rename(self, names: ParameterNames) -> None:
        """Take other names of weights."""
        self.names = names
        self.made = Recall()

    def feed(self, name: str, x: torch.Tensor, groups: int, dim: int) -> None:
        """Tell of an op with parameters, see `on_producer`."""
        if self.fed is not None:
            self.fed.append((name, x, groups, dim))
        self.on_producer(name, x, groups, dim)

    def parameter_name(self, tensor: torch.Tensor) -> str | None:
        """Return the name of the op that owns a weight, None if the tensor is no weight."""
        return self.names(tensor)

    def is_foreign(self, tensor: torch.Tensor) -> bool:
        """True if `tensor` comes from code that cannot be seen (a scripted part), which keeps the samples in order."""
        return self.traces.get(tensor) is None and not self.names.owns(tensor)

    def derive(self, tensor: torch.Tensor, name: str) -> None:
        """Remember that `tensor` was computed from the parameters called `name` alone."""
        self.names.derive(tensor, name)

    def producer(self, weight: Any, fallback: str) -> str:
        """Return the name of the op with parameters that `weight` belongs to."""
        name = self.parameter_name(weight) if isinstance(weight, torch.Tensor) else None
        if name is not None:
            return name
        scope = self.scope()
        return scope or f"{fallback}()"

    def known(self, tensors: Iterable[Any]) -> list[Trace]:
        """Return the traces of those tensors that have one."""
        return [trace for tensor in tensors if (trace := self.traces.get(tensor)) is not None]


def tensors_of(values: Iterable[Any]) -> list[torch.Tensor]:
    """Return the tensors among the arguments of a call, one level of lists deep."""
    found: list[torch.Tensor] = []
    for value in values:
        if isinstance(value, torch.Tensor):
            found.append(value)
        elif isinstance(value, (tuple, list)):
            found.extend(v for v in value if isinstance(v, torch.Tensor))
    return found


def union(traces: Iterable[Trace]) -> tuple[tuple[str, ...], frozenset[Any]]:
    """Return the producers (in order, once each) and the lineage of several tensors together."""
    producers: dict[str, None] = {}
    lineage: set[Any] = set()
    for trace in traces:
        producers.update(dict.fromkeys(trace.producers))
        lineage |= trace.lineage
    return tuple(producers), frozenset(lineage)


def input_trace(tensor: torch.Tensor, batch_dim: int, batch: int | None) -> Trace:
    """Return what is known of an input of the model: where its samples are."""
    dims = [lay.position(size) for size in tensor.shape]
    at = batch_dim if batch_dim >= 0 else batch_dim + tensor.ndim
    if 0 <= at < tensor.ndim and tensor.shape[at] == batch:
        dims[at] = lay.batch(tensor.shape[at])
    return Trace(Layout(tuple(dims)))
