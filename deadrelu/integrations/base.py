"""What the callbacks share: a Monitor that lives from the start of a training to its end."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Any

from torch import nn
from torch.optim import Optimizer

from ..deaths import Death, Event
from ..errors import InputError
from ..monitor import Monitor
from ..report import Report
from ..stops import Rule

if TYPE_CHECKING:
    from typing_extensions import Self

log = logging.getLogger("deadrelu")


class MonitorCallback:
    """Holds a Monitor for a trainer; what was found stays there after the training.

    Used as a context manager it also removes the hooks of a training that an exception ended.

    Args:
        options: those of `Monitor`. `stop_when` asks the trainer to stop after the batch that is under way, and raises
            nothing.

    Attributes:
        monitor: the monitor of the training that began last, None before the first.
    """

    def __init__(self, **options: Any) -> None:
        inspect.signature(Monitor).bind(None, None, **options)  # a misspelled option is told of now, not at the start
        self.monitor: Monitor | None = None
        self._stop_when: Rule | None = options.pop("stop_when", None)
        self._options = options
        self._stopping = False

    @property
    def deaths(self) -> list[Death]:
        """Every confirmed death so far, in order of confirmation."""
        return [] if self.monitor is None else self.monitor.deaths

    @property
    def events(self) -> list[Event]:
        """Deaths, revivals and risks so far, grouped."""
        return [] if self.monitor is None else self.monitor.events

    def report(self) -> Report:
        """Return what was found so far.

        Raises:
            InputError: no training has begun.
        """
        if self.monitor is None:
            raise InputError("there is nothing to report yet: hand the callback to a trainer and train first")
        return self.monitor.report()

    def close(self) -> None:
        """Look at what was observed last, and remove every hook. A second call does nothing."""
        if self.monitor is not None:
            self.monitor.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _attach(self, model: nn.Module, optimizers: Iterable[Optimizer]) -> Monitor:
        """Begin a new record; a training that was left without an end is closed first."""
        self.close()
        self._stopping = False
        stop_when = None if self._stop_when is None else self._came_true
        self.monitor = Monitor(model, optimizers, stop_when=stop_when, **self._options)
        return self.monitor

    def _came_true(self, monitor: Monitor) -> bool:
        """Note that the training is to end: TrainingStopped would cross the trainer, which ends in ways of its own."""
        fraction = monitor.dead_fraction
        if callable(self._stop_when):
            met = self._stop_when(monitor)
        else:
            met = fraction is not None and self._stop_when is not None and fraction > self._stop_when
        if met and not self._stopping:
            self._stopping = True
            share = "" if fraction is None else f", {fraction:.1%} of the units are dead"
            log.warning("stop_when came true at step %d%s: the training is asked to end", monitor.steps, share)
        return False
