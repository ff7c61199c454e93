"""Compiled: models whose forward pass runs as compiled code, which looks at its units by itself.

The hooks that are traced into that code (`relays.py`) need to know the model's sites before it is traced. They are
found in a *shadow*: the forward pass once more, eagerly, without gradients, and without a trace on the model. The
captured steps take one, too, for what is dearer than the largest z.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn

from .. import tracing
from ..guards import Hook
from ..snapshots import copied
from ..untouched import aside
from ..windows import Live
from .placed import Placed
from .relays import Beacon, Call, Relay, RelayAfter, RelayBefore, State, ambient, reduction
from .table import Guard, Output, Place, Sink, Table, Tap

_AGAIN = 3
"""How often a place is learned again that was met in another way than before, and a shadow tried that has failed."""


class Compiled:
    """The relays of one model.

    Attributes:
        state: what the hooks in compiled code share.
        lives: what the sites have reached, by name.
        shadowing: a shadow runs.
        used: compiled code has run that counts.
        unhooked: compiled code was called that has no hooks.
        gated: each of its calls is known from without; the modules that hold others are followed in shadows alone.
        framed: the hooks that follow them.
        calls: compiled code was called that often since the last update, as far as that is known.
    """

    def __init__(
        self,
        model: nn.Module,
        sink: Sink,
        placed: Placed,
        frames: list[nn.Module],
        tables: dict[nn.Module, Table],
        *,
        rows: Callable[..., int | None],
        count_eval: bool,
    ) -> None:
        self.state = State(count_eval=count_eval)
        self.lives: dict[str, Live] = {}
        self.shadowing = self.unhooked = self.used = False
        self._unseen: dict[str, str] = {}
        self.calls = 0
        self._model, self._sink, self._placed = model, sink, placed
        self._frames, self._tables, self._rows = frames, tables, rows
        self.gated = False
        self.framed = Placed(resting=True)
        self._verified = self._fresh = -1
        self._relays: dict[Place, Relay] = {}
        self._learned: dict[Place, int] = {}
        self._gates: list[Callable[[], None]] = []
        self._beacons: list[Any] = []
        self._failures = 0
        self._samples = 0
        self._running: tuple[tuple[Any, ...], dict[str, Any]] | None = None
        self._inputs: tuple[tuple[Any, ...], dict[str, Any]] | None = None

    @property
    def unseen(self) -> dict[str, str]:
        """Sites that compiled code cannot tell of, and why."""
        if self.unhooked:
            return {**self._unseen, **dict.fromkeys(self.lives, "compiled: by code that is older than the monitor")}
        return self._unseen

    # -- shadows -------------------------------------------------------------------------------------------------

    @contextmanager
    def _shadow(self) -> Iterator[None]:
        """Inside of the block the model may run, and leaves no trace on itself."""
        with ExitStack() as stack:
            stack.enter_context(self._frame())
            stack.enter_context(aside(self._model, Hook))
            stack.enter_context(torch.no_grad())
            # Weights that autocast casts here have no gradients: they must not stay in its cache.
            for device, dtype in {**self.state.autocast, **ambient()}.items():
                stack.enter_context(torch.autocast(device, dtype, cache_enabled=False))
            self.shadowing = True
            try:
                yield
            finally:
                self.shadowing = False

    def trace(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Run a module in a shadow, called with these: its sites are found, or looked at closely."""
        if self._failures >= _AGAIN:
            return
        args, kwargs = copied(args), copied(kwargs)
        with self._shadow():
            try:
                module._call_impl(*args, **kwargs)  # type: ignore[no-untyped-call]  # not what it may be compiled to
            except Exception:  # the model's own: it will say so itself when it is called
                self._failures += 1
                self._tables.pop(module, None)

    @contextmanager
    def _frame(self) -> Iterator[None]:
        """Follow the modules that hold others inside of the block, where they are not followed anyway."""
        if not self.gated:
            yield
            return
        self.framed.wake()
        try:
            yield
        finally:
            self.framed.rest()

    # -- what is hooked ------------------------------------------------------------------------------------------

    def learn(self, table: Table) -> None:
        """Hook what a shadow has found, for the code that is compiled from now on."""
        changed = False
        for place, taps in table.taps.items():
            known = self._relays.get(place)
            if known is not None and not known.stale:
                continue
            calls = self._calls(place, taps)
            changed |= known is not None or bool(calls)
            if known is not None:
                known.learn(calls, elastic=place in table.elastic)
            elif calls:
                self._hook(place, calls)
        if changed:
            self.state.epoch += 1  # what was compiled before is compiled anew

    def _hook(self, place: Place, calls: list[Call]) -> None:
        relay: RelayBefore | RelayAfter
        if isinstance(place, nn.Module):
            relay = RelayBefore(self.state, calls)
            self._placed.put(place.register_forward_pre_hook, relay, with_kwargs=True)
        else:
            assert isinstance(place, Output)
            relay = RelayAfter(self.state, calls)
            self._placed.put(place.layer.register_forward_hook, relay)
        self._relays[place] = relay
        self.state.relays.append(relay)

    def _calls(self, place: Place, taps: list[Tap]) -> list[Call]:
        """Return what to keep of the calls of a place; nothing, and why, if that cannot be done."""
        self._learned[place] = self._learned.get(place, 0) + 1
        reduced = [reduction(tracing.plan(tap.layout), tap.shape) for tap in taps]
        reason = None
        if type(place) is tuple:
            reason = "only modules, and functions of what a layer gives, are seen"
        elif any(tap.checkpointed for tap in taps):  # a graph of its own, that may write nothing outside of it
            reason = "inside of a checkpoint nothing is seen"
        elif None in reduced:
            reason = "its units lie beside others along one axis"
        elif self._learned[place] > _AGAIN:
            reason = "it is called in ever other ways"
        if reason is not None:
            self._unseen.update({tap.site.name: f"compiled: {reason}" for tap in taps})
            return []
        calls = []
        for tap, one in zip(taps, reduced, strict=True):
            assert one is not None
            plan = tracing.plan(tap.layout)
            live = self.lives.get(tap.site.name)
            if live is None:
                live = Live(tap.site, plan.unit_count, bool(plan.batch), tap.dtype, tap.device)
                self.lives[tap.site.name] = live
            calls.append(Call(tap.kind, one, live))
        return calls

    # -- what it has seen ----------------------------------------------------------------------------------------

    def collect(self) -> None:
        """Take in what compiled code has seen since the last update."""
        state = self.state
        if state.passed < 0 and not self.calls:
            return
        (calls, self.calls), (samples, self._samples) = (self.calls, 0), (self._samples, 0)
        inputs, self._inputs = self._inputs or state.inputs, None
        number, state.passed, state.inputs = state.passed, -1, None
        if self._sink.resting:
            return
        if number < 0:
            self.unhooked |= calls > 0
            return
        self.used = True
        module = self._frames[number]
        args, kwargs = inputs or ((), {})
        rows = samples or self._rows(args, kwargs)
        self._drop_misfits(module)
        self._sink.begin_forward(rows, module, None if inputs is None else args, kwargs)
        if inputs is not None and (module not in self._tables or self._sink.thorough):
            self.trace(module, args, kwargs)
        self._verify()
        self._sink.compiled(self.lives.values(), rows)
        self.blank()
        self._sink.end_forward(())

    def blank(self) -> None:
        """Forget what was kept."""
        parts = [(part, live.blank) for live in self.lives.values() for part in live.parts]
        if parts:
            torch._foreach_copy_([part for part, _ in parts], [blank for _, blank in parts])

    def _verify(self) -> None:
        """See once whether the code that runs has the hooks that it should have: it may be older than they are."""
        if self._verified == self.state.epoch or not self.lives:
            return
        far = not next(iter(self.lives.values())).blank.is_cpu
        if self.unhooked and far and not self._sink.thorough:  # said already; to look again is to wait for the device
            return
        if any(bool((part != -torch.inf).any()) for live in self.lives.values() for part in live.parts):
            self._verified, self.unhooked = self.state.epoch, False
        elif self._fresh == self.state.epoch:  # hooked before this pass began
            self.unhooked = True
            self._sink.unseen()
        self._fresh = self.state.epoch

    def _drop_misfits(self, module: nn.Module) -> None:
        """Forget what was kept where z was another than was learned, and look anew."""
        for relay in self.state.relays:
            if relay.misfit:
                relay.misfit, relay.stale = False, True
                for call in relay.calls:
                    for part in call.parts:
                        part.fill_(-torch.inf)
                self._tables.pop(module, None)

    # -- around compiled calls -----------------------------------------------------------------------------------

    def gate(self, model: nn.Module, guard: Guard) -> None:
        """Be told of each call of a model that is compiled already.

        Of one that will be, nothing is known but that its code depends on what is hooked now.
        """
        begin, end = guard(self._begin), guard(self._end)
        for module in self._model.modules():
            if next(module.children(), None) is None and not isinstance(module, torch.jit.ScriptModule):
                self._beacons.append(module.register_forward_pre_hook(Beacon(self.state)))
        wrapper: nn.Module | None = model
        while wrapper is not None:
            inner = wrapper._modules.get("_orig_mod")
            if inner is not None:
                before = wrapper.register_forward_pre_hook(GateBefore(inner, begin), with_kwargs=True)
                self._gates += [before.remove, wrapper.register_forward_hook(GateAfter(end)).remove]
            elif wrapper._compiled_call_impl is not None:
                self._gate_call(wrapper, wrapper._compiled_call_impl, begin, end)
            wrapper = None if wrapper is self._model else inner or wrapper._modules.get("module")
        self.gated = bool(self._gates)
        parts = [module for module in self._model.modules() if module is not self._model]
        for part in parts:
            if "_orig_mod" in part._modules:
                before = part.register_forward_pre_hook(GateBefore(part, self._enter_part), with_kwargs=True)
                after = part.register_forward_hook(GateAfter(self._leave_part), always_call=True)
                self._gates += [before.remove, after.remove]
            elif part._compiled_call_impl is not None:
                self._gate_call(part, part._compiled_call_impl, self._enter_part, self._leave_part)

    def _gate_call(
        self,
        module: nn.Module,
        compiled: Callable[..., Any],
        begin: Callable[..., None],
        end: Callable[[], None],
    ) -> None:
        def call(*args: Any, **kwargs: Any) -> Any:
            begin(module, args, kwargs)
            try:
                out = compiled(*args, **kwargs)
            except BaseException:
                self.state.blind, self.state.inside, self._running = False, False, None
                raise
            end()
            return out

        def restore() -> None:
            if vars(module).get("_compiled_call_impl") is call:
                vars(module)["_compiled_call_impl"] = compiled

        vars(module)["_compiled_call_impl"] = call
        self._gates.append(restore)

    def _begin(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._running, self.state.inside = None, False  # whatever became of the pass before
        if self.state.eager or not (self.state.count_eval or (module.training and torch.is_grad_enabled())):
            return
        self._running = args, kwargs
        if module not in self._tables:
            self.trace(module, args, kwargs)
        self.state.enter(module, self._frames.index(module), args, kwargs)

    def _end(self) -> None:
        if self._running is not None:
            self.state.leave()
            self._inputs, self._running = self._running, None
            self.calls += 1
            self._samples += self._rows(*self._inputs) or 1
            if self.calls == self._sink.patience:
                self._sink.idle()

    def _enter_part(self, *_: Any) -> None:
        self.state.blind = not self.shadowing

    def _leave_part(self) -> None:
        self.state.blind = False

    def found(self) -> None:
        """The model's sites are known: no beacon is needed any more."""
        for handle in self._beacons:
            handle.remove()
        self._beacons.clear()

    def close(self) -> None:
        """Take gates and beacons away."""
        for remove in (*self._gates, *(handle.remove for handle in self._beacons)):
            remove()
        self._gates.clear()
        self._beacons.clear()
        self.framed.close()


class GateBefore(Hook):
    """Before a call of the wrapper of a compiled model."""

    def __init__(self, inner: nn.Module, begin: Callable[..., None]) -> None:
        self._inner, self._begin = inner, begin

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._begin(self._inner, args, kwargs)


class GateAfter(Hook):
    """After it, unless it has failed."""

    def __init__(self, end: Callable[[], None]) -> None:
        self._end = end

    def __call__(self, module: nn.Module, args: Any, out: Any) -> None:
        self._end()
