"""Monitor: which units die in training, at which update, and why."""

from __future__ import annotations

import logging
import math
import os
import traceback
import warnings
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from .calls import in_capture
from .chronicle import Chronicle
from .deaths import Death, Event
from .drift import Drift
from .edits import Edits
from .errors import DeadReluWarning, ModelError, TrainingStopped
from .guards import Guarded, Timed
from .kernels import prepare
from .meter import Meter
from .notices import Notices
from .recording import Recording
from .replays import Replays
from .report import Coverage, Report
from .schedule import Schedule
from .snapshots import Snapshots
from .status import training_confidence, training_report
from .stepper import IDLE, Stepper
from .stops import Rule, reason_to_stop
from .summaries import Summary
from .taps import Taps
from .tracing import unwrapped
from .windows import Window

_LONG = 500
"""Steps after which compiled kernels are worth having, however small the layers are."""
log = logging.getLogger("deadrelu")

Patterns = Iterable[str] | str | None


class Monitor:
    """Watches a model while it trains, without changing the training.

    ```python
    with deadrelu.Monitor(model, optimizer) as monitor:
        train(...)
    print(monitor.report())
    ```

    It attaches at construction. Each call of `optimizer.step()` ends a step; without an optimizer, call `step()` after
    each update. Forward passes count if the outermost module was entered in training mode with gradients enabled:
    validation does not. Whether a unit fired is seen at every step; activation rates, gradients and what moved the
    margin of z are measured on a fixed schedule inside of each window.

    Args:
        model: the model, wrapped or not.
        optimizer: the optimizer or optimizers that train it.
        log_dir: a folder for the record of the run, which TensorBoard and `deadrelu report` read.
        writer: the SummaryWriter of the training, for the record to go into instead. Without either none is written.
        every: observe every that many steps; deaths are dated that coarsely.
        window: steps between two looks at what was observed.
        max_overhead: the part of the training's time that may be taken, such as 0.02: fewer steps are observed where it
            takes that. `resolution` says how many, every death how coarsely it is dated; no update is replayed, and the
            samples of a report are those of the steps that were followed.
        on_event: called with each `Event` as it is found.
        stop_when: a dead fraction in 0..1 above which, or a function of the monitor with which, training is ended by
            `TrainingStopped`.
        count_eval: also count forward passes in eval mode or without gradients.
        strict: raise what goes wrong inside of the monitor, instead of detaching with a warning.
        include, exclude: patterns (`fnmatch`) of site names.
        batch_dim: the dimension of the inputs that holds the samples.
        snapshot_memory: bytes for the parameters before and after some updates, and their inputs, which `safe_lr` is
            found on: updates are done again at lower rates, on a copy of the model. 0: none are kept.
        example: a batch as the model is called with, a tensor, or a tuple or dict of inputs: its sites are then found
            at once. Only of use for a model that is compiled after this, whose code is else compiled once more.

    Raises:
        ModelError: the model is no module, or is TorchScript.
        InputError: the record cannot be written there.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer | Iterable[Optimizer] | None = None,
        *,
        log_dir: str | os.PathLike[str] | None = None,
        writer: Any = None,
        every: int = 1,
        window: int = 50,
        max_overhead: float | None = None,
        on_event: Callable[[Event], Any] | None = None,
        stop_when: Rule | None = None,
        count_eval: bool = False,
        strict: bool = False,
        include: Patterns = None,
        exclude: Patterns = None,
        batch_dim: int = 0,
        snapshot_memory: int = 64 * 2**20,
        example: Any = None,
    ) -> None:
        if not _observable(model):
            raise ModelError(f"model is a {type(model).__name__}; expected a torch.nn.Module that runs in Python")
        if every < 1 or window < 2:
            raise ModelError(f"every is {every} and window is {window}; expected at least 1 and 2")
        if max_overhead is not None and not 0 < max_overhead < math.inf:
            raise ModelError(f"max_overhead is {max_overhead}; expected a part of the time above 0, such as 0.02")
        self._recording = Recording(log_dir, writer, strict=strict, warn=self._warn)
        inner = unwrapped(model)
        self.attached = True
        self.strict = strict
        self._on_event, self._stop_when = on_event, stop_when
        self._notices = Notices(self._warn)
        self._looked = self._ended = 0
        optimizers = _listed(optimizer)
        self._schedule = Schedule(every=every, length=window, bound=max_overhead)
        self._meter = None if max_overhead is None else Meter()
        held, drift = Window(self._schedule.room), Drift(inner, optimizers, self._guarded)
        patterns = {"include": include, "exclude": exclude}
        self._snapshots = Snapshots(inner, drift.groups.places, snapshot_memory if every == 1 else 0)
        self._edits = Edits(inner.named_parameters())
        self._stepper = Stepper(
            held,
            drift,
            self._snapshots,
            self._edits,
            self._schedule,
            optimizers,
            guard=self._guarded,
            full=self._full,
            arrived=self._look,
            idle=lambda: self._notices.not_updated(f"{IDLE} forward passes"),
            unseen=self._nothing_seen,
            unmet=self._nothing_met,
            meter=self._meter,
            rest=None if self._meter is None else lambda: self._taps.rest(),
            wake=None if self._meter is None else lambda: self._taps.wake(),
        )
        self._taps = Taps(inner, self._stepper, self._guarded, batch_dim=batch_dim, count_eval=count_eval, **patterns)
        self._window, self._drift = held, drift
        self._chronicle = Chronicle(held, drift, self._edits, self._taps.scout.upstream, self._schedule)
        self._replays = Replays(inner, self._snapshots, batch_dim=batch_dim, **patterns)
        self._hooks = [o.register_step_post_hook(self._guarded(self._after_update)) for o in optimizers]
        self._hooks += [o.register_step_pre_hook(self._guarded(self._before_update)) for o in optimizers]
        self._taps.attach(model)
        if example is not None:
            args, kwargs = _called_with(example)
            self._guarded(self._taps.compiled.trace)(inner, args, kwargs)

    # -- what a user asks ----------------------------------------------------------------------------------------

    @property
    def steps(self) -> int:
        """Steps that have ended."""
        return self._stepper.number

    @property
    def resolution(self) -> int:
        """Steps between two that are observed, at present: 1, but for `every` and `max_overhead`."""
        return self._schedule.every

    @property
    def deaths(self) -> list[Death]:
        """Every confirmed death so far, in order of confirmation; windows on a GPU are looked at a few steps later."""
        return self._chronicle.deaths

    @property
    def events(self) -> list[Event]:
        """Deaths and revivals so far, grouped."""
        return self._chronicle.events

    @property
    def dead_fraction(self) -> float | None:
        """Units that are dead now / units of kinds that can die; None before the first window."""
        return self._chronicle.dead_fraction()

    @property
    def last_window(self) -> Summary | None:
        """What the last window tells of every site, None before the first."""
        return self._chronicle.summary(self._snapshots.newest)

    def report(self) -> Report:
        """Return what was found so far, as a `Report` in mode `training`."""
        self._look_now()
        slots = list(self._window.slots.values())
        chronicle, scout, parts = self._chronicle, self._taps.scout, self._taps.parts
        inner = tuple(f"{path}." for path in parts)
        sites = tuple(
            training_report(
                slot.site,
                chronicle.counts[slot.site.name],
                samples=chronicle.samples(slot),
                dead=chronicle.lives.dead[slot.units],
                quiet=chronicle.quiet[slot.units],
            )
            for slot in slots
            if slot.site.name in chronicle.counts and slot.site.name not in self._taps.compiled.unseen
        )
        return Report(
            mode="training",
            evidence="statistical",
            samples=self._stepper.samples,
            sites=sites,
            coverage=Coverage(
                sites=len(sites),
                uncalled=tuple(p for p in scout.uncalled if not p.startswith(inner)) if sites else (),
                unsupported=tuple({**scout.unsupported, **parts, **self._taps.compiled.unseen}.items()),
                merged=tuple((s.site.name, s.site.calls) for s in slots if s.site.calls > 1),
                batch_lost=tuple(s.site.name for s in slots if s.site.batch_lost),
            ),
            confidence=training_confidence(sites, chronicle.shortest_silence()),
            deaths=tuple(death.to_dict() for death in self.deaths),
            events=tuple(event.to_dict() for event in self.events),
        )

    def step(self) -> None:
        """End a step; only for training without an optimizer that the monitor knows."""
        self._guarded(self._step)()

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs to continue this record, as tensors and plain values.

        What moved the margins is not kept: the causes of deaths that were under way begin anew.
        """
        self._look_now()
        held = {"steps": self.steps, "samples": self._stepper.samples, "grids": self._schedule.state()}
        return {**held, **self._chronicle.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue the record that `state_dict` told of. Call it before the first step.

        Raises:
            ModelError: steps were seen already.
        """
        if self.steps or self._stepper.open:
            raise ModelError(f"{self.steps} steps were seen already; load the state of a monitor before its first step")
        self._stepper.number, self._stepper.samples = int(state["steps"]), int(state["samples"])
        self._schedule.resume(self.steps, state.get("grids", []))
        self._chronicle.load_state_dict(state)

    def close(self) -> None:
        """Look at what was observed last, and remove every hook. A second call does nothing."""
        if self.attached:
            self._guarded(self._finish)()
        self.detach()

    def __enter__(self) -> Monitor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # -- steps and windows ---------------------------------------------------------------------------------------

    def _before_update(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        if in_capture():
            return
        self._taps.compiled.collect()
        self._stepper.before_update()

    def _after_update(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        if in_capture():
            self._nothing_seen()
            return
        self._updated()
        self._stepper.after_update(optimizer)

    def _step(self) -> None:
        self._updated()
        self._stepper.end_update()

    def _updated(self) -> None:
        self._taps.recover()
        self._taps.compiled.collect()
        if not (self._stepper.open or self._stepper.resting):
            self._nothing_seen()

    def _nothing_seen(self) -> None:
        self._notices.unseen(unhooked=self._taps.compiled.unhooked)

    def _nothing_met(self) -> None:
        if self._taps.scout.uncalled:
            self._notices.unmet(self._taps.scout.uncalled[0])

    def _full(self) -> bool:
        """A window ends; returns whether it has been looked at."""
        self._adapt()
        self._ended = self.steps
        near = self._chronicle.close(self._snapshots.newest, recorded=self._recording.on)
        if near:
            self._look()
        return near

    def _look(self) -> None:
        """What the last window left is on the host."""
        events = self._chronicle.look(self._explain)
        several = any(len(event.units) > 1 and event.kind != "revival" for event in events)
        self._schedule.end_window(self._ended, self._chronicle.kick, several or self._chronicle.sinks)
        if self.steps >= _LONG and any(slot.ring[0].type == "cpu" for slot in self._window.slots.values()):
            prepare()
        self._recording.window(lambda: self.last_window, self._stepper.samples)
        for event in events:
            log.warning("%s", str(event))  # now, so that nothing can go wrong inside of a handler
            if self._on_event is not None:
                self._on_event(event)
        reason = reason_to_stop(self._stop_when, self)
        if reason is not None:
            raise TrainingStopped(reason)

    def _adapt(self) -> None:
        """Observe as many steps as `max_overhead` allows, from the second window on: the first traces the model."""
        if self._meter is None:
            return
        since, self._looked = self._looked, self.steps
        self._meter.device = next((slot.ring[0] for slot in self._window.slots.values()), None)
        share = self._meter.read(self.steps - since)
        if since and self._schedule.adapt(self.steps, share):
            every = self._schedule.every
            log.info("from step %d on one step in %d is observed, and deaths are dated so", self.steps, every)
            if every > 1:
                self._snapshots.close()
                self._snapshots.refused = "not every step is observed"

    def _explain(self, died: list[Death]) -> None:
        self._replays.explain(died, self.steps, self._chronicle.coroner.own)
        self._snapshots.want(self._chronicle.last_firings())

    def _look_now(self) -> None:
        """Look before the window is full; not between two micro-batches, whose step is not over."""
        stop_when, self._stop_when = self._stop_when, None
        self._guarded(self._look_at_all)()
        self._stop_when = stop_when

    def _look_at_all(self) -> None:
        if not self._stepper.open:
            self._stepper.look()
        self._stepper.settle()

    def _finish(self) -> None:
        if self._stepper.updated:
            self._stepper.end_step()
        self._stop_when = None
        if not self.steps and self._taps.compiled.state.passed >= 0:
            self._notices.not_updated("forward passes")
        self._stepper.look()
        self._stepper.settle()
        self._recording.end(self.report)

    # -- safety --------------------------------------------------------------------------------------------------

    def _guarded(self, function: Callable[..., Any]) -> Guarded:
        return Guarded(self, function) if self._meter is None else Timed(self, function, self._meter)

    def failed(self, error: Exception) -> None:
        """Something of the monitor's went wrong: detach, say so, let the training go on."""
        self.detach()
        where = traceback.extract_tb(error.__traceback__)[-1]
        self._warn(
            f"the monitor failed and has detached itself, training goes on: {type(error).__name__}: {error} "
            f"({where.name}, line {where.lineno}); please report it, strict=True raises it"
        )

    def _warn(self, message: str) -> None:
        log.warning("%s", message)
        warnings.warn(message, DeadReluWarning, stacklevel=4)

    def detach(self) -> None:
        """Remove every hook, now or when the forward pass under way ends."""
        self.attached = False
        for handle in self._hooks:
            handle.remove()
        self._hooks = []
        self._stepper.let_go()
        self._drift.disarm()
        self._recording.close()
        self._snapshots.close()
        self._edits.close()
        self._replays.close()
        self._taps.detach()


def _observable(model: Any) -> bool:
    return isinstance(model, nn.Module) and not isinstance(unwrapped(model), torch.jit.ScriptModule)


def _listed(optimizer: Optimizer | Iterable[Optimizer] | None) -> list[Optimizer]:
    if optimizer is None:
        return []
    return list(optimizer) if isinstance(optimizer, Iterable) else [optimizer]


def _called_with(example: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if isinstance(example, dict):
        return (), example
    return (tuple(example) if isinstance(example, (tuple, list)) else (example,)), {}
