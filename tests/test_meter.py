"""What a share of the time is, on a clock that is set by hand."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from deadrelu.meter import BESIDE, Meter


class Clock:
    """A clock that stands still unless it is told to go on."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def passes(self, seconds: float) -> Callable[[], None]:
        """Return a work of so many seconds."""

        def work() -> None:
            self.now += seconds

        return work


def step(meter: Meter, clock: Clock, *, own: float, plain: float, between: float = 0.0) -> None:
    """Play a step: the monitor begins it, the training works, the monitor ends it; then something else happens."""

    def begin() -> None:
        clock.passes(own / 2)()
        meter.begin_step()

    def end() -> None:
        meter.end_step()
        clock.passes(own / 2)()

    meter.call(begin)
    clock.passes(plain)()
    meter.call(end)
    clock.passes(between)()


def test_the_share_is_own_time_over_plain_time() -> None:
    clock = Clock()
    meter = Meter(clock)
    for _ in range(10):
        step(meter, clock, own=0.1, plain=2.0, between=50.0)  # loading data is no part of a step
    assert meter.steps == 10
    assert meter.read(10) == pytest.approx(BESIDE * 0.05)
    assert math.isnan(meter.read(10))


def test_steps_without_a_look_cost_nothing() -> None:
    clock = Clock()
    meter = Meter(clock)
    step(meter, clock, own=0.4, plain=2.0)
    assert meter.read(8) == pytest.approx(BESIDE * 0.4 / 16)


def test_a_call_in_a_call_counts_once_and_an_error_counts_too() -> None:
    clock = Clock()
    meter = Meter(clock)
    meter.begin_step()
    clock.passes(1.0)()
    meter.end_step()
    meter.call(lambda: meter.call(clock.passes(0.25)))

    def fails() -> None:
        clock.passes(0.25)()
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        meter.call(fails)
    assert meter.read(1) == pytest.approx(BESIDE * 0.5)


def test_it_returns_what_is_returned() -> None:
    assert Meter().call(lambda a, *, b: a + b, 1, b=2) == 3
