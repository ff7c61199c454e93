"""Meter: how much of a training's time the monitor takes, by clocks that can be read at its own calls.

On a CPU what a call of the monitor's takes is its cost. On a CUDA device its kernels run later: events in the stream
tell how long the device was busy between the first and the last of a call, read when the window is read anyway.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch


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
        self._inside = False
        self._step: tuple[float, float] | None = None
        self._events: list[tuple[Any, Any]] = []
        self._spans: list[tuple[Any, Any]] = []
        self._begun: Any = None

    def call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call a function of the monitor's and measure it; calls inside of it belong to it."""
        if self._inside:
            return function(*args, **kwargs)
        self._inside = True
        mark = self._mark()
        start = self._clock()
        try:
            return function(*args, **kwargs)
        finally:
            self._own += self._clock() - start
            self._inside = False
            if mark is not None:
                self._events.append((mark, self._mark()))

    def begin_step(self) -> None:
        """The first forward pass of a step begins."""
        self._step = self._clock(), self._own
        self._begun = self._mark()

    def end_step(self) -> None:
        """The update of that step is done."""
        if self._step is not None:
            start, own = self._step
            # What runs at this moment is a call of the monitor's, and not added to its own time yet.
            self._plain += max(0.0, self._clock() - start - (self._own - own))
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
        shares = [self._own / (self._plain / self.steps * steps)] if self._plain else [float("inf")]
        if self._spans:
            torch.cuda.synchronize(self.device)
            own, whole = _elapsed(self._events), _elapsed(self._spans)
            plain = max(whole - own, 1e-9) / len(self._spans) * steps
            shares.append(own / plain)
        self._own = self._plain = 0.0
        self.steps = 0
        self._events, self._spans = [], []
        return max(shares)

    def _mark(self) -> Any:
        if self.device is None or self.device.type != "cuda":
            return None
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record(torch.cuda.current_stream(self.device))
        return event


def _elapsed(pairs: list[tuple[Any, Any]]) -> float:
    """Return the milliseconds between pairs of events."""
    return sum(float(start.elapsed_time(end)) for start, end in pairs)
