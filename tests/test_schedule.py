"""When steps are captured: often at first and while the run stirs, seldom in a calm stretch, at once if rates rise.

The last step of a window always is, so that what fell silent in it is seen silent before it is explained.
"""

from __future__ import annotations

from itertools import pairwise

import pytest

from deadrelu.schedule import EARLY, RISE, STIR, Schedule


def captured(schedule: Schedule, rates: list[float] | None = None) -> list[int]:
    """Return the captured steps of a window of fifty."""
    told = rates or [0.1] * 50
    return [i for i in range(50) if schedule.captures(i, {"0": told[i]})]


def test_a_run_begins_with_five_captures_a_window() -> None:
    schedule = Schedule(every=1, length=50)
    assert captured(schedule) == [0, 10, 20, 30, 40, 49]
    schedule.end_window(50, kick=0.0, eventful=False)
    assert captured(schedule) == [9, 19, 29, 39, 49]


@pytest.mark.parametrize(
    ("step", "kick", "eventful", "expected"),
    [
        (EARLY, STIR, False, [49]),
        (EARLY - 1, STIR, False, [9, 19, 29, 39, 49]),
        (EARLY, STIR * 1.01, False, [9, 19, 29, 39, 49]),
        (EARLY, float("inf"), False, [9, 19, 29, 39, 49]),
        (EARLY, 0.0, True, [9, 19, 29, 39, 49]),
    ],
)
def test_one_is_enough_in_a_calm_stretch(step: int, kick: float, eventful: bool, expected: list[int]) -> None:
    schedule = Schedule(every=1, length=50)
    captured(schedule)
    schedule.end_window(step, kick, eventful)
    assert captured(schedule) == expected


def test_a_rate_that_rises_is_captured_at_once_in_a_calm_stretch() -> None:
    schedule = Schedule(every=1, length=50)
    captured(schedule)
    schedule.end_window(1000, 0.0, eventful=False)
    rates = [0.1] * 7 + [0.1 * RISE * 1.01] + [0.1] * 30 + [0.1 * RISE * 0.99] * 12
    assert captured(schedule, rates) == [7, 49]


@pytest.mark.parametrize(("length", "distance"), [(10, 2), (50, 10), (1000, 10)])
def test_captures_are_never_far_apart(length: int, distance: int) -> None:
    schedule = Schedule(every=1, length=length)
    assert [i for i in range(length) if schedule.captures(i, {})] == [*range(0, length, distance), length - 1]


def test_what_is_left_over_of_an_epoch_is_not_captured() -> None:
    """Every tenth batch holds 5 samples, the others 64; if all are small for long, it cannot be helped."""
    schedule = Schedule(every=1, length=50)
    assert [i for i in range(50) if schedule.captures(i, {}, 5 if i % 10 == 9 else 64)] == [0, 10, 20, 30, 40]
    assert schedule.captures(0, {}, 64)
    found = [i for i in range(1, 50) if schedule.captures(i, {}, 5)]
    assert found[0] == 13
    assert len(found) == 3


@pytest.mark.parametrize("calm", [False, True])
def test_windows_that_are_cut_short_are_captured_as_often(calm: bool) -> None:
    """A report in the middle of a window ends it."""
    schedule = Schedule(every=1, length=50)
    captured(schedule)
    schedule.end_window(10 * EARLY if calm else 0, 0.0, eventful=False)
    found = [i for i in range(400) if schedule.captures(i % 4, {})]
    assert found == list(range(49 if calm else 9, 400, 50 if calm else 10))


@pytest.mark.parametrize(("every", "length", "observed"), [(1, 2, 2), (7, 50, 8), (50, 50, 1), (100, 50, 1), (1, 3, 3)])
def test_every_window_has_a_capture(every: int, length: int, observed: int) -> None:
    schedule = Schedule(every=every, length=length)
    assert schedule.room == observed
    for calm in (False, True):
        schedule.end_window(10 * EARLY if calm else 0, 0.0, eventful=False)
        assert [schedule.captures(i, {}) for i in range(observed)][-1]


def grids(*changes: tuple[int, float]) -> Schedule:
    """Return a schedule with a bound of 2 % that learnt of these shares at these steps."""
    schedule = Schedule(every=1, length=50, bound=0.02)
    for step, share in changes:
        schedule.adapt(step, share)
    return schedule


@pytest.mark.parametrize(
    ("share", "every"),
    [(0.02, 1), (0.021, 2), (0.04, 2), (0.1, 8), (0.16, 8), (1.0, 64), (1e9, 64), (float("nan"), 1), (0.001, 1)],
)
def test_a_share_over_the_bound_thins_what_is_observed(share: float, every: int) -> None:
    schedule = grids((100, share))
    assert schedule.every == every
    assert [step for step in range(128) if schedule.observes(step)] == list(range(0, 128, every))


def test_it_thins_further_and_eases_again() -> None:
    schedule = grids((100, 0.16), (500, 0.05))
    assert schedule.every == 32
    assert not schedule.adapt(1000, 0.01)  # neither over the bound nor far under it
    assert schedule.adapt(2000, 0.005)
    assert schedule.every == 16
    for step in range(3000, 9000, 1000):
        schedule.adapt(step, 0.0)
    assert schedule.every == 1


def test_without_a_bound_the_clock_says_nothing() -> None:
    schedule = Schedule(every=3, length=50)
    assert not schedule.adapt(100, 10.0)
    assert schedule.every == 3


@pytest.mark.parametrize(
    "changes",
    [(), ((100, 0.16),), ((100, 0.16), (900, 0.05), (2000, 0.001), (2100, 0.001)), ((7, 0.5), (8, 0.05), (9, 0.001))],
)
def test_resolution_is_the_distance_to_the_next_observation(changes: tuple[tuple[int, float], ...]) -> None:
    """Against the list of all observed steps."""
    schedule = Schedule(every=1, length=50, bound=0.02)
    told, observed = dict(changes), []
    for step in range(2600):
        if step in told:
            schedule.adapt(step, told[step])
        if schedule.observes(step):
            observed.append(step)
    for step, following in pairwise(observed):
        assert schedule.resolution(step) == following - step


def test_a_bounded_window_is_full_of_observations() -> None:
    schedule = grids((100, 0.16))
    assert schedule.full(801, 50)
    assert not schedule.full(800, 49)
    assert Schedule(every=1, length=50).full(100, 3)
