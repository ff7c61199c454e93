"""When steps are captured: often at first and while the run stirs, seldom in a calm stretch, at once if rates rise."""

from __future__ import annotations

import pytest

from deadrelu.schedule import EARLY, RISE, STIR, Schedule


def captured(schedule: Schedule, rates: list[float] | None = None) -> list[int]:
    """Return the captured steps of a window of fifty."""
    told = rates or [0.1] * 50
    return [i for i in range(50) if schedule.captures(i, {"0": told[i]})]


def test_a_run_begins_with_five_captures_a_window() -> None:
    schedule = Schedule(every=1, length=50)
    assert captured(schedule) == [0, 10, 20, 30, 40]
    schedule.end_window(50, kick=0.0, eventful=False)
    assert captured(schedule) == [0, 10, 20, 30, 40]


@pytest.mark.parametrize(
    ("step", "kick", "eventful", "expected"),
    [
        (EARLY, STIR, False, [0, 25]),
        (EARLY - 1, STIR, False, [0, 10, 20, 30, 40]),
        (EARLY, STIR * 1.01, False, [0, 10, 20, 30, 40]),
        (EARLY, float("inf"), False, [0, 10, 20, 30, 40]),
        (EARLY, 0.0, True, [0, 10, 20, 30, 40]),
    ],
)
def test_two_are_enough_in_a_calm_stretch(step: int, kick: float, eventful: bool, expected: list[int]) -> None:
    schedule = Schedule(every=1, length=50)
    schedule.end_window(step, kick, eventful)
    assert captured(schedule) == expected


def test_a_rate_that_rises_is_captured_at_once_in_a_calm_stretch() -> None:
    schedule = Schedule(every=1, length=50)
    schedule.captures(49, {"0": 0.1})
    schedule.end_window(1000, 0.0, eventful=False)
    rates = [0.1] * 7 + [0.1 * RISE * 1.01] + [0.1] * 30 + [0.1 * RISE * 0.99] * 12
    assert captured(schedule, rates) == [0, 7, 25]


@pytest.mark.parametrize(("every", "length", "observed"), [(1, 2, 2), (7, 50, 8), (50, 50, 1), (100, 50, 1), (1, 3, 3)])
def test_every_window_has_a_capture(every: int, length: int, observed: int) -> None:
    schedule = Schedule(every=every, length=length)
    assert schedule.room == observed
    for calm in (False, True):
        schedule.end_window(10 * EARLY if calm else 0, 0.0, eventful=False)
        assert schedule.captures(0, {})
