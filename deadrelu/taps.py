"""Taps: the cheapest look at every activation of a training step.

The first forward pass of each outermost module is traced (`hooks.Watcher`), which tells what every activation call is.
From then on a pre-hook on an activation module, or a thin function mode around the functional calls, hands z over. What
no longer fits what was traced is traced anew.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from . import tracing
from .calls import Sighting, in_backward
from .counts import SiteCounter
from .guards import Release
from .hooks import Watcher
from .kernels import Plan
from .kinds import Arguments, Kind, kind_of_function, refined
from .sites import Site
from .tracing import Layout

Guard = Callable[[Callable[..., Any]], Callable[..., Any]]
"""Wraps a function of ours, so that what goes wrong in it never reaches the training: it returns None then."""


class Sink(Protocol):
    """Who is told of what the taps see."""

    def begin_forward(self, rows: int | None) -> None: ...

    def found(self, site: Site, layout: Layout, nearest: str | None) -> None: ...

    def ran(self, path: str, module: nn.Module, x: Any, out: Any) -> None: ...

    def observe(self, site: Site, kind: Kind, z: torch.Tensor, plan: Plan) -> None: ...

    def observe_replay(self, site: Site, z: torch.Tensor, plan: Plan) -> None: ...

    def end_forward(self, suspect: Iterable[Site]) -> None: ...


@dataclass(slots=True)
class Tap:
    """One activation call of a traced forward pass, to be met again."""

    site: Site
    kind: Kind
    layout: Layout
    plans: dict[tuple[int, ...], Plan | None] = field(default_factory=dict)

    def plan(self, shape: tuple[int, ...], batch: int | None) -> Plan | None:
        """Return how to reduce a z of this shape; None if it does not fit what was traced."""
        if shape not in self.plans:
            layout = tracing.refit(self.layout, shape, batch)
            self.plans[shape] = None if layout is None else tracing.plan(layout)
        return self.plans[shape]


Place = nn.Module | tuple[str, str]
"""Where a call is met again: an activation module, or (path of the running module, function)."""


@dataclass(slots=True)
class Table:
    """What the traced forward pass of one outermost module called, in order, by place."""

    taps: dict[Place, list[Tap]] = field(default_factory=dict)
    functional: bool = False
    dynamic: bool = False

    def add(self, place: Place, tap: Tap) -> None:
        self.taps.setdefault(place, []).append(tap)
        self.functional |= isinstance(place, tuple)


class Scout(Watcher):
    """Traces one forward pass, telling the sink of every call and the table where to meet it again."""

    def __init__(self, model: nn.Module, sink: Sink, guard: Guard, **patterns: Any) -> None:
        super().__init__(model, **patterns)
        self.table = Table()
        self.upstream: dict[str, frozenset[str]] = {}
        self._sink = sink
        self._order: dict[str, int] = {}
        # Bound to the instance, so that what is called from outside is the guard itself.
        self._before = guard(self._before)  # type: ignore[method-assign]
        self._after = guard(self._after)  # type: ignore[method-assign]
        self._enter_module = guard(self._enter_module)  # type: ignore[method-assign]
        self._leave_module = guard(self._left)  # type: ignore[method-assign]

    def _left(self, module: nn.Module, args: Any, out: Any) -> None:
        super()._leave_module(module, args, out)
        self._order[self._paths[module]] = len(self._order)
        if args:
            self._sink.ran(self._paths[module], module, args[0], out)

    def _observe(self, seen: Sighting) -> SiteCounter | None:
        if in_backward() or not seen.z.numel():
            return None
        frame = self._frames[-1] if self._frames else None
        path = frame.path if frame is not None else ""
        whole = frame is not None and "()" not in seen.site.name
        place: Place = frame.module if frame is not None and whole else (path, seen.function)
        self.table.add(place, Tap(seen.site, seen.kind, seen.layout))
        # What came out of a vmap or out of several tensors cannot be met again by a tap.
        self.table.dynamic |= seen.mapped or seen.kind.gate is not None or seen.kind.name in ("maxout", "maximum")
        self._calls[seen.site.name] = self._calls.get(seen.site.name, 0) + 1
        self._sink.found(seen.site, seen.layout, self._nearest(seen.site))
        self._sink.observe(seen.site, seen.kind, seen.z, seen.plan)
        return None

    def _nearest(self, site: Site) -> str | None:
        """Return the layer of a site's lineage that ran last."""
        ran = [path for path in site.lineage if path in self._order]
        return max(ran, key=self._order.__getitem__) if ran else None

    def _on_producer(self, name: str, x: torch.Tensor, groups: int, dim: int) -> None:
        """Remember what feeds an op with parameters; its values are no concern here."""
        self.upstream[name] = frozenset(mark for mark in self._trace(x).lineage if isinstance(mark, str))


