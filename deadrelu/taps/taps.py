"""Taps: hooks on a model in training that hand over every pre-activation of the forward passes that count."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from ..batches import tensors_in
from ..calls import in_backward, in_capture, in_transform
from .calling import Calling
from .compiled import Compiled
from .express import Express
from .frames import Frames
from .meeting import Meeting
from .newcomers import Newcomers
from .placed import Placed
from .scout import Scout
from .table import Guard, Output, Place, Sink, Table
from .ways import Ways, drawn

_CHECKED = 4
"""Captured steps from one to the next in which all torch functions are looked at, for activations that are new."""
_CAREFUL, _DRAWN = 16, 128
"""Forward passes to one in which it is asked closely what made each pre-activation, and to one that is drawn for all
torch functions: captured steps come in rhythms, and a model may have its own."""


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
        self._meeting = Meeting(
            sink, self._frames, self._ways, self._express, self.scout, self.compiled, beside=self._beside
        )
        self._calling = Calling(lambda: self.compiled.state.blind, self._meeting.function, guard)
        self._newcomers = Newcomers(guard(self._meeting.strayed))
        self._leaves = guard(self._leave)
        # The forward pass that runs: its outermost module, how often that called itself, and whether it is traced.
        self._outer: nn.Module | None = None
        self._again = 0
        self._scouting = False
        self._captures = 0
        self._pushed: TorchFunctionMode | None = None

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
        self._meeting.live = False
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
            self._outer = None
            self._scouting = self.compiled.state.eager = False
            self._meeting.interrupt()
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
        if module is self._outer and not (
            self._meeting.counted is None or self._counts(module) or self.compiled.shadowing
        ):
            self.recover()  # an interrupt has ended the pass that was under way, and this is another one
        if self._outer is None:
            self._outer = module
            self.compiled.state.eager = True
            self._begin(module, args, kwargs)
            return
        self._again += module is self._outer
        if self._meeting.closely:
            self._meeting.stack.append(module)

    def _begin(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        shadow = self.compiled.shadowing
        if in_backward() or not (shadow or self._count_eval or (module.training and torch.is_grad_enabled())):
            return
        if in_transform():
            return
        if in_capture():
            self._sink.unseen()
            return
        batch = self._rows(args, kwargs)
        if module is not self._model:
            self._frames.part()
        self._meeting.begin(module, batch)
        if not shadow:
            self._ways.passes += 1
            self._sink.begin_forward(batch, module, args, kwargs)
        if batch == 0:  # a step like any other, in which there is nothing to see
            return
        if self._frames.stale or (self._sink.thorough and self._frames.changed()):
            self._renew()
        table = self._ways.of(module)
        if table is None or table.dynamic:
            self._scouting = True
            self.scout.attach(m for m in self._frames.paths if m is not module)
            self.scout.begin(tensors_in((args, kwargs)), self._batch_dim, batch)
            self.scout._enter_module(module, args, kwargs)
            self._push(self.scout)
            return
        if self._gone or not self._sink.observing:
            return
        self._captures += self._sink.thorough
        checked = self._sink.thorough and self._captures % _CHECKED == 1
        closely = checked or table.functional or drawn(self._ways.passes, _DRAWN)
        careful = drawn(self._ways.passes, _CAREFUL)
        self._meeting.open(table, closely=closely, careful=careful)
        if closely:
            self._meeting.stack.append(module)
            self._push(self._calling)
        else:
            self._express.open(module, table, batch, careful=careful)

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
            self._outer = self._meeting.counted = None
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
                if self._meeting.counted is not None:
                    self._end(module, out)
                return
        if self._meeting.closely:
            stack = self._meeting.stack
            while stack and stack.pop() is not module:
                pass

    def _end(self, module: nn.Module, out: Any) -> None:
        self._pop()
        suspect = self._meeting.end(self._tapped)
        if self._scouting:
            self._scouting = False
            self.scout._leave_module(module, None, out)
            table = self.scout.table()
            self.scout.end()
            self.scout.detach()
            self._learn(module, table)
        if not self.compiled.shadowing:
            self._sink.end_forward(suspect)

    def _learn(self, module: nn.Module, table: Table) -> None:
        """Place the taps that the traced forward pass of `module` asks for."""
        follows = not (self.compiled.used or self.compiled.gated)
        came = follows and self._newcomers.follow(self._frames.paths, self.scout.called)
        self._ways.learn(module, table, explained=came)
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
                hook = self._express.before(place, self._guard(self._meeting.tap))
                self.placed.put(place.register_forward_pre_hook, hook, with_kwargs=True)  # behind those that change z
            elif isinstance(place, Output):
                self._tapped.add(place)
                self.placed.put(
                    place.layer.register_forward_hook, self._express.after(place, self._guard(self._meeting.made))
                )
            elif (target := by_path.get(place[0])) is not None:
                self._frames.follow(target)
        if self.compiled.shadowing:
            self.compiled.learn(table)

    def _beside(self) -> None:
        """Something is looked at: if that is in no pass that is followed, and a part of the model runs, follow parts.

        What it has reached until now is missed, but not that it runs: steps are numbered by forward passes.
        """
        if self._outer is not None or not self._frames.resting:
            return
        part = None if in_backward() or in_transform() else self._frames.running()
        if part is None or not self._counts(part):
            return
        self._frames.part()
        self._sink.begin_forward(None, self._model, None, {})
        self._sink.end_forward(())
