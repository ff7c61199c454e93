"""Prover: a watcher that asks, at every activation, between what bounds its pre-activation lies."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ..calls import Sighting, in_backward
from ..counts import SiteCounter
from ..hooks import Watcher
from ..kernels import Plan
from ..kinds import Kind
from ..tracing import canonical_name
from .calls import flat
from .enclosure import Enclosure, Tensor
from .machine import Machine
from .shadow import Shadow, living_tensors

_MAKERS = frozenset("tensor as_tensor asarray new_tensor scalar_tensor from_numpy frombuffer Tensor".split())
_INDEXING = frozenset(("__getitem__", "__setitem__"))
_READERS = frozenset(
    "tolist numpy __array__ __dlpack__ storage untyped_storage _typed_storage __repr__ __format__".split()
)


@dataclass(slots=True)
class Bound:
    """Bounds of the pre-activations of one site in one forward pass.

    Attributes:
        silent: never engaged, at any sample or position, in any call. Shape (units,).
        upper, lower: float64, shape (units,).
        peak: per unit, (call, element of its z) at which `upper` was found; shape (units, 2).
        reason: why a bound is missing.
    """

    silent: Tensor
    upper: Tensor
    lower: Tensor
    peak: Tensor
    reason: str | None

    def joined(self, other: Bound) -> Bound:
        """Return the bounds over both calls."""
        peak = torch.where((other.upper > self.upper).unsqueeze(1), other.peak, self.peak)
        return Bound(
            self.silent & other.silent,
            torch.maximum(self.upper, other.upper),
            torch.minimum(self.lower, other.lower),
            peak,
            self.reason or other.reason,
        )


class Prover(Watcher):
    """Names the sites as an audit does, and bounds what reaches them.

    Attributes:
        machine: follows the ops.
        bounds: of each site, in the forward pass under way or just over.
    """

    def __init__(self, model: nn.Module, **patterns: Any) -> None:
        super().__init__(model, **patterns)
        own = [*model.parameters(), *model.buffers()]
        self.memory = Shadow([*own, *living_tensors()])
        self.machine = Machine(self.memory, self._scope)
        self.bounds: dict[str, Bound] = {}

    def begin(self, inputs: Iterable[Any], batch_dim: int, batch: int | None) -> None:
        super().begin(inputs, batch_dim, batch)
        self.bounds = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = canonical_name(func)
        if name not in _MAKERS and name not in _INDEXING and name not in _READERS:
            return super().__torch_function__(func, types, args, kwargs)
        with torch._C.DisableTorchFunction(), self.machine.idle():
            self._check(name, args, kwargs or {})
        with self.machine.trusting(name not in _READERS):
            out = super().__torch_function__(func, types, args, kwargs)
        if name in ("from_numpy", "frombuffer") and isinstance(out, Tensor) and not self.memory.knows(out):
            self.memory.declare(out, constant=True)
        return out

    def _check(self, name: str, args: Sequence[Any], kwargs: dict[str, Any]) -> None:
        """Tensors that are read as Python numbers, on ways that no dispatcher sees."""
        values: list[Any] = [*args, *kwargs.values()]
        if name in _INDEXING:  # tensors inside of lists; what stands in the index itself is followed
            index = args[1] if isinstance(args[1], tuple) else (args[1],)
            values = [entry for entry in index if isinstance(entry, (list, tuple))]
        for tensor in flat(values):
            self.machine.leaves(tensor)

    def _before(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        with self.machine.idle():
            return super()._before(name, args, kwargs)

    def _after(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], call: Any, out: Any) -> None:
        with self.machine.idle():
            super()._after(name, args, kwargs, call, out)

    def _enter_module(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        with self.machine.idle():
            super()._enter_module(module, args, kwargs)

    def _leave_module(self, module: nn.Module, args: Any, out: Any) -> None:
        with self.machine.idle():
            super()._leave_module(module, args, out)

    def _on_producer(self, name: str, x: torch.Tensor, groups: int, dim: int) -> None:
        """Whether inputs are zero is no question here."""

    def _observe(self, seen: Sighting) -> SiteCounter | None:
        if in_backward() or not seen.z.numel():
            return None
        name = seen.site.name
        call = self._calls[name] = self._calls.get(name, 0) + 1
        found = bound(self.machine.read(seen.z), seen.z, seen.kind, seen.plan, call - 1)
        self.bounds[name] = found if name not in self.bounds else self.bounds[name].joined(found)
        return None


def bound(found: Enclosure, z: Tensor, kind: Kind, plan: Plan, call: int) -> Bound:
    """Return the bounds of each unit: over samples and positions, in the order of the plan."""
    never = torch.ones((), dtype=torch.bool, device=z.device)
    for start, stop in kind.intervals:
        never = never & ((found.high <= _stored(start, z, min)) | (found.low >= _stored(stop, z, max)))
    never = never.expand(z.shape)
    upper, at = _best(found.high, plan)
    lower = -_best(-found.low, plan)[0]
    silent = _best((~never).double(), plan)[0] == 0
    peak = torch.stack((torch.full_like(at, call), at), 1)
    missing = not bool(upper.isfinite().all())
    return Bound(silent.cpu(), upper.cpu(), lower.cpu(), peak.cpu(), (found.reason or "unbounded") if missing else None)


def _stored(bound: float, z: Tensor, choose: Any) -> float:
    """An end of an interval, or what it becomes in the dtype of z, in which the activation compares."""
    return float(choose(bound, float(torch.tensor(bound).to(z.dtype)))) if abs(bound) != torch.inf else bound


def _best(values: Tensor, plan: Plan) -> tuple[Tensor, Tensor]:
    """The largest entry of each unit, and where in z it is."""
    expanded = plan.view(values.contiguous())
    places = plan.view(torch.arange(values.numel(), device=values.device).view(values.shape))
    order = (*plan.units, *plan.over)
    flat_values = expanded.permute(order).reshape(plan.unit_count, -1)
    top = flat_values.max(1)
    at = places.permute(order).reshape(plan.unit_count, -1).gather(1, top.indices.unsqueeze(1)).squeeze(1)
    return top.values, at