class Taps(TorchFunctionMode):
    """Hooks on a model in training; `attach` and `detach` leave nothing behind."""

    def __init__(
        self, model: nn.Module, sink: Sink, guard: Guard, *, batch_dim: int, count_eval: bool, **patterns: Any
    ) -> None:
        super().__init__()
        self.scout = Scout(model, sink, guard, **patterns)
        self.closing = False
        self._gone = False
        self.forwards = 0
        self.waiting_for_gradients = False
        self._model = model
        self._sink = sink
        self._batch_dim = batch_dim
        self._count_eval = count_eval
        self._paths = tracing.module_paths(model)
        self._tables: dict[nn.Module, Table] = {}
        self._table: Table | None = None
        self._met: Counter[Place] = Counter()
        self._stack: list[nn.Module] = []
        self._counted: nn.Module | None = None
        self._scouting = False
        self._pushed: TorchFunctionMode | None = None
        self._passing: torch.Tensor | None = None
        self._batch: int | None = None
        self._tapped: set[nn.Module] = set()
        self._hooks: list[Any] = []
        self._guard = guard
        self._looks = guard(self._function)
        self._leaves = guard(self._leave)
        self._followed: dict[nn.Module, list[nn.Module | None]] = {}

    def attach(self) -> None:
        """Follow the modules that hold others; activation modules follow once they were seen."""
        for module in self._paths:
            if module is self._model or next(module.children(), None) is not None:
                self._follow(module)

    def detach(self) -> None:
        """Remove every hook; in the middle of a forward pass, when that ends."""
        if self._pushed is not None:
            # A mode cannot be taken from the stack inside of its own call.
            self.closing = True
            return
        self._gone = True
        for handle in self._hooks:
            handle.remove()
        self._hooks.clear()
        self.scout.detach()

    def _follow(self, module: nn.Module) -> None:
        if isinstance(module, torch.jit.ScriptModule):
            return
        self._followed[module] = list(module._modules.values())
        self._hooks.append(module.register_forward_pre_hook(self._guard(self._enter), prepend=True, with_kwargs=True))
        self._hooks.append(module.register_forward_hook(self._release, always_call=True))

    # -- forward passes ------------------------------------------------------------------------------------------

    def _enter(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._stack.append(module)
        if self._followed[module] != list(module._modules.values()):
            self._rescan()
        if len(self._stack) > 1 or self._counted is not None:
            return
        if in_backward() or not (self._count_eval or (module.training and torch.is_grad_enabled())):
            return
        inputs = list(_tensors((*args, *kwargs.values())))
        self._batch = next((int(t.shape[self._batch_dim]) for t in inputs if t.ndim > self._batch_dim), None)
        if self._batch == 0:
            return
        self._counted = module
        self.forwards += 1
        self._met.clear()
        self._sink.begin_forward(self._batch)
        self._table = self._tables.get(module)
        self._scouting = self._table is None or self._table.dynamic
        if self._scouting:
            dynamic = self._table is not None
            self.scout.table = self._table = Table(dynamic=dynamic)
            self.scout.attach(m for m in self._paths if m is not module)
            self.scout.begin(inputs, self._batch_dim, self._batch)
            self.scout._enter_module(module, args, kwargs)
            self._push(self.scout)
        else:
            self._push(self)

    def _rescan(self) -> None:
        """The model has other modules than before: find them, and trace the next forward passes anew."""
        self._paths = tracing.module_paths(self._model)
        self.scout.renew(self._model)
        self._tables.clear()
        for module in self._paths:
            if next(module.children(), None) is not None and module not in self._followed:
                self._follow(module)
            elif module in self._followed:
                self._followed[module] = list(module._modules.values())

    def _push(self, mode: TorchFunctionMode) -> None:
        if self._gone:  # something failed on the way here
            return
        mode.__enter__()  # type: ignore[no-untyped-call]
        self._pushed = mode

    @property
    def _release(self) -> Release:
        return Release(self)

    def release(self, module: nn.Module, args: Any, out: Any) -> None:
        """A followed module ends, also by an exception, also after the monitor has failed."""
        if not self.closing:
            self._leaves(module, args, out)
        if self.closing and module is self._counted:
            self._pop()
            self._counted = None
            self.detach()

    def _pop(self) -> None:
        if self._pushed is not None:
            self._pushed.__exit__(None, None, None)  # type: ignore[no-untyped-call]
            self._pushed = None

    def _leave(self, module: nn.Module, args: Any, out: Any) -> None:
        while self._stack and self._stack.pop() is not module:
            pass
        if module is self._counted:
            self._leave_forward(out)

    def _leave_forward(self, out: Any = None) -> None:
        self._pop()
        module, self._counted, self._passing = self._counted, None, None
        if module is None:
            return
        suspect: list[Site] = []
        if self._scouting:
            self.scout._leave_module(module, None, out)
            self.scout.end()
            self.scout.detach()
            self._learn(module)
        elif self._table is not None:
            suspect = self._check(module, self._table)
        self._scouting = False
        self._sink.end_forward(suspect)

    def _learn(self, module: nn.Module) -> None:
        """Place the taps that the traced forward pass of `module` asks for."""
        table = self.scout.table
        self._tables[module] = table
        by_path = {path: m for m, path in self._paths.items()}
        for place in table.taps:
            target = place if isinstance(place, nn.Module) else by_path.get(place[0])
            if target is None or target in self._tapped or isinstance(target, torch.jit.ScriptModule):
                continue
            self._tapped.add(target)
            if isinstance(place, nn.Module):
                self._hooks.append(
                    target.register_forward_pre_hook(self._guard(self._tap), prepend=True, with_kwargs=True)
                )
            elif next(target.children(), None) is None and target is not self._model:
                self._follow(target)

    def _check(self, module: nn.Module, table: Table) -> list[Site]:
        """Compare the calls of a forward pass with those traced; trace the next one if they differ.

        A module that serves several sites is met by the order of its calls: if their number is another, what was seen
        of these sites cannot be trusted.
        """
        suspect: list[Site] = []
        for place, taps in table.taps.items():
            met = self._met[place]
            if met == len(taps) or (met < len(taps) and len({tap.site.name for tap in taps}) == 1):
                continue
            table.dynamic |= met > 0
            suspect += [tap.site for tap in taps] if met else []
        if any(place not in table.taps for place in self._met):
            del self._tables[module]
        return suspect

    # -- activations ---------------------------------------------------------------------------------------------

    def _tap(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self._scouting:
            return
        z = next(iter(_tensors((*args, *kwargs.values()))), None)
        if z is not None:
            self._passing = z
            with torch._C.DisableTorchFunction():  # our own arithmetic need not pass through our own mode
                self._meet(module, z)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = tracing.canonical_name(func)
        kind = kind_of_function(name)
        if kind is not None:
            self._looks(kind, name, args, kwargs)
        return func(*args, **kwargs)

    def _function(self, kind: Kind, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        z = next(iter(_tensors((*args, *kwargs.values()))), None)
        if z is None or not self._stack or refined(kind, Arguments(args, kwargs)) is None:
            return
        if z is self._passing:  # the function inside of a module that was tapped
            self._passing = None
            return
        self._meet((self._paths[self._stack[-1]], name), z)

    def _meet(self, place: Place, z: torch.Tensor) -> None:
        if in_backward():
            if self.waiting_for_gradients:
                self._replay(place, z)
            return
        if self._counted is None or self._table is None:
            return
        number = self._met[place]
        self._met[place] += 1
        taps = self._table.taps.get(place, ())
        if not taps or not z.numel():
            return
        tap = taps[number] if number < len(taps) else taps[0]
        plan = tap.plan(tuple(z.shape), self._batch)
        if plan is None:
            self._table.dynamic = True
            return
        self._sink.observe(tap.site, tap.kind, z, plan)

    def _replay(self, place: Place, z: torch.Tensor) -> None:
        """A checkpointed block runs again in backward: its gradients belong to sites that are met once only."""
        for table in self._tables.values():
            taps = table.taps.get(place, ())
            if taps and len({tap.site.name for tap in taps}) == 1:
                plan = taps[0].plan(tuple(z.shape), self._batch)
                if plan is not None:
                    self._sink.observe_replay(taps[0].site, z, plan)
                return


def _tensors(values: Iterable[Any]) -> Iterable[torch.Tensor]:
    for value in values:
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, (tuple, list)):
            yield from _tensors(value)
        elif isinstance(value, dict):
            yield from _tensors(value.values())
