"""Monitor: which units die in training, at which update, and why."""

from __future__ import annotations

import logging
import os
import traceback
import warnings
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.optim import Optimizer

from .chronicle import Chronicle
from .deaths import Death, Event
from .drift import Drift
from .errors import DeadReluWarning, ModelError, TrainingStopped
from .guards import Guarded
from .kernels import Plan, engaged_count
from .kinds import Kind
from .replays import Replays
from .report import Coverage, Report
from .sites import Site
from .snapshots import FIRST, Snapshots
from .status import training_confidence, training_report
from .summaries import Summary
from .taps import Taps
from .tracing import Layout, unwrapped
from .windows import Window

if TYPE_CHECKING:
    from .record.writer import RecordWriter

log = logging.getLogger("deadrelu")

Patterns = Iterable[str] | str | None
StopWhen = float | Callable[["Monitor"], bool]


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
        on_event: called with each `Event` as it is found.
        stop_when: a dead fraction in 0..1 above which, or a function of the monitor with which, training is ended by
            `TrainingStopped`.
        count_eval: also count forward passes in eval mode or without gradients.
        strict: raise what goes wrong inside of the monitor, instead of detaching with a warning.
        include, exclude: patterns (`fnmatch`) of site names.
        batch_dim: the dimension of the inputs that holds the samples.
        snapshot_memory: bytes for the parameters before and after some updates, and their inputs, which `safe_lr` is
            found on: updates are done again at lower rates, on a copy of the model. 0: none are kept.

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
        on_event: Callable[[Event], Any] | None = None,
        stop_when: StopWhen | None = None,
        count_eval: bool = False,
        strict: bool = False,
        include: Patterns = None,
        exclude: Patterns = None,
        batch_dim: int = 0,
        snapshot_memory: int = 64 * 2**20,
    ) -> None:
        if not _observable(model):
            raise ModelError(f"model is a {type(model).__name__}; expected a torch.nn.Module that runs in Python")
        if every < 1 or window < 2:
            raise ModelError(f"every is {every} and window is {window}; expected at least 1 and 2")
        self._record = None if log_dir is None and writer is None else _recorder(log_dir, writer)
        inner = unwrapped(model)
        self.attached = True
        self.steps = 0
        self._optimizers = _listed(optimizer)
        self._every, self._length = every, window
        self._on_event, self._stop_when, self.strict = on_event, stop_when, strict
        self._window = Window(-(-window // every))
        self._drift = Drift(inner, self._optimizers)
        self._chronicle = Chronicle(self._window, self._drift, every)
        self._samples = self._batch = 0
        self.observing = self.thorough = False
        self._open = self._updated = self._early = self._warned = False
        self._gradients: list[Any] = []
        patterns = {"include": include, "exclude": exclude}
        self._snapshots = Snapshots(inner, self._drift.groups.places, snapshot_memory if every == 1 else 0)
        self._replays = Replays(inner, self._snapshots, batch_dim=batch_dim, **patterns)
        self._taps = Taps(inner, self, self._guarded, batch_dim=batch_dim, count_eval=count_eval, **patterns)
        self._hooks = [o.register_step_post_hook(self._guarded(self._after_update)) for o in self._optimizers]
        if self._snapshots.refused is None:
            self._hooks += [o.register_step_pre_hook(self._guarded(self._before_update)) for o in self._optimizers]
        self._taps.attach()

    # -- what a user asks ----------------------------------------------------------------------------------------

    @property
    def deaths(self) -> list[Death]:
        """Every confirmed death so far, in order of confirmation."""
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
        chronicle, scout = self._chronicle, self._taps.scout
        sites = tuple(
            training_report(
                slot.site,
                chronicle.counts[slot.site.name],
                samples=chronicle.samples(slot),
                dead=chronicle.lives.dead[slot.units],
                quiet=chronicle.quiet[slot.units],
            )
            for slot in slots
            if slot.site.name in chronicle.counts
        )
        return Report(
            mode="training",
            evidence="statistical",
            samples=self._samples,
            sites=sites,
            coverage=Coverage(
                sites=len(sites),
                uncalled=tuple(scout.uncalled) if sites else (),
                unsupported=tuple(scout.unsupported.items()),
                merged=tuple((s.site.name, s.site.calls) for s in slots if s.site.calls > 1),
                batch_lost=tuple(s.site.name for s in slots if s.site.batch_lost),
            ),
            confidence=training_confidence(sites, chronicle.shortest_silence()),
            deaths=tuple(death.to_dict() for death in self.deaths),
            events=tuple(event.to_dict() for event in self.events),
        )

    def step(self) -> None:
        """End a step; only for training without an optimizer that the monitor knows."""
        self._guarded(self._end_update)()

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs to continue this record, as tensors and plain values.

        What moved the margins is not kept: the causes of deaths that were under way begin anew.
        """
        self._look_now()
        return {"steps": self.steps, "samples": self._samples, **self._chronicle.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue the record that `state_dict` told of. Call it before the first step.

        Raises:
            ModelError: steps were seen already.
        """
        if self.steps or self._open:
            raise ModelError(f"{self.steps} steps were seen already; load the state of a monitor before its first step")
        self.steps, self._samples = int(state["steps"]), int(state["samples"])
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

    # -- what the taps tell --------------------------------------------------------------------------------------

    def begin_forward(self, rows: int | None, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """A forward pass of this outermost module that counts begins."""
        if self._updated:
            self._end_step()
        if not self._open:
            self._open = True
            self.observing = self.steps % self._every == 0
            if self.observing:
                self.thorough = len(self._window) % self._stride == 0
                self._window.begin_step(self.steps)
                self._taps.waiting_for_gradients = self.thorough
                if self.thorough:
                    self._drift.arm(rows)
            if self._snapshots.refused is None:
                self._snapshots.begin_forward(module, args, kwargs, self.thorough or self.steps < FIRST)
                if self._early or not self._optimizers:
                    self._snapshots.before_update(self.steps, self._drift.groups.present(), self.thorough)
        self._batch = 1 if rows is None else rows

    @property
    def _stride(self) -> int:
        return max(1, -(-self._length // self._every) // 5)

    def found(self, site: Site, layout: Layout, nearest: str | None) -> None:
        """A traced forward pass met a site."""
        self._drift.follow(site, layout, nearest, self.thorough)
        upstream = frozenset().union(*(self._taps.scout.upstream.get(p, frozenset()) for p in site.producers))
        self._chronicle.coroner.upstream.setdefault(site.name, upstream)

    def ran(self, path: str, module: nn.Module, x: Any, out: Any) -> None:
        """A layer ran in a traced forward pass."""
        if self.thorough:
            self._drift.remember(path, module, x, out)

    def observe(self, site: Site, kind: Kind, z: torch.Tensor, plan: Plan) -> None:
        """An activation is about to run on z."""
        if not self.observing:
            return
        plain = z.detach()
        slot = self._window.slots.get(site.name) or self._window.slot(site, plain)
        self._window.observe(slot, kind, plain, plan)
        if self.thorough:
            counts = engaged_count(plain, kind, plan)
            slot.counter.add(counts, slot.rows[len(self._window) - 1][-site.units :], plan)
            self._drift.take(site, plain, counts.sum(0), len(counts) * plan.position_count, self.steps)
            self._measure_gradient(site, z, plan)

    def observe_replay(self, site: Site, z: torch.Tensor, plan: Plan) -> None:
        """A checkpointed block runs again in backward: its gradients are measured there."""
        self._measure_gradient(site, z, plan)

    def _measure_gradient(self, site: Site, z: torch.Tensor, plan: Plan) -> None:
        if z.requires_grad and site.name in self._window.slots:
            counter = self._window.slots[site.name].counter
            note = self._guarded(lambda g: counter.observe_gradient(g, plan, quick=True))
            # A hook that returns None leaves the gradient as it is.
            self._gradients.append(z.register_hook(note))  # type: ignore[no-untyped-call]

    def end_forward(self, suspect: Iterable[Site]) -> None:
        """A forward pass that counts has ended."""
        ran = self._window.end_forward() if self.observing else ()
        if ran or not self.observing:  # a metric beside the model is a module, too
            self._samples += self._batch
        for site in suspect:
            if site.name in self._window.slots and self.observing:
                self._window.distrust(self._window.slots[site.name])
        if self.thorough:
            for slot in ran:
                slot.counter.end_forward()
            self._drift.disarm()

    # -- steps and windows ---------------------------------------------------------------------------------------

    def _before_update(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        if self._open:
            self._snapshots.before_update(self.steps, self._drift.groups.present(), self.thorough)
        else:  # the forward pass comes in the closure that the optimizer was given
            self._early = True

    def _after_update(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        self._taps.recover()
        self._drift.groups.after_update(optimizer, wait=self.thorough)
        self._end_update()

    def _end_update(self) -> None:
        if not self._open:
            if not self._updated:
                self._nothing_seen()
            return
        self._updated = True
        # With several optimizers the next forward pass tells that the last of them is through.
        if len(self._optimizers) < 2:
            self._end_step()

    def _end_step(self) -> None:
        self._snapshots.after_update()
        if self.observing:
            if self.thorough:
                self._drift.after_update()
                self._chronicle.note_rates(self.steps)
                for handle in self._gradients:
                    handle.remove()
                self._gradients.clear()
            self._window.end_step()
        self._taps.waiting_for_gradients = self.thorough = self.observing = False
        self.steps += 1
        self._open = self._updated = self._early = False
        if self.steps % self._length == 0:
            self._look()

    def _nothing_seen(self) -> None:
        if not self._warned:
            self._warned = True
            self._warn(
                "an update came without a forward pass that counts; expected one in training mode with gradients: "
                "pass the model that is called, and construct the monitor before a compiled model is first called"
            )

    def _look(self) -> None:
        if not len(self._window):
            return
        events = self._chronicle.look(self._explain)
        if self._record is not None:
            self._write()
        for event in events:
            log.warning("%s", str(event))  # now, so that nothing can go wrong inside of a handler
            if self._on_event is not None:
                self._on_event(event)
        self._maybe_stop()

    def _write(self, *, end: bool = False) -> None:
        """Write the window to the record, or the end of it. A disk that fails ends the record, not the monitor."""
        assert self._record is not None
        try:
            summary = self.last_window
            if end:
                self._record.finish(self.report())
            elif summary is not None:
                self._record.write(summary, self._samples)
        except Exception as error:
            self._record = None
            if self.strict:
                raise
            self._warn(f"the record cannot be written any more, training goes on: {type(error).__name__}: {error}")

    def _explain(self, died: list[Death]) -> None:
        self._replays.explain(died, self.steps, self._chronicle.coroner.own)
        self._snapshots.want(self._chronicle.last_firings())

    def _look_now(self) -> None:
        """Look before the window is full; not between two micro-batches, whose step is not over."""
        if not self._open:
            stop_when, self._stop_when = self._stop_when, None
            self._guarded(self._look)()
            self._stop_when = stop_when

    def _maybe_stop(self) -> None:
        if callable(self._stop_when):
            if self._stop_when(self):
                raise TrainingStopped(f"stop_when came true at step {self.steps}: {len(self.deaths)} deaths so far")
        elif self._stop_when is not None:
            fraction = self.dead_fraction
            if fraction is not None and fraction > self._stop_when:
                raise TrainingStopped(
                    f"{fraction:.1%} of the units are dead at step {self.steps}, more than stop_when={self._stop_when}"
                )

    def _finish(self) -> None:
        if self._updated:
            self._end_step()
        self._stop_when = None
        self._look()
        if self._record is not None:
            self._write(end=True)

    # -- safety --------------------------------------------------------------------------------------------------

    def _guarded(self, function: Callable[..., Any]) -> Guarded:
        return Guarded(self, function)

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
        for handle in (*self._hooks, *self._gradients):
            handle.remove()
        self._hooks, self._gradients = [], []
        self._drift.disarm()
        if self._record is not None:
            record, self._record = self._record, None
            record.close()
        self._snapshots.close()
        self._replays.close()
        self._taps.detach()


def _recorder(log_dir: str | os.PathLike[str] | None, writer: Any) -> RecordWriter:
    """Return the writer of a record; what it is written with is loaded now, and not for those who write none."""
    from .record.writer import RecordWriter

    return RecordWriter(log_dir, writer)


def _observable(model: Any) -> bool:
    return isinstance(model, nn.Module) and not isinstance(unwrapped(model), torch.jit.ScriptModule)


def _listed(optimizer: Optimizer | Iterable[Optimizer] | None) -> list[Optimizer]:
    if optimizer is None:
        return []
    return list(optimizer) if isinstance(optimizer, Iterable) else [optimizer]
