"""Mixture: a copy of a model that runs with any mixture of two states' parameters, on rows that it keeps."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn

from ..batches import Caller, Forward, Source, prepared, source, tensors_in
from ..counts import SiteCounter
from ..errors import ModelError
from ..hooks import Watcher
from ..interventions import Outcome
from ..kernels import Plan
from ..kinds import Kind
from ..sites import Site
from ..untouched import untouched
from .own import Own, own_of
from .state import separate, values_of

MEMORY = 1 << 28
"""Bytes of rows that are kept at most, 256 MiB, one batch aside."""

Share = Callable[[str], float]
"""How far a parameter of that name has gone from the old state (0) to the new one (1)."""


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """Data to be run again and again.

    Attributes:
        data, forward, batch_size, batch_dim, device: as `deadrelu.audit` takes them.
        samples: keep so many at most.
    """

    data: Any
    samples: int
    forward: Forward | None = None
    batch_size: int = 128
    batch_dim: int = 0
    device: torch.device | None = None


class Mixture:
    """Runs a model between two states, inside of a `with` block.

    Args:
        old, new: two modules of one architecture; neither is changed.
        rows: what to run it on.
        patterns: `include` and `exclude` of site names.
    """

    def __init__(self, old: nn.Module, new: nn.Module, rows: Rows, **patterns: Any) -> None:
        self.forwards = 0
        self.samples = 0
        self._model = separate(new)
        before, after = values_of(old), values_of(new)
        if rows.device is not None:
            self._model.to(rows.device)
        first = {id(tensor): name for name, tensor in reversed(values_of(self._model).items())}
        self._values = [
            (name, tensor, before[name].detach(), after[name].detach())
            for name, tensor in values_of(self._model).items()
            if name in before and first[id(tensor)] == name  # a tied tensor goes by one name
        ]
        # What did not move makes no difference, and needs no run.
        self._moved = frozenset(name for name, _, a, b in self._values if not torch.equal(a, b))
        self._rows = rows
        self._watcher = Watcher(self._model, **patterns)
        self._caller = Caller(self._model, rows.forward)
        self._batches: list[Any] = []
        self._stack = ExitStack()
        self._cache: dict[frozenset[str], dict[str, Outcome]] = {}

    def __enter__(self) -> Mixture:
        rows = self._rows
        data = source(rows.data, batch_size=rows.batch_size, batch_dim=rows.batch_dim, max_samples=rows.samples)
        with ExitStack() as stack:
            stack.enter_context(untouched(self._model, data.generators))
            stack.enter_context(torch.no_grad())
            self._batches = list(self._kept(data))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._batches.clear()
        self._stack.close()

    @property
    def sites(self) -> tuple[Site, ...]:
        """The sites seen so far, in order of first execution."""
        return tuple(self._watcher.sites)

    def own(self) -> dict[str, Own]:
        """Return which parameters belong to each site seen so far."""
        return own_of(self._model, self.sites)

    def exchanged(self, names: Collection[str]) -> dict[str, Outcome]:
        """Run all rows with these parameters from the new state, the rest from the old one; return outcomes by site."""
        moved = self._moved & frozenset(names)
        if moved not in self._cache:
            self._cache[moved] = self.run(lambda name: float(name in moved))
        return self._cache[moved]

    @property
    def names(self) -> frozenset[str]:
        """The names of all parameters and buffers that both states have."""
        return frozenset(name for name, *_ in self._values)

    def run(self, share: Share) -> dict[str, Outcome]:
        """Run all rows with each parameter gone so far from the old state to the new one."""
        self._set(share)
        self._watcher.counters.clear()
        for batch in self._batches:
            self._forward(batch)
        found = {}
        for name, counter in self._watcher.counters.items():
            counts = counter.host()
            found[name] = Outcome(counts.max_z, counts.active / max(counts.positions, 1))
        return found

    def pre_activations(self, site: Site, shares: Mapping[str, Share]) -> Iterator[dict[str, Tensor]]:
        """Yield, batch by batch, z of a site under each of some mixtures, (rows x positions, units), float64."""
        for batch in self._batches:
            found = {}
            for key, share in shares.items():
                self._set(share)
                self._watcher.counters.clear()
                keeper = self._watcher.counters[site.name] = _Keeper(site.units)
                self._forward(batch)
                found[key] = torch.cat(keeper.kept) if keeper.kept else torch.zeros(0, site.units)
            yield found
        self._watcher.counters.clear()

    def _set(self, share: Share) -> None:
        for name, tensor, before, after in self._values:
            part = share(name)
            if 0 < part < 1 and tensor.is_floating_point():
                tensor.copy_(torch.lerp(before.double(), after.double(), part))
            else:
                tensor.copy_(after if part > 0 else before)

    def _kept(self, data: Source) -> Iterator[Any]:
        rows = self._rows
        dtype = next((p.dtype for p in self._model.parameters() if p.is_floating_point()), None)
        device = next((p.device for p in self._model.parameters()), rows.device)
        used = 0
        for raw in data.batches:
            batch = prepared(raw, device, dtype, data.cast)
            tensors = list(tensors_in(batch))
            count = next((int(t.shape[rows.batch_dim]) for t in tensors if t.ndim > rows.batch_dim), 1)
            if not count:
                continue
            if not self.samples:
                with self._watcher.paused():
                    self._caller.settle(self._model, prepared(batch, None, None, False))
            self.samples += count
            used += sum(t.nbytes for t in tensors)
            yield batch
            if self.samples >= rows.samples or used >= MEMORY:
                return

    def _forward(self, batch: Any) -> None:
        self.forwards += 1
        batch = prepared(batch, None, None, False)  # a model may write into its input
        args, kwargs = self._caller.inputs(batch)
        inputs = list(tensors_in((args, kwargs)))
        dim = self._rows.batch_dim
        watcher = self._watcher
        with watcher.attached(), watcher:
            watcher.begin(inputs, dim, next((int(t.shape[dim]) for t in inputs if -t.ndim <= dim < t.ndim), None))
            try:
                self._caller(self._model, batch, args, kwargs)
            except Exception as error:  # each state alone ran on this data: it is the mixture that the model refuses
                said = (str(error).strip() or "no message").split("\n")[0]
                raise ModelError(
                    f"the model refused a mixture of both states: {type(error).__name__}: {said}"
                ) from error
            watcher.end()


class _Keeper(SiteCounter):
    """Keeps z itself, for one batch."""

    def __init__(self, units: int) -> None:
        super().__init__(units, torch.device("cpu"))
        self.kept: list[Tensor] = []

    def observe(self, z: Tensor, kind: Kind, plan: Plan, batch: int | None = None, *, output: bool = False) -> bool:
        """Keep one call as (rows x positions, units)."""
        rows = plan.view(z.detach()).permute(*plan.batch, *plan.positions, *plan.units)
        self.kept.append(rows.reshape(-1, plan.unit_count).double().cpu())
        return False

    def observe_output(self, h: Tensor, kind: Kind, plan: Plan) -> None:
        """The output is of no interest."""
