"""Scout: traces one forward pass, and tells of every activation call where it can be met again."""

from __future__ import annotations

import sys
import weakref
from collections import Counter
from collections.abc import Iterable, Set
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ..calls import Reading, Sighting, in_backward
from ..counts import SiteCounter
from ..hooks import Watcher
from ..kinds import Kind
from ..sites import Site
from ..tracing import Trace
from .marks import Mark
from .relays import State
from .table import Guard, Output, Place, Sink, Table, Tap


@dataclass(frozen=True, slots=True)
class Finding:
    """One call of a forward pass: the place where it can be met, and a cheaper one if there is one."""

    tap: Tap
    place: Place
    output: Output | None


class Scout(Watcher):
    """Traces one forward pass, telling the sink of every call; `table` says where to meet them again."""

    def __init__(self, model: nn.Module, sink: Sink, guard: Guard, state: State, **patterns: Any) -> None:
        super().__init__(model, **patterns)
        self._state = state
        self.dynamic = False
        self.upstream: dict[str, frozenset[str]] = {}
        self._sink = sink
        self._order: dict[str, int] = {}
        self._findings: list[Finding] = []
        self._left_out: dict[Place, list[Mark]] = {}
        self._made: dict[int, tuple[weakref.ref[torch.Tensor], int, nn.Module]] = {}
        self._ran: Counter[nn.Module] = Counter()
        self._used: set[int] = set()
        self._unfit: set[nn.Module] = set()
        # Bound to the instance, so that what is called from outside is the guard itself.
        self._before = guard(self._before)  # type: ignore[method-assign]
        self._after = guard(self._after)  # type: ignore[method-assign]
        self._enter_module = guard(self._enter_module)  # type: ignore[method-assign]
        self._leave_module = guard(self._left)  # type: ignore[method-assign]

    def begin(self, inputs: Iterable[Any], batch_dim: int, batch: int | None) -> None:
        super().begin(inputs, batch_dim, batch)
        self.dynamic = False
        self._findings.clear()
        self._left_out.clear()
        self._ran.clear()

    def _blind(self) -> bool:
        return self._state.blind

    def table(self) -> Table:
        """Return the table of the forward pass that was traced."""
        outputs = Counter(found.output for found in self._findings if found.output is not None)
        table = Table(dynamic=self.dynamic)
        table.leave_out(self._left_out)
        for found in self._findings:
            # A layer whose output goes elsewhere now and then would be taken for the activation.
            output = found.output
            fit = output is not None and outputs[output] == self._ran[output.layer]
            place = output if output is not None and fit else found.place
            table.taps.setdefault(place, []).append(found.tap)
            table.functional |= type(place) is tuple
        return table

    @property
    def called(self) -> Set[nn.Module]:
        """The modules that ran in any of the forward passes that were traced."""
        return self._called

    def distrust(self, output: Output) -> None:
        """No longer take the output of this layer for a pre-activation."""
        self._unfit.add(output.layer)

    def _left(self, module: nn.Module, args: Any, out: Any) -> None:
        super()._leave_module(module, args, out)
        self._order[self._paths[module]] = len(self._order)
        self._ran[module] += 1
        if isinstance(out, torch.Tensor) and module not in self._unfit and next(module.children(), None) is None:
            if not out.is_inference():  # of which nobody can tell whether they are untouched
                self._made[id(out)] = (weakref.ref(out), out._version, module)
            self._used.discard(id(out))
        if args:
            self._note_upstream(module, args[0])
            self._sink.ran(self._paths[module], module, args[0], out)

    def _forget(self) -> None:
        super()._forget()
        self._made.clear()
        self._used.clear()

    def _site(self, z: torch.Tensor, kind: Kind, function: str, trace: Trace, reading: Reading) -> Site | None:
        site = super()._site(z, kind, function, trace, reading)
        if site is None and not in_backward():  # the patterns leave it out
            with torch._C.DisableTorchFunction():
                mark = Mark.of(z)
            for frame in reversed(self._frames):  # the activation module, if it is one, and the one that calls it
                for place in (frame.module, (frame.path, function)):
                    self._left_out.setdefault(place, []).append(mark)
                if next(frame.module.children(), None) is not None:
                    break
        return site

    def _observe(self, seen: Sighting) -> SiteCounter | None:
        if in_backward() or not seen.z.numel():
            return None
        frame = self._frames[-1] if self._frames else None
        path = frame.path if frame is not None else ""
        whole = frame is not None and "()" not in seen.site.name
        place: Place = frame.module if frame is not None and whole else (path, seen.function)
        z = seen.z
        output = None if whole else self._output(z)
        with torch._C.DisableTorchFunction():
            mark = Mark.of(z)
        tap = Tap(seen.site, seen.kind, seen.layout, tuple(z.shape), z.dtype, z.device, _in_checkpoint(), mark)
        self._findings.append(Finding(tap, place, output))
        # What came out of a vmap or out of several tensors cannot be met again by a tap.
        self.dynamic |= seen.mapped or seen.kind.gate is not None or seen.kind.name in ("maxout", "maximum")
        self._calls[seen.site.name] = self._calls.get(seen.site.name, 0) + 1
        nearest = self._nearest(seen.site)
        self._sink.found(seen.site, seen.layout, nearest, fed=bool(self.upstream.get(nearest or "")))
        self._sink.observe(seen.site, seen.kind, seen.z, seen.plan)
        return None

    def _output(self, z: torch.Tensor) -> Output | None:
        """Return the layer whose output z is, untouched since."""
        held = self._made.get(id(z))
        if held is None or held[0]() is not z or held[1] != z._version:
            return None
        layer = held[2]
        if id(z) in self._used:
            self._ran[layer] += 1  # two activations of one output: a hook on the layer would meet them once
        self._used.add(id(z))
        return Output(layer)

    def _nearest(self, site: Site) -> str | None:
        """Return the layer of a site's lineage that ran last."""
        ran = [path for path in site.lineage if path in self._order]
        return max(ran, key=self._order.__getitem__) if ran else None

    def _note_upstream(self, module: nn.Module, x: Any) -> None:
        """Remember what feeds a layer of which no op with parameters tells: a norm, an embedding."""
        if module._parameters and isinstance(x, torch.Tensor):
            self.upstream.setdefault(self._paths[module], _layers(self._trace(x)))

    def _on_producer(self, name: str, x: torch.Tensor, groups: int, dim: int) -> None:
        """Remember what feeds an op with parameters; its values are no concern here."""
        self.upstream[name] = _layers(self._trace(x))


def _layers(trace: Trace) -> frozenset[str]:
    return frozenset(mark for mark in trace.lineage if isinstance(mark, str))


def _in_checkpoint() -> bool:
    module = sys.modules.get("torch.utils.checkpoint")
    frame = sys._getframe() if module is not None else None
    while frame is not None:
        if frame.f_globals is vars(module):
            return True
        frame = frame.f_back
    return False
