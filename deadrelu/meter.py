"""Meter: how much of a training's time the monitor takes, by clocks that can be read at its own calls.

On a CPU what a call of the monitor's takes is its cost. On a CUDA device its kernels run later: events in the stream
tell how long the device was busy between the first and the last of a call. Those that it has not come to when they are
to be read are left for the next time: nobody waits.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch

BESIDE = 1.5
"""What a call costs, over what passes inside of it: hooks are dispatched, and caches filled. By whole steps, measured
with and without Monitor (benchmarks/monitor_overhead.py)."""


class Meter:
    """Adds up the seconds of the monitor's own calls, and of the steps without them.

    Attributes:
        steps: steps measured since `read`.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self.steps = 0
        self.device: torch.device | None = None
        self._clock = clock
        self._own = self._plain = 0.0
        self._since: float | None = None  # when the call that runs began
        self._step: tuple[float, float] | None = None
        self._events: list[tuple[Any, Any]] = []
        self._spans: list[tuple[Any, Any]] = []
        self._begun: Any = None

    def call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call a function of the monitor's and measure it; calls inside of it belong to it."""
        if self._since is not None:
            return function(*args, **kwargs)
        mark = self._mark()
        self._since = self._clock()
        try:
            return function(*args, **kwargs)
        finally:
            self._own += self._clock() - self._since
            self._since = None
            if mark is not None:
                self._events.append((mark, self._mark()))

    def begin_step(self) -> None:
        """The first forward pass of a step begins."""
        self._step = self._clocks()
        self._begun = self._mark()

    def end_step(self) -> None:
        """The update of that step is done."""
        if self._step is not None:
            (before, own_before), (now, own) = self._step, self._clocks()
            self._plain += now - before - (own - own_before)
            self.steps += 1
            self._step = None
            if self._begun is not None:
                self._spans.append((self._begun, self._mark()))

    def read(self, steps: int) -> float:
        """Return the monitor's share of the time of `steps` steps, those measured among them, and begin anew.

        0.02 is two hundredths of what the steps take without it. NaN if no step was measured.
        """
        if not self.steps:
            return float("nan")
        shares = [BESIDE * self._own / (self._plain / self.steps * steps)] if self._plain else [float("inf")]
        passed = _passed(self._spans)
        if passed:
            own, whole = _elapsed(_passed(self._events)), _elapsed(passed)
            shares.append(own / max(whole - own, 1e-9) * self.steps / steps)
        self._own = self._plain = 0.0
        self.steps = 0
        return max(shares)

    def _clocks(self) -> tuple[float, float]:
        """Return the time, and how much of it was the monitor's, the call that runs included."""
        now = self._clock()
        return now, self._own if self._since is None else self._own + now - self._since

    def _mark(self) -> Any:
        if self.device is None or self.device.type != "cuda" or torch.cuda.is_current_stream_capturing():
            return None
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record(torch.cuda.current_stream(self.device))
        return event


def _passed(pairs: list[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
    """Take away the pairs of events that the device has come to, which are the first ones, and return them."""
    count = next((i for i, (_, end) in enumerate(pairs) if not end.query()), len(pairs))
    passed, pairs[:] = pairs[:count], pairs[count:]
    return passed


def _elapsed(pairs: list[tuple[Any, Any]]) -> float:
    """Return the milliseconds between pairs of events."""
    return sum(float(start.elapsed_time(end)) for start, end in pairs)
