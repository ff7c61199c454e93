"""Taps: hooks on a model in training that hand over every pre-activation of the forward passes that count."""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from ..batches import tensors_in
from ..calls import in_backward, in_transform
from ..kinds import Arguments, Kind, refined
from ..sites import Site
from .calling import Calling
from .compiled import Compiled
from .express import Express
from .frames import Frames
from .newcomers import Newcomers
from .placed import Placed
from .scout import Scout
from .table import Guard, Output, Place, Sink, Table
from .ways import Ways, drawn

_CHECKED = 4
"""Captured steps from one to the next in which all torch functions are looked at, for activations that are new."""
_DRAWN = 128
"""Forward passes to one that is drawn for the same: captured steps come in rhythms, and a model may have its own."""


class Taps:
    """Hooks on a model in training; `attach` and `detach` leave nothing behind.

    Attributes:
        scout: traces the forward passes that are not known yet.
        closing: to be detached when the forward pass that runs has ended.
        compiled: the hooks for code that is compiled.
    """

    def __init__(
        self, model: nn.Module, sink: Sink, guard: Guard, *, batch_dim: int, count_eval: bool, **patterns: Any
    ) -> None:
        self.closing = False
        self._gone = False
        self._model = model
        self._sink = sink
        self._batch_dim = batch_dim
        self._count_eval = count_eval
        self._tapped: set[Place] = set()
        self.placed = Placed()
        self._express = Express(sink)
        self._frames, self._ways = Frames(model, self._place), Ways()
        self.compiled = Compiled(
            model, sink, self.placed, self._frames.modules, self._ways.tables, rows=self._rows, count_eval=count_eval
        )
        self.scout = Scout(model, sink, guard, self.compiled.state, **patterns)
        self._guard = guard
        self._calling = Calling(lambda: self.compiled.state.blind, self._function, guard)
        self._newcomers = Newcomers(guard(self._strayed))
        self._leaves = guard(self._leave)
        # The forward pass that runs: its outermost module, how often that called itself, and if it counts, the rest.
        self._outer: nn.Module | None = None
        self._again = 0
        self._counted: nn.Module | None = None
        self._scouting = False
        self._live = False
        self._unknown = False
        self._captures = 0
        self._batch: int | None = None
        self._table: Table | None = None
        self._met: dict[Place, int] = {}
        self._stack: list[nn.Module] = []
        self._pushed: TorchFunctionMode | None = None
        self._handed: dict[int, tuple[weakref.ref[torch.Tensor], Place, int]] = {}

    @property
    def parts(self) -> dict[str, str]:
        """Paths of the compiled parts of a model that is not compiled as a whole, and why they are not seen."""
        if self.compiled.used:
            return {}
        return {
            path: "compiled: a part of a model that is not compiled as a whole is not seen"
            for module, path in self._frames.paths.items()
            if path and (module._compiled_call_impl is not None or "_orig_mod" in module._modules)
        }

    def attach(self, model: nn.Module) -> None:
        """Follow the modules that hold others; activation modules and layers follow once they were seen.

        `model` is what the user handed over, with its wrappers.
        """
        self.compiled.gate(model, self._guard)
        self._frames.follow_all()

    def detach(self) -> None:
        """Remove every hook; in the middle of a forward pass, when that ends."""
        self._live = False
        self._express.stop()
        self.compiled.close()
        if self._pushed is not None:
            # A mode cannot be taken from the stack inside of its own call.
            self.closing = True
            return
        self._gone = True
        self.placed.close()
        self._newcomers.close()
        for inner in self._frames.inner.values():
            inner.close()
        self.scout.detach()

    def rest(self) -> None:
        """Take the hooks away for a while; those that compiled code depends on stay."""
        if not self.compiled.used:
            for placed in (self.placed, *self._frames.inner.values()):
                placed.rest()

    def wake(self) -> None:
        """Look again."""
        if self.compiled.used:
            self.compiled.blank()
        else:
            for placed in (self.placed, *self._frames.inner.values()):
                placed.wake()

    def recover(self) -> None:
        """Forget a forward pass that never ended: an interrupt in it skips even the hooks that are always called."""
        self.compiled.state.inside = False
        if self._outer is not None and not in_backward():
            self._pop()
            self._express.stop()
            self.scout.detach()
            self._outer = self._counted = None
            self._live = self._scouting = self.compiled.state.eager = False
            self._stack.clear()
            self._sink.end_forward(())

    def _place(self, module: nn.Module, number: int, held: list[nn.Module | None]) -> None:
        """Put the hooks of a module that holds others."""
        entry, leave = self._express.frame(self._guard(self._enter), self, self.compiled.state, number, held)
        own = self._frames.inner.get(module, self.placed)
        placed = self.compiled.framed if self.compiled.gated else own
        placed.put(module.register_forward_pre_hook, entry, prepend=True, with_kwargs=True)
        placed.put(module.register_forward_hook, leave, always_call=True)

    # -- forward passes ------------------------------------------------------------------------------------------

    def _enter(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._frames.met(module)
        if module is self._outer and not (self._counted is None or self._counts(module) or self.compiled.shadowing):
            self.recover()  # an interrupt has ended the pass that was under way, and this is another one
        if self._outer is None:
            self._outer = module
            self.compiled.state.eager = True
            self._begin(module, args, kwargs)
            return
        self._again += module is self._outer
        if self._pushed is self._calling:
            self._stack.append(module)

    def _begin(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        shadow = self.compiled.shadowing
        if in_backward() or not (shadow or self._count_eval or (module.training and torch.is_grad_enabled())):
            return
        if in_transform():
            return
        self._batch = self._rows(args, kwargs)
        if module is not self._model:
            self._frames.part()
        self._counted = module
        self._met.clear()
        self._unknown = False
        if not shadow:
            self._ways.passes += 1
            self._sink.begin_forward(self._batch, module, args, kwargs)
        if self._batch == 0:  # a step like any other, in which there is nothing to see
            return
        if self._frames.stale or (self._sink.thorough and self._frames.changed()):
            self._renew()
        self._table = self._ways.of(module)
        self._scouting = self._table is None or self._table.dynamic
        if self._scouting:
            self.scout.attach(m for m in self._frames.paths if m is not module)
            self.scout.begin(tensors_in((args, kwargs)), self._batch_dim, self._batch)
            self.scout._enter_module(module, args, kwargs)
            self._push(self.scout)
            return
        self._live = self._sink.observing and not self._gone
        assert self._table is not None
        if not self._live:
            return
        self._captures += self._sink.thorough
        checked = self._sink.thorough and self._captures % _CHECKED == 1
        if checked or self._table.functional or drawn(self._ways.passes, _DRAWN):
            self._stack.append(module)
            self._push(self._calling)
        else:
            self._express.open(module, self._table, self._batch)

    def _counts(self, module: nn.Module) -> bool:
        return self._count_eval or (module.training and torch.is_grad_enabled())

    def _rows(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> int | None:
        """Return the number of samples that the inputs hold, None if no tensor among them has a batch axis."""
        if args and isinstance(args[0], torch.Tensor) and args[0].ndim > self._batch_dim:
            return int(args[0].shape[self._batch_dim])
        for tensor in tensors_in((args, kwargs)):
            if tensor.ndim > self._batch_dim:
                return int(tensor.shape[self._batch_dim])
        return None

    def _renew(self) -> None:
        """The model has other modules than before: find them, and trace the next forward passes anew."""
        self._ways.forget()
        self._express.forget()
        self.scout.renew(self._model)
        self._frames.renew()

    def _push(self, mode: TorchFunctionMode) -> None:
        if self._gone:  # something failed on the way here
            return
        mode.__enter__()  # type: ignore[no-untyped-call]
        self._pushed = mode

    def release(self, module: nn.Module, args: Any, out: Any) -> None:
        """A followed module ends, also by an exception, also after the monitor has failed."""
        if not self.closing:
            self._leaves(module, args, out)
        if self.closing and (module is self._outer or self._outer is None):
            self._pop()
            self._outer = self._counted = None
            self.compiled.state.eager = False
            self.detach()

    def _pop(self) -> None:
        if self._pushed is not None:
            self._pushed.__exit__(None, None, None)  # type: ignore[no-untyped-call]
            self._pushed = None

    def _leave(self, module: nn.Module, args: Any, out: Any) -> None:
        if module is self._outer:
            if self._again:
                self._again -= 1
            else:
                self._outer, self.compiled.state.eager = None, False
                if self._counted is not None:
                    self._end(module, out)
                return
        if self._pushed is self._calling:
            while self._stack and self._stack.pop() is not module:
                pass

    def _end(self, module: nn.Module, out: Any) -> None:
        self._pop()
        self._counted = None
        self._stack.clear()
        suspect: list[Site] = []
        if self._scouting:
            self._scouting = False
            self.scout._leave_module(module, None, out)
            table = self.scout.table()
            self.scout.end()
            self.scout.detach()
            self._learn(module, table)
        elif self._live and self._table is not None:
            suspect = self._check(module, self._table)
        self._live = False
        if not self.compiled.shadowing:
            self._sink.end_forward(suspect)

    def _learn(self, module: nn.Module, table: Table) -> None:
        """Place the taps that the traced forward pass of `module` asks for."""
        self._ways.learn(module, table)
        if table.functional:  # a call is known by the module that it was met in
            self._frames.part()
        self._express.forget()
        self.compiled.found()
        by_path = {path: m for m, path in self._frames.paths.items()}
        for place in table.taps:
            if place in self._tapped:
                continue
            if isinstance(place, nn.Module):
                self._tapped.add(place)
                hook = self._express.before(place, self._guard(self._tap))
                self.placed.put(place.register_forward_pre_hook, hook, with_kwargs=True)  # behind those that change z
            elif isinstance(place, Output):
                self._tapped.add(place)
                self.placed.put(place.layer.register_forward_hook, self._express.after(place, self._guard(self._made)))
            elif (target := by_path.get(place[0])) is not None:
                self._frames.follow(target)
        if self.compiled.shadowing:
            self.compiled.learn(table)
        if not (self.compiled.used or self.compiled.gated):
            self._newcomers.follow(self._frames.paths, self.scout.called)

    def _check(self, module: nn.Module, table: Table) -> list[Site]:
        """Compare the calls of a forward pass with those traced; trace the next one if they differ.

        A place that serves several sites is met by the order of its calls: if their number is another, what was seen
        of these sites cannot be trusted.
        """
        suspect: list[Site] = []
        taken = self._express.shut(beside=bool(self._met))
        if taken is None:
            if not self.compiled.used:
                self._frames.whole(self._tapped)
            return suspect
        for place, taps in table.taps.items():
            met = self._met.get(place, 0) + taken.get(place, 0)
            if met == len(taps) or place in table.elastic or place in table.told:
                continue
            one = len({tap.site.name for tap in taps}) == 1
            if not met:
                self._frames.stale |= self._frames.changed()
                self._ways.astray()
            elif met > len(taps) or not one:
                if one:  # called more often than it was: trace until both ways were met
                    self._unknown = True
                    self._ways.astray()
                table.dynamic |= not one
                suspect += [tap.site for tap in taps]
        for _, place, _ in self._handed.values():
            if isinstance(place, Output) and self._sink.thorough:  # no activation took it
                self.scout.distrust(place)
                suspect += [tap.site for tap in table.taps[place]]
                self._unknown = True
        self._handed.clear()
        if self._unknown:
            self._ways.doubt(module)
        return suspect

    # -- activations ---------------------------------------------------------------------------------------------

    def _tap(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """An activation module is about to run."""
        if self._frames.resting and self._outer is None:
            self._part_runs()
        if self._live or self._sink.thorough:
            z = args[0] if args else None
            if not isinstance(z, torch.Tensor):
                z = next(tensors_in((args, kwargs)), None)
            if z is not None:
                self._hand_over(module, z)

    def _made(self, module: nn.Module, args: Any, out: Any) -> None:
        """A layer whose output is a pre-activation has run."""
        if self._frames.resting and self._outer is None:
            self._part_runs()
        if (self._live or self._sink.thorough) and isinstance(out, torch.Tensor):
            place = Output(module)
            if self._table is not None and place in self._table.taps:
                self._hand_over(place, out)

    def _part_runs(self) -> None:
        """Something is looked at outside of a forward pass that is followed: if a part of the model runs, follow parts.

        What it has reached until now is missed, but not that it runs: steps are numbered by forward passes.
        """
        part = None if in_backward() or in_transform() else self._frames.running()
        if part is None or not self._counts(part):
            return
        self._frames.part()
        self._sink.begin_forward(None, self._model, None, {})
        self._sink.end_forward(())

    def _hand_over(self, place: Place, z: torch.Tensor) -> None:
        if self._pushed is not None:
            self._handed[id(z)] = (weakref.ref(z), place, _version(z))
        with torch._C.DisableTorchFunction():  # our own arithmetic need not pass through any mode
            self._meet(place, z)

    def _function(self, kind: Kind, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        z = next(tensors_in((args, kwargs)), None)
        if z is None or not self._stack or refined(kind, Arguments(args, kwargs)) is None:
            return
        held = self._handed.get(id(z))
        if held is not None and held[0]() is z and held[2] == _version(z):  # a hook has met it
            del self._handed[id(z)]
            return
        self._meet((self._frames.paths[self._stack[-1]], name), z)

    def _meet(self, place: Place, z: torch.Tensor) -> None:
        if in_backward():
            if self._sink.thorough:
                self._replay(place, z)
            return
        if not self._live or self._table is None:
            return
        taps = self._table.taps.get(place)
        if taps is None:
            self._strayed()
            return
        number = self._met.get(place, 0) + self._express.spill(place)
        self._met[place] = number + 1
        if not z.numel():
            return
        tap = self._table.tap(place, number, z)
        if tap is None:  # all that is known here can be told by its mark: of which number it is does not matter
            self._met[place] = number
            self._strayed()
            return
        if self.compiled.shadowing and tap.site.name in self.compiled.unseen:  # in no other step either
            return
        known = len(tap.plans)
        plan = tap.plan(z.shape, self._batch)
        if len(tap.plans) != known:
            self._express.forget()
        if plan is None:
            self._table.dynamic = True
            return
        self._sink.observe(tap.site, tap.kind, z, plan)

    def _strayed(self) -> None:
        """The forward pass that runs goes another way than those that were traced."""
        if self._live and self._counted is not None and not in_backward():
            self._express.doubt()
            self._ways.lost(self._counted)

    def _replay(self, place: Place, z: torch.Tensor) -> None:
        """A checkpointed block runs again in backward: its gradients belong to sites that are met once only."""
        for table in self._ways.tables.values():
            taps = table.taps.get(place, ())
            if taps and len({tap.site.name for tap in taps}) == 1:
                plan = taps[0].plan(z.shape, self._batch)
                if plan is not None:
                    self._sink.observe_replay(taps[0].site, z, plan)
                return


def _version(z: torch.Tensor) -> int:
    """Return how often z was written; -1 where nobody counts."""
    return -1 if z.is_inference() else z._version
